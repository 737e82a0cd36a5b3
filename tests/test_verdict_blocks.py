"""The blocks below the verdict: who stands in which line, what is marked, what is drawn, and the paper's numbers."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree

import pytest
import verdict_runs as planted
from matplotlib.figure import Figure as Canvas
from test_verdict import EVERYTHING, Run
from verdict_runs import PUBLISHED, evaluated, step

from diag.probes.spectra.measure import PAPER
from reports.drawing import canvas
from reports.sections import Block
from reports.verdict import opening, opening_figures, paper, pareto
from reports.verdict.comparing import comparison
from reports.verdict.costs import costs_block
from reports.verdict.geometry import geometry_block
from reports.verdict.losses import Loss
from reports.verdict.paper_exponents import exponents_block
from reports.verdict.paper_tradeoffs import nearest, tradeoff_blocks
from reports.verdict.pareto import Point, front, pareto_block
from reports.verdict.placing import Spot, place
from reports.verdict.routing import routing_block
from reports.verdict.sentences import sentences
from reports.verdict.subjects import subjects
from reports.verdict.table import comparison_blocks

BUILT = {
    "verdict-comparison": comparison_blocks,
    "verdict-paper-exponents": lambda subject, found: [exponents_block(subject)],
    "verdict-paper": tradeoff_blocks,
    "verdict-pareto": lambda subject, found: [pareto_block(subject, found)],
    "verdict-geometry": lambda subject, found: [geometry_block(subject, found)],
    "verdict-routing": lambda subject, found: [routing_block(subject, found)],
    "verdict-costs": lambda subject, found: [costs_block(subject, found)],
}


def block_of(anchor: str, *runs: Run) -> Block:
    """Of one model; no other figure than its own is drawn."""
    (subject,) = subjects(runs)
    build = next(made for start, made in BUILT.items() if anchor.startswith(start))
    return next(block for block in build(subject, comparison(subject)) if block.anchor == anchor)


def lines_of(anchor: str, *runs: Run) -> dict[str, dict[str, str]]:
    return told(block_of(anchor, *runs))


def told(block: Block) -> dict[str, dict[str, str]]:
    """{first cell: {heading: "text note"}}."""
    found = {}
    for line in block.table.lines:
        cells = [f"{cell.text} {cell.note}".strip().replace("\N{NO-BREAK SPACE}", " ") for cell in line]
        found[cells[0]] = dict(zip(block.table.headings, cells, strict=True))
    return found


def test_a_line_holds_what_every_command_found_of_a_method() -> None:
    found = lines_of("verdict-comparison", *EVERYTHING)
    assert list(found) == [
        *("dense", "TD-MoE as published", "TD-MoE", "TD-MoE, “+ core refit”"),
        *("MoBE", "RTN", "identity"),
    ]
    mobe = found["MoBE"]
    assert mobe["perplexity, wikitext2"] == "8.17 ± 0.50 +0.100 ± 0.010"  # exp(2.1)
    assert mobe["perplexity, c4-eval"] == "9.00 ± 0.20 +0.100 ± 0.010"
    assert (mobe["angle, °"], mobe["norm ratio"], mobe["same experts, least"]) == (
        "10.00 ± 0.10",
        "0.900",
        "92.5 % layer 3",
    )
    assert (mobe["weight error"], mobe["functional error"], mobe["seconds"]) == ("0.400", "0.222", "7.5")
    assert found["RTN"]["perplexity, wikitext2"] == "7.43 ± 0.50 (+0.005 ± 0.010)"
    assert found["RTN"]["perplexity, c4-eval"] == "—", "the caption says what that is"
    assert "; — is not measured" in block_of("verdict-comparison", *EVERYTHING).table.caption
    assert "—" not in block_of("verdict-comparison", planted.quality()).table.caption
    assert found["dense"]["perplexity, wikitext2"] == "7.39 ± 0.50"


def test_a_loss_without_an_error_says_so_and_one_that_changes_nothing_is_0() -> None:
    none = evaluated("identity", None, 0.0, -3.5e-9, loss_difference_nats_stderr=3.5e-9)
    lone = evaluated("svd_llm", 0.4, 0.25, 0.11237, loss_difference_nats_stderr=None, stderr=None)
    found = lines_of("verdict-comparison", planted.quality(1.0, 0.3, 0.1, none, lone))
    assert found["identity"]["perplexity, wikitext2"] == "7.39 ± 0.50 0"
    assert found["SVD-LLM"]["perplexity, wikitext2"] == "8.268 +0.1124, no error known"
    runs = [planted.run_of("drift", drift=planted.drifted(name, 0.4, 5.0, 0.9, windows=count))
            for name, count in (("mobe", 1), ("tdmoe", 2))]  # fmt: skip
    text = str(lines_of("verdict-comparison", *runs)) + block_of("verdict-comparison", *runs).table.caption
    assert "1 window" in text and "1 windows" not in text


def test_attribution_that_names_no_layers_is_matched_by_its_bits() -> None:
    ladder = planted.attribution() | {"config": {}}
    assert lines_of("verdict-comparison", planted.quality(), ladder)["MoBE"]["weight error"] == "0.400"
    other = planted.attribution() | {"config": {"layers": "2"}}
    assert "weight error" not in lines_of("verdict-comparison", planted.quality(), other)["MoBE"]


def test_columns_that_nothing_fills_are_named_and_bits_off_the_median_are_marked() -> None:
    light = evaluated("svd_llm", 0.4, 0.28, 0.2)
    block = block_of("verdict-comparison", planted.quality(1.0, 0.3, 0.1, light))
    assert block.table.caption.endswith(
        "not measured: weight error, functional error, operator error, angle, °, norm ratio, same experts, least and "
        "seconds"
    )
    found = lines_of("verdict-comparison", planted.quality(1.0, 0.3, 0.1, light))
    assert found["SVD-LLM"]["bits saved"] == "28.0 % 4.0 % fewer"  # 0.72 / 0.75
    assert found["MoBE"]["bits saved"] == "25.0 %"


def test_errors_of_operator_stand_in_where_attribution_has_none() -> None:
    rows = [
        {"layer": layer, "projection": "gate", "expert": "mean", "mode": None, "method": "mobe", "ratio": 0.4}
        | {"weight_error": value, "functional_error": None, "operator_error": value / 2, "kept_ratio": 0.5}
        for layer, value in enumerate((0.2, 0.3))
    ]
    operator = planted.run_of("operator", operator=rows)
    found = lines_of("verdict-comparison", planted.quality(), operator)
    assert (found["MoBE"]["weight error"], found["MoBE"]["operator error"]) == ("0.250", "0.125")
    stored = lines_of("verdict-paper-storage", planted.quality(), operator)
    assert stored["pico-moe, measured: MoBE at 0.4"]["dense over stored, of that"] == "2.00"


def test_ratios_have_tables_of_their_own_and_growing_sets_only_the_largest() -> None:
    more = [evaluated(method, 0.2, 0.12, 0.05) for method in (PUBLISHED, "mobe")]
    more += [evaluated("mobe", 0.4, 0.1, 0.02, compressed_layers="2")]
    run = planted.quality(1.0, 0.3, 0.1, *more)
    (subject,) = subjects([run])
    titles = [
        block.title.replace("\N{NO-BREAK SPACE}", " ") for block in comparison_blocks(subject, comparison(subject))
    ]
    assert titles == ["Methods at matched bits, 20 % removed", "Methods at matched bits, 40 % removed"]
    assert list(lines_of("verdict-comparison-2", run)) == ["dense", "TD-MoE as published", "TD-MoE", "MoBE"]
    drawn = block_of("verdict-pareto", run)
    assert len(told(drawn)) == 5 and len(drawn.table.lines) == 6


def test_a_ladder_is_one_comparison_whatever_ratios_its_steps_have() -> None:
    shared = step("+ budget shared with down", "tdmoe:across=global", 0.2, ratio=0.27, projections="gate,up,down")
    runs = [planted.attribution(shared)]
    assert "TD-MoE, “+ budget shared with down” (gate, up and down)" in lines_of("verdict-comparison", *runs)
    second = sentences(runs)[1]  # holds TD-MoE against MoBE over the same projections
    assert "budget shared with down" not in second and "with steps up to “" in second


def test_what_to_do_instead_keeps_to_the_projections_of_the_duel() -> None:
    """A wider TD-MoE beats MoBE, and is told apart from the comparison over the same projections."""
    wide = {"projections": "gate,up,down"}
    shared = step("+ budget shared with down", "tdmoe:across=global", 0.05, ratio=0.27, **wide)
    fifth = sentences([planted.attribution(shared)])[4].replace("\N{NO-BREAK SPACE}", " ")
    assert fifth == (
        "What to do instead: MoBE. On c4-eval it adds +0.100 ± 0.010 nats a token at 25.0 % of bits saved; nothing "
        "else over the same projections saves more and loses less; TD-MoE, “core refit”, +0.300 ± 0.010 at 25.0 %; "
        "over gate, up and down TD-MoE, “budget shared with down”, +0.050 ± 0.010 at 25.0 %."
    )
    rounded = step("RTN, 4 bits", "rtn:bits=3,scale=tensor", 0.06, "beside", ratio=None, bits_saved=0.45)
    other = step("RTN, 4 bits", "rtn", 0.01, "beside", ratio=None, bits_saved=0.45, **wide)
    fifth = sentences([planted.attribution(shared, rounded, other)])[4].replace("\N{NO-BREAK SPACE}", " ")
    assert fifth.startswith("What to do instead: rounding to 3 bits (RTN, scale=tensor). On c4-eval"), "on these alone"
    assert "; of decompositions MoBE, +0.100 ± 0.010 at 25.0 %; over" in fifth
    assert "; over gate, up and down TD-MoE, “budget shared with down”, +0.050" in fifth
    mobe = step("preset corrected", "mobe", 0.02, "beside", **wide)
    fifth = sentences([planted.attribution(shared, mobe)])[4]
    assert "; over gate, up and down MoBE, +0.020" in fifth
    worse = step("+ budget shared with down", "tdmoe:across=global", 0.15, ratio=0.27, **wide)
    assert "over gate, up and down" not in sentences([planted.attribution(worse)])[4]


def test_the_best_combination_is_called_that_and_not_by_all_its_options() -> None:
    switches = "full modes store no factor, exact ranks, ranks in smaller steps, HOOI, shared input factor, core refit"
    name = f"best of 64 combinations: {switches}"
    best = step(name, "tdmoe:refit=expert,alignment=1", 0.2, "combination", gap_closed=0.889)
    runs = [planted.attribution(best)]
    assert "TD-MoE, “best of 64 combinations”" in lines_of("verdict-comparison", *runs)
    assert (
        f"88.9\N{NO-BREAK SPACE}% (interval not measured), with the “best of 64 combinations” ({switches});"
        in sentences(runs)[1]
    )
    winning = [planted.attribution(best | {"loss_difference_nats": 0.01})]
    assert f"TD-MoE, “best of 64 combinations” ({switches}) adds +0.010" in sentences(winning)[4]
    alone = [planted.run_of("attribution", attribution=[best, step("preset corrected", "mobe", 0.1, "mobe")])]
    first = sentences(alone)[0]
    assert first.startswith("TD-MoE with the “best of 64 combinations” loses to MoBE: ")
    assert first.endswith(f" TD-MoE's switches: {switches}.")


def test_the_front_is_what_nothing_dominates() -> None:
    draw = random.Random(0)
    for _ in range(20):
        listed = [
            Point(Loss("x", None, saved, "", "", {}), str(n), saved, perplexity, (0.0, 0.0))
            for n in range(12)
            if (saved := draw.randint(1, 6) / 10, perplexity := float(draw.randint(10, 15)))
        ]
        spots = {(p.saved, p.perplexity) for p in listed}
        expected = {(s, v) for s, v in spots if not any(s2 >= s and v2 <= v and (s2, v2) != (s, v) for s2, v2 in spots)}
        found = front(listed)
        assert {(p.saved, p.perplexity) for p in found} == expected and len(found) == len(expected)
        assert [p.saved for p in found] == sorted(p.saved for p in found)


@pytest.fixture(scope="module")
def whole() -> dict[str, Block]:
    return {block.anchor: block for block in opening(EVERYTHING).blocks}


def test_the_front_is_named(whole: dict[str, Block]) -> None:
    block = whole["verdict-pareto"]
    assert block.figure is not None
    assert "on wikitext2: RTN; on c4-eval: MoBE at 0.4." in block.figure.caption
    assert "wikitext2: dense 7.389, identity 7.389 at 0.0" in block.figure.alt
    assert told(block)["RTN"]["wikitext2"] == "7.426, +0.005 ± 0.010 on the front"


def test_panels_of_texts_have_one_labelled_scale_of_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text has its own models, of which those at the ends set what the others would be read by."""
    drawn: list[Canvas] = []

    def keep(figure: Canvas) -> bytes:
        drawn.append(figure)
        return b"<svg/>"

    monkeypatch.setattr(pareto, "svg", keep)
    far = evaluated("rtn", None, 0.457, 0.005)
    other = [row | {"dataset": "enwik8"} for row in planted.quality()["tables"]["quality"]]
    opening([planted.quality(1.0, 0.3, 0.1, far), planted.attribution(), planted.run_of("quality", quality=other)])
    panels = drawn[0].axes
    assert len(panels) == 3 and len({axes.get_xlim() for axes in panels}) == 1
    drawn[0].draw_without_rendering()
    ticks = [
        [(t.get_loc(), t.label1.get_text()) for t in axes.xaxis.get_major_ticks() if t.label1.get_visible()]
        for axes in panels
    ]
    assert ticks[0] == ticks[1] == ticks[2] and len(ticks[0]) > 3
    assert all(float(text) == tick for tick, text in ticks[0] if tick >= 0)
    assert {axes.get_xlabel() for axes in panels} == {"bits saved, %"}
    stars = [line for axes in panels for line in axes.lines if line.get_marker() == "*"]
    places = {round(float(line.get_xdata()[0]), 6) for line in stars}
    assert places == {45.7} and panels[0].get_xlim()[1] > 45.7


def test_figures_are_the_blocks_and_well_formed(whole: dict[str, Block]) -> None:
    figures = opening_figures(EVERYTHING)
    assert figures == [block.figure for block in whole.values() if block.figure]
    assert [figure.name for figure in figures] == ["verdict-pareto", "verdict-geometry", "verdict-routing"]
    for figure in figures:
        ElementTree.fromstring(figure.svg)
        assert len(figure.alt) > 40 and figure.caption
    assert "MoBE at 0.4 turns it least, by 10.0°, TD-MoE as published at 0.4 most, by 40.0°" in figures[1].caption
    routing = figures[2].caption.replace("\N{NO-BREAK SPACE}", " ")
    assert "TD-MoE as published keeps fewest at layer 3, 70.0 %" in routing


def test_peak_memory_is_the_largest_of_each_command() -> None:
    runs = [planted.attribution() | {"peak_memory_bytes": peak} for peak in (2_340_000_000, 1_100_000_000)]
    costs = next(block for block in opening(runs).blocks if block.anchor.startswith("verdict-costs"))
    assert "Peak memory of commands, model and all: attribution 2.34 GB; by method: not measured." in costs.text
    unknown = [planted.attribution() | {"peak_memory_bytes": None}]
    costs = next(block for block in opening(unknown).blocks if block.anchor.startswith("verdict-costs"))
    assert "model and all: not measured; by method" in costs.text


def test_routing_without_mobe_says_so_and_costs_are_sorted() -> None:
    alone = planted.run_of("drift", drift=planted.drifted("tdmoe", 0.4, 20.0, 0.8))
    assert block_of("verdict-routing", alone).text == "MoBE: not measured."
    slow = step("preset published", "mobe:preset=published,steps=9", 0.2, "mobe", seconds=75.0)
    found = lines_of("verdict-costs", planted.attribution(slow))
    assert list(found)[-1] == "MoBE preset=published, steps=9 at 0.4"
    assert found[list(found)[-1]] == {
        "method": "MoBE preset=published, steps=9 at 0.4", "seconds": "75.0", "stored, of the dense bits": "75.0 %",
    }  # fmt: skip
    caption = block_of("verdict-costs", planted.attribution(slow)).table.caption
    assert "calibration, frontiers and measured sensitivities apart" in caption


def test_growing_sets_and_unlabelled_losses_are_in_the_plane() -> None:
    small = planted.drifted("mobe", 0.4, 4.0, 0.97, compressed_layers="3")
    runs = [planted.quality(), planted.run_of("drift", drift=[*planted.drift()["tables"]["drift"], *small])]
    lines = block_of("verdict-geometry", *runs).table.lines
    assert [(line[0].text, line[1].text) for line in lines][:2] == [("MoBE at 0.4", "3"), ("MoBE at 0.4", "0-3")]
    assert lines[0][-1].note == "not measured" and lines[1][-1].text == "+0.100 ± 0.010"


def test_labels_hide_neither_markers_nor_labels() -> None:
    axes = canvas(3.0).add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    place(axes, [Spot(0.5, 0.5, 4.0, "0.4"), Spot(0.51, 0.5, 4.0, "0.2"), Spot(0.9, 0.9, 3.0)])
    first, second = ((text.get_position(), text.get_text()) for text in axes.texts)
    assert (first[1], second[1]) == ("0.4", "0.2")
    assert first[0][0] < 0 or abs(first[0][1]) > 4.0  # to the right stands the other marker
    assert second[0][0] > 0


def test_the_papers_numbers() -> None:
    """Table 1 as the probe has it; of Table 4 what its own text says: 7 and 8 sets of 4 methods beside dense."""
    (table,) = PAPER.values()
    assert {(line.layer, line.projection): (line.expert, line.output, line.input) for line in paper.TABLE_1} == table
    assert [(line.method, line.target, line.compression, line.saved) for line in paper.TABLE_3][1] == (
        *("Tucker", "MHA"), *(240.49, 1.01),
    )  # fmt: skip
    lines = paper.TABLE_4
    assert [sum(line.model == name for line in lines) for name in ("GPT-J 6B", "LLaMA 2 7B")] == [1 + 28, 1 + 32]
    assert {(line.wikitext2, line.c4) for line in lines if line.is_dense} == {(8.86, 11.71), (5.12, 6.63)}
    dense = {line.model: line for line in lines if line.is_dense}
    for line in lines:
        assert line.wikitext2 >= dense[line.model].wikitext2 and line.c4 >= dense[line.model].c4
        assert line.is_dense == (line.angle_deg is None) == (line.norm_ratio is None)
    last = lines[-1]
    assert (last.blocks, last.method, last.saved, last.angle_deg, last.norm_ratio) == (
        "16-23",
        "TT all",
        24.4,
        43.9,
        0.58,
    )
    assert {line.saved for line in nearest(100.0)} == {8.0, 16.0, 24.1, 24.0, 8.1, 16.3, 24.4}


def test_the_papers_exponents_stand_beside_the_same_model_and_else_are_anothers() -> None:
    other = block_of("verdict-paper-exponents", planted.spectra((0.1, 0.2, 0.3)))
    assert (
        "of Qwen3-30B-A3B, another model" in other.text and [line[0].text for line in other.table.lines][0] == "expert"
    )
    run = planted.spectra((0.1, 0.2, 0.3)) | {"model": "Qwen/Qwen3-30B-A3B"}
    same = block_of("verdict-paper-exponents", run)
    assert same.text == "" and len(same.table.lines) == 8
    first, second = same.table.lines[:2]
    assert [cell.text for cell in first[:4]] == ["Table 1, layer 0 / gate", "0.100", "0.160", "−0.060"]
    assert second[1].note == "not measured"


@pytest.mark.parametrize(("model", "there"), [("openai/gpt-oss-20b", True), ("mini", False)])
def test_a_stated_perplexity_stands_beside_its_model_alone(model: str, there: bool) -> None:
    run = planted.quality() | {"model": model}
    found = lines_of("verdict-paper-quality", run)
    assert ("paper: appendix C.1, gpt-oss-20b, dense" in found) == there
    line = found["paper: Table 4, GPT-J 6B, blocks 14-20, Tucker+TT"]
    assert (line["bits saved"], line["WikiText-2"]) == ("24.1 %", "51.26 +1.76")  # ln(51.26 / 8.86)
