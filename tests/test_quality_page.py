"""What the page of `quality` says is what its rows say, whatever is missing and whatever names are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from test_figures import HOSTILE
from test_page import Outline, words

from diag.pages import figures_for, render
from reports.quality.answer import count_layers
from reports.quality.models import models

Row = dict[str, Any]


def text_row(method: str, ratio: float | None, layers: str, saved: float, loss: float, **changes: Any) -> Row:
    """A row of wikitext2; the difference is to a dense loss of 2 nats."""
    dense = method == "dense"
    return {
        **{"method": method, "ratio": ratio, "compressed_layers": layers, "bits_saved": saved, "dataset": "wikitext2"},
        **{"metric": "perplexity", "value": 2.718281828**loss, "stderr": 0.5, "samples": 16, "status": "ok"},
        **{"loss_difference_nats": None if dense else loss - 2, "loss_difference_nats_stderr": None if dense else 0.01},
        **{"tokens": 4080, "checkpoint": "", "protocol": "windows of 256 tokens", "loss_nats": loss},
    } | changes


def task_row(method: str, ratio: float | None, layers: str, saved: float, value: float, name: str) -> Row:
    dense = method == "dense"
    return {
        **{"method": method, "ratio": ratio, "compressed_layers": layers, "bits_saved": saved, "dataset": name},
        **{"metric": "acc", "value": value, "stderr": 0.02, "samples": 100, "status": "ok", "checkpoint": ""},
        **{
            "accuracy_difference": None if dense else value - 0.5,
            "accuracy_difference_stderr": None if dense else 0.01,
        },
        "protocol": "lm-eval, 0-shot",
    }


def run_of(rows: list[Row], **changes: Any) -> dict[str, Any]:
    return {
        **{"schema": 2, "model": "pico-moe", "command": "quality", "command_line": "tdmoe-diag quality --model pico"},
        **{"config": {"texts": ["wikitext2"]}, "seed": 0, "versions": {"numpy": "2.4"}, "device": "cpu"},
        **{"fingerprint": "0123abcd", "started": "2026-01-02T03:04:05+00:00", "arrays": {}},
        "jobs": [{"key": f"quality-{n}", "state": "done", "message": None} for n in range(len(rows))],
        "tables": {"quality": rows},
    } | changes


def ratios() -> list[Row]:
    """Two methods at two ratios, on a text, two tasks and their mean."""
    variants = [("mobe", 0.2, 0.1, 2.01), ("mobe", 0.4, 0.2, 2.1), ("tdmoe:whitening=none", 0.2, 0.1, 2.5)]
    variants += [("tdmoe:whitening=none", 0.4, 0.2, 4.0)]
    rows = [text_row("dense", None, "", 0.0, 2.0)]
    rows += [text_row(method, ratio, "1-2", saved, loss) for method, ratio, saved, loss in variants]
    for task in ("piqa", "winogrande", "macro average"):
        rows.append(task_row("dense", None, "", 0.0, 0.5, task))
        rows += [task_row(m, r, "1-2", s, 0.5 - (loss - 2) / 10, task) for m, r, s, loss in variants]
    return rows


def schedule() -> list[Row]:
    rows = [text_row("dense", None, "", 0.0, 2.0)]
    for method, step in (("mobe", 0.02), ("tdmoe", 0.2)):
        rows += [
            text_row(method, 0.4, layers, 0.1 * n, 2 + step * n) for n, layers in enumerate(("5", "4-5", "3-5"), 1)
        ]
    return rows


def page_of(run: dict[str, Any]) -> str:
    return render([run], [figures_for(run)])


def test_the_answer_ranks_by_what_is_added_to_the_loss() -> None:
    said = words(page_of(run_of(ratios())))
    assert "Perplexity of the dense model: 7.39 ± 0.50 on wikitext2 (16 windows, 4080 scored tokens)." in said
    assert (
        "On wikitext2, layers 1-2 compressed, the loss changes by (nats a token, saved bits in brackets): MoBE at 0.2 "
        "+0.0100 ± 0.0100 (10.0 %) and TD-MoE whitening=none at 0.2 +0.5000 ± 0.0100 (10.0 %); MoBE at 0.4 +0.1000 ± "
        "0.0100 (20.0 %) and TD-MoE whitening=none at 0.4 +2.0000 ± 0.0100 (20.0 %)."
    ) in said
    assert "macro average of 2 tasks: dense 50.0 % ± 2.0" in said
    assert "TD-MoE whitening=none at 0.4 (layers 1-2) −20.0 ± 1.0 points" in said
    assert "2 of 4 variants differ from dense by more than two paired standard errors." in said


def test_a_second_text_in_the_same_order_is_said_to_be_so() -> None:
    rows = ratios()[:5]
    rows += [row | {"dataset": "c4"} for row in rows]
    said = words(page_of(run_of(rows)))
    assert (
        "On c4, layers 1-2 compressed, the order of all 4 is the same, from MoBE at 0.2 (+0.0100 ± 0.0100 nats)" in said
    )


def test_a_schedule_is_told_from_its_first_set_to_its_last() -> None:
    said = words(page_of(run_of(schedule())))
    assert (
        "Over the schedule, on wikitext2: MoBE at 0.4 from +0.0200 ± 0.0100 nats with 1 layer to +0.0600 ± 0.0100 nats "
        "with 3 and TD-MoE at 0.4 from +0.2000 ± 0.0100 nats with 1 layer to +0.6000 ± 0.0100 nats with 3."
    ) in said
    assert "On wikitext2, layers 3-5 compressed" in said


def test_differences_within_two_standard_errors_are_in_brackets() -> None:
    cells = re.findall(r"<small>([^<]+)</small>", page_of(run_of(ratios()[:3])))
    assert cells == ["(+0.0100 ± 0.0100)", "+0.1000 ± 0.0100"]


def test_differences_without_an_error_or_that_are_nothing() -> None:
    alone = {"loss_difference_nats_stderr": None, "stderr": None, "samples": 1}
    rows = [row | alone if row["metric"] == "perplexity" else row for row in ratios()]
    text = words(page_of(run_of(rows)))
    assert "no error known" in text and "± —" not in text and "(1 window, " in text
    nothing = {"loss_difference_nats": -3e-9, "loss_difference_nats_stderr": 3e-9}
    none = [row | nothing if row["metric"] == "perplexity" and row["method"] != "dense" else row for row in ratios()]
    assert "0.0000" not in words(page_of(run_of(none)))


def test_figures_have_a_panel_a_data_set_and_a_line_a_series() -> None:
    drawn = {figure.name: figure for figure in figures_for(run_of(ratios()))}
    assert list(drawn) == ["quality-perplexity", "quality-accuracy"]
    for figure in drawn.values():
        ElementTree.fromstring(figure.svg)
        assert figure.caption and "dense" in figure.alt
    assert "MoBE at 0.4 layers 1-2 8.166 (saves 20.0" in drawn["quality-perplexity"].alt
    assert figures_for(run_of(ratios()))[0].svg == drawn["quality-perplexity"].svg
    reversed_rows = run_of(ratios()[:1] + ratios()[:0:-1])
    assert figures_for(reversed_rows)[0].svg == drawn["quality-perplexity"].svg


def test_the_dense_model_alone_draws_nothing_and_says_its_perplexity() -> None:
    run = run_of(ratios()[:1])
    assert figures_for(run) == []
    assert "Perplexity of the dense model: 7.39 ± 0.50 on" in words(page_of(run))


@pytest.mark.parametrize("gone", ["dense", "rows", "value"])
def test_what_is_missing_is_told(gone: str) -> None:
    rows = ratios()[:5]
    if gone == "dense":
        rows = rows[1:]
    elif gone == "rows":
        rows = []
    else:
        rows[1] |= {"value": None, "stderr": None, "status": "overflow", "loss_difference_nats": None}
    run = run_of(rows)
    run["jobs"].append({"key": "quality-lost", "state": "failed", "message": "out of memory"})
    said = words(page_of(run))
    assert "Incomplete" in said and "out of memory" in said
    if gone == "value":
        assert "— overflow" in said and "MoBE at 0.2 +" not in said
    else:
        assert "The dense model was not measured, so this run answers nothing yet." in said


def test_hostile_names_stay_text() -> None:
    rows = ratios()[:1] + [text_row(HOSTILE, None, "", 0.1, 2.5, checkpoint=HOSTILE, dataset=HOSTILE)]
    rows += [text_row("dense", None, "", 0.0, 2.0, dataset=HOSTILE)]
    run = run_of(rows, model=HOSTILE)
    page = page_of(run)
    outline = Outline(page)
    assert not {tag for tag, _ in outline.tags} & {"b", "i", "svg"} and len(outline.all("script")) == 1
    assert not set("\u202e\u2066") & set(page)


def test_checkpoints_of_one_method_are_told_apart() -> None:
    rows = [text_row("dense", None, "", 0.0, 2.0)]
    rows += [text_row("rtn", None, "0-3", 0.5, 2.1, checkpoint=name) for name in ("a", "b")]
    assert [model.name for model in models(run_of(rows))] == ["dense", "RTN (a)", "RTN (b)"]


def test_layers_are_counted() -> None:
    assert [count_layers(text) for text in ("", "3", "0-2,5", "12-35")] == [0, 1, 4, 24]
