"""What the page of `quality` says is what its rows say, whatever is missing and whatever names are."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from test_figures import HOSTILE
from test_page import Outline, words

from diag.declare import parse
from diag.pages import answer, claims_of, figures_for, render
from diag.probes.quality.columns import views
from diag.probes.quality.figures import figures
from diag.verdict.evaluations import count_layers
from reports.sentences import sentences
from reports.tables import tabulated

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


def found(rows: list[Row]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Claims by quantity, the data set that they are on, and subject."""
    claims = claims_of("quality", {"quality": rows})
    return {(c["quantity"], c["evidence"]["where"].get("dataset"), c["subject"]): c for c in claims}


def test_claims_are_differences_to_dense_with_their_intervals() -> None:
    claims = found(ratios())
    added = {key[2]: c["value"] for key, c in claims.items() if key[0] == "loss_difference"}
    assert added == pytest.approx({"mobe at 0.2": 0.01, "tdmoe:whitening=none at 0.2": 0.5, "mobe at 0.4": 0.1,
                                   "tdmoe:whitening=none at 0.4": 2.0})  # fmt: skip
    assert list(added)[:2] == ["mobe at 0.2", "tdmoe:whitening=none at 0.2"]
    one = claims["loss_difference", "wikitext2", "mobe at 0.4"]
    assert (one["low"], one["high"]) == pytest.approx((0.1 - 1.96 * 0.01, 0.1 + 1.96 * 0.01))
    assert one["strength"] == "clear"
    assert one["evidence"]["where"] == {"method": "mobe", "ratio": 0.4, "compressed_layers": "1-2", "checkpoint": "",
                                        "dataset": "wikitext2"}  # fmt: skip
    taken = {key[2]: c["value"] for key, c in claims.items() if key[0] == "accuracy_difference"}
    assert taken["tdmoe:whitening=none at 0.4"] == pytest.approx(-0.2) and list(taken)[0] == "mobe at 0.2"
    assert all(key[1] == "macro average" for key in claims if key[0] == "accuracy_difference")
    clear = claims["clear_difference", "macro average", ""]
    assert (clear["value"], clear["of"]) == (2, 4)
    assert claims["dense_accuracy", "macro average", "macro average"]["value"] == 0.5


def test_intervals_of_dense_values_stay_where_values_can_be() -> None:
    rows = ratios()
    rows[0] |= {"loss_nats_stderr": 0.5}
    rows[-5] |= {"stderr": 0.4}
    claims = found(rows)
    dense = claims["dense_perplexity", "wikitext2", "wikitext2"]
    assert (dense["low"], dense["high"]) == pytest.approx((2.718281828**1.02, 2.718281828**2.98))
    accuracy = claims["dense_accuracy", "macro average", "macro average"]
    assert (accuracy["low"], accuracy["high"]) == (0.0, 1.0)


def test_every_text_is_said_by_itself() -> None:
    rows = ratios()[:5]
    said = sentences(claims_of("quality", {"quality": rows + [row | {"dataset": "c4"} for row in rows]}))
    heads = [sentence.partition(": ")[0] for sentence in said]
    added = "Loss added, nats a token, on"
    assert heads == ["Perplexity of the dense model", f"{added} wikitext2, layers 1-2", f"{added} c4, layers 1-2"]


def test_a_schedule_is_told_by_its_largest_set_beside_its_smallest() -> None:
    rows = schedule()
    rows += [text_row("rtn", None, "", 0.5, 2.3, checkpoint="folder")]
    claims = found(rows)
    assert claims["growth", "wikitext2", "mobe at 0.4"]["value"] == pytest.approx(0.06)
    assert claims["growth", "wikitext2", "tdmoe at 0.4"]["reference"] == pytest.approx({"with layers 5": 0.2})
    added = [(key[2], c["evidence"]["where"]["compressed_layers"], c["words"].count("3-5"))
             for key, c in claims.items() if key[0] == "loss_difference"]  # fmt: skip
    assert added == [("mobe at 0.4", "3-5", 1), ("tdmoe at 0.4", "3-5", 1), ("rtn (folder)", "", 0)]


def test_a_line_a_model_and_columns_a_data_set() -> None:
    perplexity, accuracy, protocol = views({"quality": ratios()[::-1]})
    table = tabulated("", accuracy.columns, accuracy.rows, accuracy.keys, accuracy.across)
    assert table.groups == [("", 4), ("macro average", 2), ("winogrande", 2), ("piqa", 2)]
    assert [cell.text for cell in table.lines[-1]][:6] == [
        "TD-MoE (unwhitened)", "40.0\u00a0%", "1-2", "20.0\u00a0%", "30.0 ± 2.0\u00a0%", "−20.0 ± 1.0"]  # fmt: skip
    table = tabulated("", perplexity.columns, perplexity.rows, perplexity.keys, perplexity.across)
    assert [line[4].text for line in table.lines] == ["7.39 ± 0.50", "7.46 ± 0.50", "12.18 ± 0.50", "8.17 ± 0.50",
                                                      "54.60 ± 0.50"]  # fmt: skip
    assert [line[5].text for line in table.lines][:2] == ["—", "+0.010 ± 0.010"]
    assert sorted(row["dataset"] for row in protocol.rows) == ["macro average", "piqa", "wikitext2", "winogrande"]


def test_values_without_an_error() -> None:
    alone = {"loss_difference_nats_stderr": None, "stderr": None, "samples": 1}
    rows = [row | alone for row in ratios()[:2]]
    (view, _) = views({"quality": rows})
    table = tabulated("", view.columns, view.rows, view.keys, view.across)
    assert [[cell.text for cell in line[4:]] for line in table.lines] == [["7.389", "—"], ["7.463", "+0.010"]]
    assert found(rows)["loss_difference", "wikitext2", "mobe at 0.2"]["strength"] == "estimate"


def test_figures_have_a_panel_a_data_set_and_a_line_a_series() -> None:
    perplexity, accuracy = figures({"quality": ratios()}, {})
    (panel,) = perplexity.panels  # type: ignore[attr-defined]
    assert (panel.title, panel.levels[0].at) == ("wikitext2", pytest.approx(2.718281828**2))
    mobe, tdmoe = panel.series
    assert (mobe.name, tdmoe.name) == ("mobe", "tdmoe:whitening=none")
    assert (mobe.x, tdmoe.y) == ([0.1, 0.2], pytest.approx([2.718281828**2.5, 2.718281828**4]))
    assert mobe.high[0] / mobe.y[0] == pytest.approx(2.718281828**0.01) == pytest.approx(mobe.y[0] / mobe.low[0])
    assert perplexity.log == "y" and accuracy.log == ""  # type: ignore[attr-defined]
    (panel,) = accuracy.panels  # type: ignore[attr-defined]
    assert (panel.title, panel.series[1].y) == ("macro average", pytest.approx([0.45, 0.3]))
    assert panel.series[1].low == pytest.approx([0.44, 0.29])
    drawn = figures_for(run_of(ratios()))
    assert [figure.name for figure in drawn] == ["quality-perplexity", "quality-accuracy"]
    for figure in drawn:
        ElementTree.fromstring(figure.svg)
    assert figures_for(run_of(ratios()[:1] + ratios()[:0:-1]))[0].svg == drawn[0].svg


def test_lines_join_growing_sets_of_layers_of_one_method_and_ratio() -> None:
    (plot,) = figures({"quality": schedule()}, {})
    assert [(one.name, one.x) for one in plot.panels[0].series] == [  # type: ignore[attr-defined]
        ("mobe at 0.4", pytest.approx([0.1, 0.2, 0.3])), ("tdmoe at 0.4", pytest.approx([0.1, 0.2, 0.3]))]  # fmt: skip


def test_the_dense_model_alone_draws_nothing_and_says_its_perplexity() -> None:
    run = run_of(ratios()[:1])
    assert figures_for(run) == []
    assert [key[0] for key in found(ratios()[:1])] == ["dense_perplexity"]


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
    page = words(page_of(run))
    assert "Incomplete" in page and "out of memory" in page
    said, table = answer(run)
    if gone == "value":
        assert [cell.note for cell in table.lines[1]][4:] == ["overflow", ""]
        (plot,) = figures({"quality": rows}, {})
        assert {one.name: one.x for one in plot.panels[0].series}["mobe"] == [0.2]  # type: ignore[attr-defined]
    elif gone == "dense":
        assert said == ["The dense model: not measured, so nothing is compared with it."]
        assert figures_for(run) == []
    else:
        assert said == ["Answer: not measured, nothing of this run has a result yet."]


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
    rows += [text_row("rtn", None, "0-3", 0.5, 2.1, checkpoint=name) for name in ("a_1", "b")]
    assert [key[2] for key in found(rows) if key[0] == "loss_difference"] == ["rtn (a_1)", "rtn (b)"]
    view = views({"quality": rows})[0]
    table = tabulated("", view.columns, view.rows, view.keys, view.across)
    assert [line[table.headings.index("checkpoint")].text for line in table.lines] == ["—", "a_1", "b"]


@pytest.mark.parametrize(("text", "layers"), [("", []), ("3", [3]), ("0-2,5", [0, 1, 2, 5]), ("12-14", [12, 13, 14])])
def test_spans_are_layers(text: str, layers: list[int]) -> None:
    assert parse.numbers(text) == layers and count_layers(text) == len(layers)
    assert parse.spans(layers) == text
