"""Tables and figures below the verdict: who stands in which line, what is marked, what is drawn, published numbers."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
import verdict_runs as planted
from test_figures import HOSTILE
from test_verdict import EVERYTHING, Run
from verdict_runs import PUBLISHED, evaluated, step

from diag.declare.column import View
from diag.pages import opening
from diag.probes.spectra.measure import PAPER
from diag.verdict import verdicts
from diag.verdict.loss import Loss
from diag.verdict.points import Point, front
from diag.verdict.published import nearest, published
from reports.plots import Panels, Plot, Scatter
from reports.sections import Opening

Row = dict[str, Any]


def view(name: str, *runs: Run) -> View:
    """Of one model."""
    (found,) = verdicts(runs)
    return next(one for one in found.views if one.name == f"verdict-{name}")


def rows(name: str, *runs: Run, text: str = "") -> dict[str, Row]:
    """{first column: row}; of a text where the table has several."""
    found = view(name, *runs)
    first = found.columns[0].name
    return {row[first]: dict(row) for row in found.rows if not text or row.get("text", text) == text}


def plot(name: str, *runs: Run) -> Plot:
    (found,) = verdicts(runs)
    return next(one for one in found.figures if one.name == f"verdict-{name}")


def test_a_line_holds_what_every_command_found_of_a_method() -> None:
    found = rows("comparison", *EVERYTHING, text="wikitext2")
    assert list(found) == ["dense", "TD-MoE as published", "TD-MoE", "MoBE", "RTN", "identity"]
    mobe = found["MoBE"]
    assert mobe["perplexity"] == pytest.approx(8.16617) and mobe["perplexity_stderr"] == 0.5  # exp(2.1)
    assert (mobe["added"], mobe["added_stderr"]) == (0.1, 0.01)
    assert (mobe["angle_deg"], mobe["norm_ratio"], mobe["at_layer"]) == (10.0, 0.9, 3)
    assert (mobe["same_experts"], mobe["weight_error"], mobe["functional_error"]) == pytest.approx((0.925, 0.4, 0.222))
    assert (mobe["seconds"], mobe["off_median"]) == (7.5, None)
    assert (found["dense"]["perplexity"], found["dense"]["angle_deg"]) == pytest.approx((7.389056, 0.0))
    other = rows("comparison", *EVERYTHING, text="c4-eval")
    assert "RTN" not in other and other["MoBE"]["perplexity"] == 9.0
    assert "TD-MoE, “+ core refit”" in other and "TD-MoE, “+ exact ranks”" not in other, "only ends of a ladder"


def test_a_loss_without_an_error_has_none() -> None:
    lone = evaluated("svd_llm", 0.4, 0.25, 0.11237, loss_difference_nats_stderr=None, stderr=None)
    found = rows("comparison", planted.quality(1.0, 0.3, 0.1, lone))["SVD-LLM"]
    assert (found["added"], found["added_stderr"]) == (0.11237, None)


def test_attribution_that_names_no_layers_is_matched_by_its_bits() -> None:
    ladder = planted.attribution() | {"config": {}}
    assert rows("comparison", planted.quality(), ladder)["MoBE"]["weight_error"] == 0.4
    other = planted.attribution() | {"config": {"layers": "2"}}
    assert rows("comparison", planted.quality(), other)["MoBE"]["weight_error"] is None


def test_columns_that_nothing_fills_are_named_and_bits_off_the_median_are_marked() -> None:
    light = evaluated("svd_llm", 0.4, 0.28, 0.2)
    found = view("comparison", planted.quality(1.0, 0.3, 0.1, light))
    assert found.caption.endswith(
        "not measured: weight error, functional error, operator error, angle, norm ratio, same experts, least and "
        "seconds"
    )
    assert [column.name for column in found.columns][:4] == ["title", "bits_saved", "off_median", "text"]
    lines = rows("comparison", planted.quality(1.0, 0.3, 0.1, light))
    assert lines["SVD-LLM"]["off_median"] == pytest.approx(0.72 / 0.75 - 1)
    assert lines["MoBE"]["off_median"] is None


def test_errors_of_operator_stand_in_where_attribution_has_none() -> None:
    table = [
        {"layer": layer, "projection": "gate", "expert": "mean", "mode": None, "method": "mobe", "ratio": 0.4}
        | {"weight_error": value, "functional_error": None, "operator_error": value / 2, "kept_ratio": 0.5}
        for layer, value in enumerate((0.2, 0.3))
    ]
    runs = planted.quality(), planted.run_of("operator", operator=table)
    found = rows("comparison", *runs)["MoBE"]
    assert (found["weight_error"], found["operator_error"]) == (0.25, 0.125)
    assert rows("published-storage", *runs)["pico-moe, measured: MoBE at 0.4"]["local"] == 2.0


def test_ratios_have_tables_of_their_own_and_growing_sets_only_the_largest() -> None:
    more = [evaluated(method, 0.2, 0.12, 0.05) for method in (PUBLISHED, "mobe")]
    more += [evaluated("mobe", 0.4, 0.1, 0.02, compressed_layers="2")]
    run = planted.quality(1.0, 0.3, 0.1, *more)
    (found,) = verdicts([run])
    titles = [one.title.replace("\N{NO-BREAK SPACE}", " ") for one in found.views if "comparison" in one.name]
    assert titles == ["Methods at matched bits, 20 % removed", "Methods at matched bits, 40 % removed"]
    assert list(rows("comparison-2", run)) == ["dense", "TD-MoE as published", "TD-MoE", "MoBE"]
    assert len(view("pareto", run).rows) == 6


def test_a_ladder_is_one_comparison_whatever_ratios_its_steps_have() -> None:
    shared = step("+ budget shared with down", "tdmoe:across=global", 0.2, ratio=0.27, projections="gate,up,down")
    found = rows("comparison", planted.attribution(shared))
    assert "TD-MoE, “+ budget shared with down” (gate, up and down)" in found


def test_the_front_is_what_nothing_dominates() -> None:
    draw = random.Random(0)
    for _ in range(20):
        listed = [
            Point(Loss("x", None, saved, "", "", {}), str(n), saved, perplexity)
            for n in range(12)
            if (saved := draw.randint(1, 6) / 10, perplexity := float(draw.randint(10, 15)))
        ]
        spots = {(p.saved, p.perplexity) for p in listed}
        expected = {(s, v) for s, v in spots if not any(s2 >= s and v2 <= v and (s2, v2) != (s, v) for s2, v2 in spots)}
        found = front(listed)
        assert {(p.saved, p.perplexity) for p in found} == expected and len(found) == len(expected)
        assert [p.saved for p in found] == sorted(p.saved for p in found)


def test_the_front_is_named_and_drawn() -> None:
    found = plot("pareto", *EVERYTHING)
    assert isinstance(found, Panels)
    assert "on wikitext2: RTN; on c4-eval: MoBE" in found.caption and found.view == "verdict-pareto"
    first = found.panels[0]
    by_name = {one.name: one for one in first.series if one.label is None}
    assert set(by_name) == {"published", "tdmoe", "mobe", "rtn", "control"}
    assert (by_name["rtn"].x, first.levels[0].at) == ([45.0], pytest.approx(7.389056))
    low, (y,), high = by_name["mobe"].low[0], by_name["mobe"].y, by_name["mobe"].high[0]
    assert (y / low, high / y) == pytest.approx((1.01005017, 1.01005017))  # exp(0.01)
    steps = next(one for one in first.series if one.label == "front")
    assert (steps.x, steps.y) == ([0.0, 45.0], pytest.approx([7.4261, 7.4261], rel=1e-4))
    assert rows("pareto", *EVERYTHING, text="wikitext2")["RTN"]["front"] == "on the front"


def test_growing_sets_and_unlabelled_losses_are_in_the_plane() -> None:
    small = planted.drifted("mobe", 0.4, 4.0, 0.97, compressed_layers="3")
    runs = [planted.quality(), planted.run_of("drift", drift=[*planted.drift()["tables"]["drift"], *small])]
    lines = view("geometry", *runs).rows
    assert [(line["title"], line["compressed_layers"]) for line in lines][:2] == [("MoBE at 0.4", "3"),
                                                                                  ("MoBE at 0.4", "0-3")]  # fmt: skip
    assert lines[0]["status"] == "not_measured" and lines[1]["added"] == 0.1
    found = plot("geometry", *runs)
    assert isinstance(found, Scatter)
    mobe = next(one for one in found.panels[0].series if one.name == "mobe")
    assert (mobe.x, mobe.y, list(mobe.shades)) == ([4.0, 10.0], [0.97, 0.9], [None, 0.1])
    assert list(mobe.sizes) == [0.25, 0.25]


def test_routing_without_mobe_says_so() -> None:
    alone = planted.run_of("drift", drift=planted.drifted("tdmoe", 0.4, 20.0, 0.8))
    assert view("routing", alone).caption.endswith("; not measured: MoBE")
    found = plot("routing", planted.drift())
    assert isinstance(found, Panels)
    (panel,) = found.panels
    assert [one.name for one in panel.series] == ["published", "tdmoe", "mobe"]
    assert list(panel.series[0].y) == pytest.approx([100.0, 90.0, 80.0, 70.0])
    caption = found.caption.replace("\N{NO-BREAK SPACE}", " ")
    assert "TD-MoE as published at layer 3, 70.0 %" in caption


def test_costs_are_sorted_and_peaks_are_the_largest_of_each_command() -> None:
    slow = step("preset published", "mobe:preset=published,steps=9", 0.2, "mobe", seconds=75.0)
    found = rows("costs", planted.attribution(slow))
    last = list(found)[-1]
    assert last == "MoBE (published preset, steps=9) at 0.4"
    assert (found[last]["seconds"], found[last]["stored"]) == (75.0, 0.75)
    caption = view("costs", planted.attribution(slow)).caption
    assert "calibration, frontiers and measured sensitivities apart" in caption
    runs = [planted.attribution() | {"peak_memory_bytes": peak} for peak in (2_340_000_000, 1_100_000_000)]
    assert rows("memory", *runs) == {"attribution": {"command": "attribution", "peak": 2.34}}
    assert not [one for one in verdicts([planted.attribution()])[0].views if one.name == "verdict-memory"]


@pytest.fixture(scope="module")
def whole() -> Opening:
    return opening(EVERYTHING)


def test_every_figure_stands_above_its_table(whole: Opening) -> None:
    figures = {block.anchor: block.figure for block in whole.blocks if block.figure is not None}
    assert list(figures) == ["verdict-pareto", "verdict-geometry", "verdict-routing"]
    for name, figure in figures.items():
        ElementTree.fromstring(figure.svg)
        assert figure.name == name and len(figure.alt) > 40 and figure.caption
    assert (
        "MoBE at 0.4 turns it least, by 10.0°, TD-MoE as published at 0.4 most" in figures["verdict-geometry"].caption
    )


def test_hostile_names_stay_text_on_one_line() -> None:
    table = [row | {"dataset": HOSTILE, "checkpoint": HOSTILE} for row in planted.quality()["tables"]["quality"][1:]]
    table += [evaluated("dense", None, 0.0, 0.0, dataset=HOSTILE), evaluated(HOSTILE, 0.4, 0.25, 0.01, dataset=HOSTILE)]
    steps = [step(HOSTILE, "tdmoe", 0.2), step(HOSTILE, HOSTILE, 0.5, "beside", text=HOSTILE)]
    runs = [
        planted.run_of("quality", model=HOSTILE, quality=table),
        planted.attribution(*steps, attribution_shapley=[planted.shapley()[1] | {"text": HOSTILE}], model=HOSTILE),
        planted.run_of("drift", model=HOSTILE, drift=planted.drifted(HOSTILE, 0.4, 10.0, 0.9)),
        planted.spectra((0.1, 0.2, 0.3)) | {"model": HOSTILE},
    ]
    found = opening(runs)
    assert len(found.blocks) > 6 and len(found.sentences) > 6
    told = [*found.sentences]
    for block in found.blocks:
        assert block.table is not None
        told += [block.title, block.text, block.table.caption, *block.table.headings]
        told += [text for line in block.table.lines for cell in line for text in (cell.text, cell.note)]
        if block.figure is not None:
            ElementTree.fromstring(block.figure.svg)
            told += [block.figure.alt, block.figure.caption]
            assert b"<script" not in block.figure.svg
    assert not set("\u202e\u2066\n") & set("".join(told))
    assert any("document.title" in text for text in told)
    assert all(re.fullmatch(r"[a-z0-9-]+", block.anchor) for block in found.blocks)


def test_the_papers_numbers() -> None:
    """Table 1 as the probe has it; of Table 4 what its own text says: 7 and 8 sets of 4 methods, and dense."""
    (table,) = PAPER.values()
    found = {(line["layer"], line["projection"]): line for line in published("exponents")}
    assert {key: (line["expert"], line["output"], line["input"]) for key, line in found.items()} == table
    tucker = published("storage")[1]
    assert (tucker["method"], tucker["target"], tucker["compression"], tucker["saved"]) == (
        "Tucker",
        "MHA",
        240.49,
        1.01,
    )
    lines = published("tradeoffs")
    assert [sum(line["model"] == name for line in lines) for name in ("GPT-J 6B", "LLaMA 2 7B")] == [1 + 28, 1 + 32]
    dense = {line["model"]: line for line in lines if line["method"] == "dense"}
    assert {(line["wikitext2"], line["c4"]) for line in dense.values()} == {(8.86, 11.71), (5.12, 6.63)}
    for line in lines:
        assert line["wikitext2"] >= dense[line["model"]]["wikitext2"] and line["c4"] >= dense[line["model"]]["c4"]
        assert (line["method"] == "dense") == (line["angle_deg"] is None) == (line["norm_ratio"] is None)
    assert tuple(lines[-1].values()) == ("LLaMA 2 7B", "16-23", "TT all", 24.4, 25.61, 23.59, 43.9, 0.58)
    assert {line["saved"] for line in nearest(100.0)} == {8.0, 16.0, 24.1, 24.0, 8.1, 16.3, 24.4}


def test_the_papers_exponents_stand_beside_the_same_model_and_else_are_anothers() -> None:
    other = view("published-exponents", planted.spectra((0.1, 0.2, 0.3)))
    assert "of Qwen3-30B-A3B, another model" in other.caption
    first, second = other.rows[:2]
    assert (first["of"], first["mode"], first["median"], first["null"]) == ("measured", "expert", 0.1, 0.05)
    assert (second["least"], second["most"], second["null"]) == (0.025, 0.187, None)
    same = view("published-exponents", planted.spectra((0.1, 0.2, 0.3)) | {"model": "Qwen/Qwen3-30B-A3B"})
    assert len(same.rows) == 8 * 3
    line = same.rows[0]
    assert (line["name"], line["alpha"], line["paper"]) == ("Table 1, layer 0 / gate", 0.1, 0.16)
    assert line["difference"] == pytest.approx(-0.06)
    assert same.rows[3]["status"] == "not_measured"


@pytest.mark.parametrize(("model", "there"), [("openai/gpt-oss-20b", True), ("mini", False)])
def test_a_stated_perplexity_stands_beside_its_model_alone(model: str, there: bool) -> None:
    found = rows("published-losses", planted.quality() | {"model": model}, text="WikiText-2")
    assert ("paper: appendix C.1, gpt-oss-20b, dense" in found) == there
    line = found["paper: Table 4, GPT-J 6B, blocks 14-20, Tucker+TT"]
    assert (line["bits_saved"], line["perplexity"]) == (pytest.approx(0.241), 51.26)
    assert line["added"] == pytest.approx(1.755, abs=1e-3)  # ln(51.26 / 8.86)
