"""What the page of `attribution` says is what its rows say, whatever is missing and whatever steps are called."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attribution_tables import (
    GAP,
    MOBE,
    PUBLISHED,
    attribution_rows,
    predictor_rows,
    run_of,
    shapley_rows,
    share_rows,
    step_rows,
)
from browser import chromium, complaints, emulate_phone, emulate_scheme
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from test_figures import HOSTILE
from test_page import Outline, words

from diag.pages import figures_for, render
from reports.attribution import ladder_figures, modes, scatter, shares
from reports.attribution.answer import answer
from reports.attribution.ladder_figures import ladder_figure, meeting_figure
from reports.attribution.ladders import Attribution, attribution, with_error
from reports.attribution.waterfall import chain
from reports.drawing import Figure, style

Row = dict[str, Any]
NAMES = ["ladder", "mobe", "shapley", "floor", "predictors", "errors"]


def page_of(run: dict[str, Any], *, figures: bool = True) -> str:
    return render([run], [figures_for(run) if figures else []])


def drawn(draw: Callable[[str, Attribution], Figure | None], run: dict[str, Any]) -> Any:
    """One figure alone."""
    with style():
        return draw(run["model"], attribution(run))


def said(run: dict[str, Any]) -> str:
    return " ".join(answer(attribution(run)))


def changed(step: str, **values: Any) -> list[Row]:
    """The planted rows with one of them changed."""
    rows = attribution_rows()
    assert any(row["step"] == step for row in rows)
    return [row | values if row["step"] == step else row for row in rows]


def lost(step: str, status: str = "out_of_memory") -> list[Row]:
    columns = ("loss_nats", "loss_difference_nats", "change_nats", "gap_closed", "gap_low", "gap_high", "perplexity")
    return changed(step, **dict.fromkeys(columns), status=status)


def without_gap() -> list[Row]:
    gone = dict.fromkeys(("gap_closed", "gap_low", "gap_high"))
    return [row | gone | {"status": "no_gap"} for row in attribution_rows()]


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(run_of())


def test_the_verdict_is_the_share_of_the_gap_and_what_is_left_of_it(page: str) -> None:
    text = words(page)
    assert (
        "93.7 % (95 % interval 93.0 to 94.4) of TD-MoE's gap to MoBE given the same refit is how TD-MoE was run: as "
        "published it adds 1.452 ± 0.012 nats a token to the dense model's loss, MoBE (corrected) 0.0490 ± 0.0022, a "
        "gap of 1.403 nats (bits saved: 24.8 % and 25.1 %), and MoBE with the refit 0.0480 ± 0.0021, a gap of 1.404 "
        "nats; with “+ core refit” it adds 0.1360 ± 0.0031; of the gap to MoBE as it is, 93.8 % (93.1 to 94.5)."
    ) in text
    assert "What is left, 6.3 % of that gap (5.6 to 7.0), 0.0880 nats, bounds from above what is structural" in text
    wider = (
        "All of this is over gate and up. With as many bits saved over gate, up and down, TD-MoE “+ budget shared with "
        "down by measured sensitivity” adds 0.0690 ± 0.0024 nats, MoBE "
    )
    assert f"{wider}over these was not measured." in text
    assert pytest.approx((PUBLISHED - 0.136) / GAP, abs=5e-4) == 0.938  # the planted tables say so themselves
    rows = attribution_rows()
    spread = {"step": "+ budget spread", "projections": "gate,up,down", "loss_difference_nats": 0.04}
    found = [row for row in rows if row["ladder"] == "mobe"][-1] | spread
    assert f"{wider}“+ budget spread” 0.0400 ± 0.0026." in said(run_of([*rows, found]))
    alone = [row for row in rows if row["projections"] != "gate,up,down"]
    assert "All of this is over" not in said(run_of([*alone, found]))


def test_without_the_table_of_shares_the_choice_and_what_mobe_lacks_are_told() -> None:
    text = said(run_of(attribution_rows()))
    assert text.startswith(
        "93.8 % (95 % interval 93.2 to 94.4) of TD-MoE's gap to MoBE is how TD-MoE was run: as ".replace(" %", "\xa0%")
    )
    assert "; MoBE was not given the refit; the best run was chosen on the same windows. What is left, 6.2" in text
    plain = share_rows()[1:]
    text = said(run_of(shares=[share_rows()[0] | {"gap_closed": None, "status": "not_measured"}, *plain]))
    assert "; MoBE was not given the refit. What is left" in text and "given the same" not in text
    alone = [row | {"not_given": "", "given": ""} for row in plain]
    text = said(run_of(shares=[alone[0] | {"against": "same_changes"}, *alone]))
    assert text.startswith("93.8") and "not given" not in text and "as it is" not in text


def test_the_best_run_is_the_one_that_the_shares_are_of() -> None:
    """On all windows a combination may lose least of these and not be the one that the choice is told of."""
    rows = attribution_rows()
    chosen = next(row for row in rows if row["step"] == "+ core refit")
    lucky = chosen | {"step": "best of 64 combinations: x", "ladder": "combination", "loss_difference_nats": 0.1}
    for name, table in (("best of 64 combinations: x", []), ("+ core refit", share_rows())):
        found = attribution(run_of([*rows, lucky], shares=table))
        assert found.best is not None and found.best.name == name


def test_the_best_combination_is_the_best_of_tdmoe() -> None:
    """Where it is no step of the ladder; it changes no step before it, and follows none."""
    rows = attribution_rows()
    chosen = next(row for row in rows if row["step"] == "+ core refit")
    values = {"loss_difference_nats": 0.1, "gap_closed": 0.9637, "gap_low": 0.95, "gap_high": 0.97, "change_nats": None}
    name = "best of 128 combinations: exact ranks, core refit"
    run = run_of([*rows, chosen | values | {"step": name, "ladder": "combination"}])
    text = said(run)
    assert words(text).startswith("96.4 % (95 % interval 95.0 to 97.0) of TD-MoE's gap to MoBE is how TD-MoE was run")
    assert f"with “{name}” it adds 0.100" in text and "At the ranks of “best of 128" in text
    ladder = drawn(ladder_figure, run)
    assert "Beside: best of 128 combinations" in ladder.alt and "0.069 (−0.067" in ladder.alt
    assert f"{name} 0.100" in words(page_of(run, figures=False))


def test_which_change_takes_away_most_and_whether_order_matters(page: str) -> None:
    text = words(page)
    assert (
        "Averaged over all orders (Shapley values), most is taken away by exact ranks: 0.938 nats (0.921 to "
        "0.955), 66.9 % of the gap (65.6 to 68.1); then by core refit 0.231 nats (0.224 to 0.239)"
    ) in text
    assert "No effect that differs from 0: HOOI, 0.000 nats (−0.001 to 0.001)." in text
    assert "On the ladder “+ exact ranks” changes most: −0.9630 ± 0.0091 nats to the step before it, 68.6 % of" in text
    assert "The loss rises at “+ shared input factor” (+0.0090 ± 0.0019). “+ HOOI” changes nothing here." in text
    assert (
        "Order matters: “exact ranks” takes away 1.056 nats as the first change and 0.701 as the last, a difference of "
        "27.0 % of the 1.316 nats that all take away together."
    ) in text


def test_harm_and_little_order_are_told() -> None:
    rows = shapley_rows()
    rows[2] |= {"alone_nats": 0.94, "last_nats": 0.92}
    rows[4] |= {"nats": -0.02, "nats_low": -0.03, "nats_high": -0.01}
    text = said(run_of(shapley=rows))
    assert "Harm: shared input factor, −0.020 nats (−0.030 to −0.010)." in text
    assert "Order matters little: most to “core refit”" in text


def test_what_was_measured_in_one_order_only_is_no_difference() -> None:
    rows = [row | {"orders": 4} for row in shapley_rows()]
    rows[2] |= {"alone_nats": None}
    text = said(run_of(shapley=rows))
    assert "Averaged over 4 drawn orders (Shapley values)" in text
    total = sum(row["nats"] for row in rows)
    assert f"a difference of {100 * (0.312 - 0.189) / total:.1f}\N{NO-BREAK SPACE}% of the {total:.3f} nats" in text
    assert "all take away together (5 of 6 measured as both)." in text
    rows[5] |= {"nats": None}
    assert "Order matters" not in said(run_of(shapley=rows))


def test_the_floor_is_held_against_mobe() -> None:
    below = said(run_of())
    assert (
        "At the ranks of “+ core refit” no Tucker decomposition has a functional error below 0.191, the cost of "
        "cutting the input mode alone; the step has 0.247, MoBE 0.145: below the floor"
    ) in below
    above = said(run_of(changed("+ phi tanh: preset corrected", functional_error=0.2)))
    assert "MoBE 0.200: above the floor, so these ranks do not stand between TD-MoE and MoBE." in above


def test_where_mobe_is_better_from_is_told_by_its_own_ladder() -> None:
    text = said(run_of())
    assert (
        "MoBE with one basis and no nonlinearity has the form of a Tucker decomposition that cuts the input mode "
        "alone, and adds 0.3190 ± 0.0050 nats (the step of TD-MoE with the nearest errors, “+ exact ranks”: 0.3160 ± "
        "0.0049). From there more bases take away 0.207 nats (“+ number of bases searched”: 0.1120 ± 0.0036) and the "
        "nonlinearity takes away 0.063 nats (“+ phi tanh: preset corrected”: 0.0490 ± 0.0022). With its left factors "
        "refitted it adds 0.0480 ± 0.0021. Trained as published it adds 0.0670 ± 0.0026 (“preset published, 3,000 "
        "steps”), and by the same optimiser 0.0710 ± 0.0026 (“published training, free mixing”)."
    ) in text
    worse = changed("+ phi tanh: preset corrected", loss_difference_nats=0.12)
    worse = [row | {"loss_difference_nats": 0.13} if row["step"] == "+ phi silu" else row for row in worse]
    assert "the nonlinearity adds 0.008 nats" in said(run_of(worse))
    start = changed("1 basis, phi identity (input-mode Tucker)", method="mobe:bases=1")
    assert "has the form of a Tucker" not in said(run_of(start))


def test_rounding_and_the_best_predictor_stand_beside() -> None:
    text = said(run_of())
    assert (
        "Rounding beside, loss added at bits saved: RTN, 4 bits 0.0057 ± 0.0012 nats at 45.7\N{NO-BREAK SPACE}%, the "
        "best TD-MoE 0.136" in text
    )
    assert (
        "Rank correlation with the loss over 17 compressed models: the angle of the stream 0.98 (0.92 to 1.00), the"
        in text
    )
    assert "The interval of the functional error, own inputs, the functional error and the operator error reach" in text
    apart = predictor_rows()
    apart[2] |= {"low": 0.995}
    assert "not certain" not in said(run_of(predictors=apart))


def test_no_gap_is_said_and_no_share_of_it_is_given() -> None:
    run = run_of(without_gap())
    text = said(run)
    assert text.startswith(
        "There is no gap to MoBE to explain: as published TD-MoE adds 1.452 ± 0.012 nats a token to the dense "
        "model's loss, MoBE (corrected) 0.0490 ± 0.0022, a difference that cannot be told from 0"
    )
    assert "of the gap" not in text.split("Averaged over")[0] and "structural" not in text
    assert "— no gap" in words(page_of(run, figures=False))
    ladder = drawn(ladder_figure, run)
    assert "The gap to MoBE is not clear" in ladder.caption and "·" not in ladder.alt


def test_without_mobe_what_is_left_is_held_against_dense() -> None:
    rows = [row for row in attribution_rows() if not row["method"].startswith("mobe")]
    rows = [row | dict.fromkeys(("gap_closed", "gap_low", "gap_high")) for row in rows]
    text = said(run_of(rows, shapley=[]))
    assert "95.2\N{NO-BREAK SPACE}% of what TD-MoE adds to the loss is how it was run" in text
    assert "MoBE was not measured, so the gap to it is not known." in text
    assert pytest.approx(1 - 0.069 / PUBLISHED, abs=5e-4) == 0.952
    assert drawn(meeting_figure, run_of(rows)) is None


@pytest.mark.parametrize(
    ("best", "interval", "expected"),
    [
        (
            0.045,
            (1.001, 1.005),
            "All of TD-MoE's gap to MoBE is how TD-MoE was run, 100.3\N{NO-BREAK SPACE}% (95\N{NO-BREAK SPACE}% int",
        ),
        (0.045, (1.001, 1.005), "Nothing is left of the gap: TD-MoE is ahead of MoBE by 0.0040 nats."),
        (0.052, (0.99, 1.004), "(−0.4 to 1.0), cannot be told from nothing: none of it has to be structural."),
    ],
)
def test_a_gap_that_is_closed(best: float, interval: tuple[float, float], expected: str) -> None:
    step = "+ core refit"
    closed = (PUBLISHED - best) / GAP
    values = {"loss_difference_nats": best, "gap_closed": closed, "gap_low": interval[0], "gap_high": interval[1]}
    assert expected in said(run_of(changed(step, **values)))


def test_no_change_that_helps() -> None:
    text = said(run_of(step_rows("tdmoe", ()) + [row for row in attribution_rows() if row["step"] in KEPT]))
    assert text.startswith("No change that was tried closes any of TD-MoE's gap to MoBE: as published it adds 1.452")


KEPT = ("as published", "+ phi tanh: preset corrected")


def test_mobe_is_its_better_preset_and_no_step_of_its_ladder() -> None:
    found = attribution(run_of(changed("+ phi silu", loss_difference_nats=0.03)))
    assert found.reference is not None and found.reference.damage == MOBE
    assert found.gap == pytest.approx(GAP)
    assert [step.preset for step in found.presets] == ["corrected", "published, 3,000 steps"]


def test_the_waterfall_adds_up_to_what_was_closed() -> None:
    found = attribution(run_of())
    bars = chain(found.tdmoe, found.gap)
    assert [bar.start for bar in bars[1:]] == [bar.step.damage for bar in bars[:-1]]
    drop = sum(bar.start - bar.step.damage for bar in bars if bar.start is not None)
    assert drop == pytest.approx(PUBLISHED - 0.069)
    assert bars[3].note == "−0.963 · 69\N{NO-BREAK SPACE}%"
    assert bars[5].note == "+0.009 · −0.6\N{NO-BREAK SPACE}%"
    last = chain(found.mobe, None)[-1]
    assert last.start is None and last.step.preset.startswith("published")  # trained otherwise, no further step


def test_after_a_step_that_failed_the_next_one_stands_whole() -> None:
    run = run_of(lost("+ correct whitening"))
    bars = chain(attribution(run).tdmoe, GAP)
    assert [bar.start is None for bar in bars[:5]] == [True, False, True, True, False]
    assert not bars[2].step.measured and bars[2].step.reason == "out of memory"
    assert "+ correct whitening: out of memory" in drawn(ladder_figure, run).alt
    text = words(page_of(run, figures=False))
    assert "Not measured: + correct whitening (out of memory)." in text and "— out of memory" in text


@pytest.mark.parametrize("step", ["as published", "+ phi tanh: preset corrected", "dense"])
def test_a_missing_end_is_said(step: str) -> None:
    text = said(run_of(lost(step, "failed")))
    if step == "as published":
        assert text.startswith("TD-MoE as published was not measured (failed), so no share of its gap is known;")
    elif step == "dense":
        assert text.startswith("93.8")
    else:  # the other preset is the better one then
        assert "MoBE (published, 3,000 steps) 0.0670 ± 0.0026" in text


def test_numbers_that_are_none_are_not_measured() -> None:
    step = "+ budget shared with down by measured sensitivity"
    rows = changed(step, loss_difference_nats=math.nan, change_nats=math.inf, gap_closed=math.nan, gap_low=math.nan)
    shapley = [row | {"nats": math.nan} for row in shapley_rows()[:1]] + shapley_rows()[1:]
    page = page_of(run_of(rows, shapley), figures=False)
    assert not re.search(r"\bnan\b", words(page)) and "— not finite" in words(page)
    assert "Not measured: + budget shared with down by measured sensitivity (not finite)." in words(page)
    assert "the best is" not in words(page) and "“+ core refit” it adds 0.136" in words(page)


def test_the_quick_ladder_alone() -> None:
    quick = {"as published", "+ exact ranks", "1 basis, phi identity (input-mode Tucker)", "RTN, 4 bits", "dense"}
    rows = [row for row in attribution_rows() if row["step"] in {*quick, "+ phi tanh: preset corrected"}]
    text = said(run_of(rows, [], []))
    assert "Shapley values were not measured, so this holds for this order of changes only." in text
    assert "bases and nonlinearity together take away 0.270 nats" in text
    assert "Not measured: Shapley values and which error predicts the loss." in text
    names = [figure.name for figure in figures_for(run_of(rows, [], []))]
    assert names == ["attribution-ladder", "attribution-mobe", "attribution-floor", "attribution-errors"]


def test_nothing_measured_is_no_answer() -> None:
    run = run_of([], [], [])
    assert figures_for(run) == []
    assert "does not say what is self-inflicted" in words(page_of(run))
    rows = [row | {"loss_difference_nats": None, "status": "not_measured"} for row in attribution_rows()]
    assert said(run_of(rows)).startswith("The dense model was not measured")


def test_every_figure_has_words_and_is_the_same_again() -> None:
    figures = figures_for(run_of())
    assert [figure.name for figure in figures] == [f"attribution-{name}" for name in NAMES]
    for figure in figures:
        assert ElementTree.fromstring(figure.svg).tag.endswith("svg")
        assert len(figure.svg) < 130_000 and len(figure.caption) > 80
    assert "+ core refit 0.136 (−0.189 · 13\N{NO-BREAK SPACE}%)" in figures[0].alt
    assert "Beyond the axis: TD-MoE, inverse whitening 2.650." in figures[0].caption
    assert "exact ranks 0.938 (0.921 to 0.955) nats, alone 1.056, last 0.701" in figures[2].alt
    assert "as published: 0.499, floor 0.381 (expert 0.000, output 0.381, input 0.241)" in figures[3].alt
    assert "operator error 0.75 (0.40 to 0.92)" in figures[4].alt
    assert figures[0] == drawn(ladder_figure, run_of())


@pytest.fixture
def canvases(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Canvas]]:
    """Figures before they are turned into bytes."""
    kept: list[Canvas] = []

    def keep(figure: Canvas) -> bytes:
        kept.append(figure)
        return b"<svg/>"

    for module in (ladder_figures, shares, modes, scatter):
        monkeypatch.setattr(module, "svg", keep)
    yield kept


@pytest.mark.parametrize("name", ["", "+ W" * 30, HOSTILE], ids=["planted", "long", "hostile"])
def test_no_text_leaves_the_figure_or_covers_another(canvases: list[Canvas], name: str) -> None:
    rows = [row | {"step": name or row["step"]} for row in attribution_rows()]
    figures_for(run_of(rows, [row | {"text": name or row["text"]} for row in shapley_rows()]))
    assert len(canvases) == len(NAMES)
    for figure in canvases:
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        page = figure.bbox
        boxes = [text.get_window_extent(renderer) for text in _texts(figure)]
        assert all(page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1 for box in boxes)
        assert all(page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1 for box in boxes)
        assert not [
            (a, b) for n, a in enumerate(boxes) for b in boxes[:n] if a.shrunk(0.9, 0.6).overlaps(b.shrunk(0.9, 0.6))
        ]


def _texts(figure: Canvas) -> list[Any]:
    """Everything drawn that has letters; tick labels outside the view are not."""
    found = [text for text in figure.findobj(Text) if text.get_text().strip()]
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                for text in (tick.label1, tick.label2):
                    if not (text.get_visible() and low <= tick.get_loc() <= high):
                        hidden.add(text)
    return list(dict.fromkeys(text for text in found if text.get_visible() and text not in hidden))


def test_hostile_names_stay_text(page: str) -> None:
    rows = [row | {"step": HOSTILE, "ranks": HOSTILE, "text": HOSTILE} for row in attribution_rows()]
    rows[1] |= {"loss_difference_nats": None, "status": HOSTILE}
    shapley = [row | {"text": HOSTILE, "orders": HOSTILE} for row in shapley_rows()]
    predictors = [*predictor_rows(), predictor_rows()[0] | {"error": HOSTILE}]
    hostile = page_of(run_of(rows, shapley, predictors, model=HOSTILE))
    planted, outline = Outline(page), Outline(hostile)
    for tag in ("script", "img", "b", "i", "svg"):
        assert len(outline.all(tag)) == len(planted.all(tag))
    assert not set("\u202e\u2066") & set(hostile)


def test_tables_give_every_step_its_numbers_and_its_spec(page: str) -> None:
    text = words(page)
    assert "+ exact ranks 0.3160 ± 0.0049 −0.9630 ± 0.0091 81.0 % (80.4 to 81.6) 25.1 %" in text
    assert "MoBE, published, 3,000 steps 0.0670 ± 0.0026 — 98.7 %" in text
    assert "preset published, 3,000 steps 0.0670 ± 0.0026 +0.0190 ± 0.0013 98.7 %" in text
    assert "tdmoe:gate_up=joint,refit=expert,alignment=1 0.4 gate, up 9.2" in text
    assert "as published 32,80,88 0.000 0.381 0.241 0.381 0.499" in text
    assert "core refit 0.2310 (0.2240 to 0.2390) 16.5 % (16.0 to 17.0) 0.3120 0.1890 all 64 32" in text


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [(0.1017, 0.0042, "0.1017 ± 0.0042"), (43.21, 1.3, "43.2 ± 1.3"), (-3e-9, 1e-9, "0"), (None, None, "—")],
)
def test_a_number_has_one_rounding_in_verdict_and_section(value: float | None, stderr: float | None, text: str) -> None:
    assert with_error(value, stderr) == text


def test_in_a_browser_it_is_legible_at_every_width(tmp_path: Path, page: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    with chromium(tmp_path / "profile") as session:
        session.get(file.as_uri())
        images = "return [...document.images].map(image => image.complete && image.naturalWidth > 0)"
        assert session.execute_script(images) == [True] * len(NAMES)
        for width in (390, 768, 1440):
            for scheme in ("light", "dark"):
                emulate_scheme(session, scheme)
                emulate_phone(session, width, 900)
                session.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")
                assert session.execute_script("return document.documentElement.scrollWidth") <= width
        assert complaints(session) == []
