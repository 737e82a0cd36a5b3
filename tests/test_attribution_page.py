"""Claims, tables and figures of attribution hold what its rows hold, whatever is missing or steps are called."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from attribution_tables import GAP, MOBE, PUBLISHED, attribution_rows, predictor_rows, run_of, shapley_rows, share_rows
from browser import chromium, complaints, emulate_phone, emulate_scheme
from test_figures import HOSTILE
from test_page import Outline, words

from diag.pages import answer, claims_of, figures_for, render
from diag.probes.attribution import ends
from diag.probes.attribution.columns import views
from diag.probes.attribution.figures import chain, errors, figures, floor, ladder, shapley
from reports.plots import Waterfall
from reports.sentences import sentences

Row = dict[str, Any]
NAMES = ["ladder", "mobe", "shapley", "floor", "predictors", "errors"]
REFIT, AS_IT_IS = "MoBE given the same refit", "MoBE as it is (without the refit)"
LOSSES = ("loss_nats", "loss_difference_nats", "change_nats", "gap_closed", "perplexity", "mobe_difference_nats")


def found(run: dict[str, Any]) -> dict[tuple[str, str], Row]:
    return {(c["quantity"], c["subject"]): c for c in claims_of("attribution", run["tables"], run["jobs"])}


def of(run: dict[str, Any], quantity: str) -> dict[str, Any]:
    """Values by subject, in their order."""
    return {subject: claim["value"] for (name, subject), claim in found(run).items() if name == quantity}


def interval(claim: Row) -> list[float]:
    return [claim["value"], claim["low"], claim["high"]]


def changed(step: str, **values: Any) -> list[Row]:
    """The planted rows with one of them changed."""
    rows = attribution_rows()
    assert any(row["step"] == step for row in rows)
    return [row | values if row["step"] == step else row for row in rows]


def lost(step: str, status: str = "out_of_memory") -> list[Row]:
    return changed(step, **dict.fromkeys(LOSSES), status=status)


@pytest.fixture(scope="module")
def page() -> str:
    return render([run_of()], [figures_for(run_of())])


def test_the_gap_the_share_of_how_it_was_run_and_what_remains() -> None:
    claims = found(run_of())
    assert interval(claims["gap", REFIT]) == pytest.approx([1.404, 1.384, 1.424])
    assert interval(claims["gap", "MoBE as it is"]) == pytest.approx([GAP, GAP - 0.02, GAP + 0.02])
    like = (PUBLISHED - 0.136) / (PUBLISHED - 0.048)
    assert interval(claims["gap_closed", REFIT]) == pytest.approx([like, like - 0.007, like + 0.007])
    assert claims["gap_closed", AS_IT_IS]["value"] == pytest.approx((PUBLISHED - 0.136) / GAP)
    assert interval(claims["left", REFIT]) == pytest.approx([0.088, 0.079, 0.097])
    assert claims["left", REFIT]["strength"] == "clear" and claims["left", REFIT]["unit"] == "nats"
    assert claims["left", REFIT]["evidence"]["where"] == {"against": "same_changes"}
    assert list(of(run_of(), "gap_closed")) == [REFIT, AS_IT_IS]
    first, share, *_ = sentences(list(claims.values()))
    assert first.endswith("per token: MoBE given the same refit 1.404 (1.384 to 1.424) and MoBE as it is 1.403 (1.383 "
                          "to 1.423) nats.")  # fmt: skip
    assert "MoBE given the same refit 93.73\xa0% (93.03 to 94.43) and MoBE as it is (without the refit) 93.8" in share


@pytest.mark.parametrize("low", [-0.001, 0.001])
def test_a_remainder_whose_interval_holds_0_is_not_clear(low: float) -> None:
    shares = [row | {"left_nats": 0.003, "left_low": low, "left_high": 0.007} for row in share_rows()]
    assert found(run_of(shares=shares))["left", REFIT]["strength"] == ("clear" if low > 0 else "unclear")


def test_one_share_where_both_kinds_say_the_same() -> None:
    plain = share_rows()[1] | {"not_given": ""}
    assert of(run_of(shares=[plain | {"against": "same_changes"}, plain]), "gap_closed") == {
        "MoBE as it is": plain["gap_closed"]
    }
    unmeasured = dict.fromkeys(("gap_nats", "gap_closed", "left_nats")) | {"status": "not_measured"}
    assert list(of(run_of(shares=[share_rows()[0] | unmeasured, share_rows()[1]]), "gap_closed")) == [AS_IT_IS]


def test_without_shares_the_gap_is_that_of_the_published_run() -> None:
    run = run_of(shares=[])
    assert of(run, "gap") == {"MoBE as it is": pytest.approx(GAP)}
    assert of(run, "gap_closed") == {"no run to compare": None} and of(run, "left") == {}


def test_no_gap_is_said_and_no_share_of_it_is_given() -> None:
    none = dict.fromkeys(("gap_closed", "gap_low", "gap_high")) | {"status": "no_gap"}
    run = run_of([row | none for row in attribution_rows()], shares=[row | none for row in share_rows()])
    assert of(run, "gap_closed") == {"the gap's interval holds 0": None} and of(run, "left") == {}
    plot = ladder(run["tables"]["attribution"])
    assert isinstance(plot, Waterfall) and plot.gap is None and "not clear" in plot.caption
    assert "— no gap" in words(render([run], [[]]))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (lost("as published", "failed"), "for want of TD-MoE as published (failed)"),
        ([row | {"mobe_difference_nats": None} | ({"status": "out_of_memory"} if "preset" in row["step"] else {})
          for row in attribution_rows()], "for want of MoBE (out of memory and out of memory)"),
    ],
)  # fmt: skip
def test_a_missing_end_is_said(rows: list[Row], reason: str) -> None:
    run = run_of(rows, shares=[])
    assert of(run, "gap") == {reason: None} and of(run, "gap_closed") == {}
    assert len(of(run, "shapley")) == 6


def test_changes_by_strength_and_how_much_their_order_matters() -> None:
    claims = found(run_of())
    assert of(run_of(), "largest_change") == {"TD-MoE “+ exact ranks”": pytest.approx(-0.963)}
    assert claims["largest_change", "TD-MoE “+ exact ranks”"]["high"] == pytest.approx(-0.963 + 1.96 * 0.0091, abs=1e-4)
    assert list(of(run_of(), "shapley").values()) == [0.938, 0.231, 0.132, 0.009, 0.006, 0.0]
    assert interval(claims["shapley", "exact ranks"]) == [0.938, 0.921, 0.955]
    assert claims["shapley", "HOOI"]["strength"] == "unclear"
    order = claims["order", "exact ranks"]
    assert order["value"] == pytest.approx(0.355)
    assert order["reference"] == {"as the first": 1.056, "as the last": 0.701}
    alone = shapley_rows()
    alone[2] |= {"alone_nats": None}
    assert list(of(run_of(shapley=alone), "order")) == ["core refit"]
    assert of(run_of(shapley=[]), "shapley") == {"for want of combinations of changes (--shapley)": None}


def test_losses_of_the_ends_and_what_they_save() -> None:
    added = of(run_of(), "added")
    assert added == {
        "TD-MoE “as published”": PUBLISHED,
        "TD-MoE “+ core refit”": 0.136,
        "MoBE “+ phi tanh: preset corrected”": MOBE,
        "MoBE “preset published, 3,000 steps”": 0.067,
        "MoBE “+ left factors refitted”": 0.048,
        "RTN, 4 bits": 0.0057,
    }
    assert list(of(run_of(), "bits_saved")) == list(added)
    wider = "TD-MoE “+ budget shared with down by measured sensitivity” over gate, up and down"
    assert of(run_of(), "added_wider") == {wider: 0.069}
    rows = attribution_rows()
    spread = [row for row in rows if row["ladder"] == "mobe"][-1] | {"projections": "gate,up,down", "step": "+ spread"}
    assert list(of(run_of([*rows, spread], shares=share_rows()), "added_wider")) == [
        wider, "MoBE “+ spread” over gate, up and down"]  # fmt: skip


def test_the_best_run_is_the_one_that_the_shares_are_of() -> None:
    """On all windows a combination may lose least of these and not be the one that the choice is told of."""
    rows = attribution_rows()
    chosen = next(row for row in rows if row["step"] == "+ core refit")
    lucky = chosen | {"step": "best of 64: x", "ladder": "combination", "loss_difference_nats": 0.1}
    for name, table in (("best of 64: x", []), ("+ core refit", share_rows())):
        best = ends.best([*rows, lucky], table)
        assert best is not None and best["step"] == name


def test_floor_origin_and_predictors() -> None:
    claims = found(run_of())
    least = claims["floor", "TD-MoE “+ core refit”"]
    assert least["value"] == 0.191 and least["reference"] == {"this run": 0.247, "MoBE": 0.145}
    assert list(of(run_of(), "origin").values()) == [0.319, 0.112, 0.049]
    start = claims["origin", "MoBE “1 basis, phi identity (input-mode Tucker)”"]
    assert start["reference"] == {"nearest step of TD-MoE “+ exact ranks”": 0.316}
    assert list(of(run_of(), "rank_correlation")) == [
        "angle", "functional error per expert", "functional error", "operator error", "weight error"]  # fmt: skip
    assert interval(claims["rank_correlation", "operator error"]) == [0.753, 0.402, 0.921]
    assert claims["rank_correlation", "operator error"]["evidence"]["rows"] == 17


def test_mobe_is_its_better_preset_and_no_step_of_its_ladder() -> None:
    rows = changed("+ phi silu", loss_difference_nats=0.03)
    reference = ends.reference(rows)
    assert reference is not None and reference["loss_difference_nats"] == MOBE
    assert [row["step"] for row in ends.presets(rows)] == [
        "+ phi tanh: preset corrected", "preset published, 3,000 steps"]  # fmt: skip


def test_the_waterfall_adds_up_to_what_was_closed() -> None:
    rows = [row for row in attribution_rows() if row["ladder"] == "tdmoe"]
    bars = list(chain(rows, (PUBLISHED, MOBE)))
    assert [bar.start for bar in bars[1:]] == [bar.value for bar in bars[:-1]]
    drop = sum(bar.start - bar.value for bar in bars if bar.start is not None and bar.value is not None)
    assert drop == pytest.approx(PUBLISHED - 0.069)
    assert bars[3].note == "−0.963 · 68.6\N{NO-BREAK SPACE}%" and bars[3].name == "better"
    assert bars[5].note == "+0.009 · −0.6\N{NO-BREAK SPACE}%" and bars[5].name == "worse"
    trained = [row for row in attribution_rows() if row["ladder"] == "mobe"][-1]
    assert list(chain([rows[0], trained]))[-1].start is None  # trained otherwise, no further step


def test_after_a_step_that_failed_the_next_one_stands_whole() -> None:
    rows = lost("+ correct whitening")
    bars = list(chain([row for row in rows if row["ladder"] == "tdmoe"]))
    assert [bar.start is None for bar in bars[:5]] == [True, False, True, True, False]
    assert bars[2].value is None and bars[2].note == "out of memory"
    run = run_of(rows, shares=share_rows())
    assert (found(run)["steps_measured", ""]["value"], found(run)["steps_measured", ""]["of"]) == (22, 23)
    assert "— out of memory" in words(render([run], [[]]))


def test_figures_show_the_rows() -> None:
    forest, least, scatter = shapley(shapley_rows()), floor(attribution_rows()), errors(attribution_rows(), [])
    assert forest is not None and least is not None and scatter is not None
    entry = forest.groups[0][1][0]
    assert [(mark.name, mark.value) for mark in entry.marks] == [
        ("as the first", 1.056), ("as the last", 0.701), ("value", 0.938)]  # fmt: skip
    assert entry.note == "0.938\n66.9\N{NO-BREAK SPACE}%"
    marks = least.groups[0][1][0].marks
    assert [(mark.name, mark.value) for mark in marks] == [("output", 0.381), ("input", 0.241), ("value", 0.499)]
    angle = scatter.panels[-1].series[0]
    weight = scatter.panels[0].series[0]
    assert angle.name == "tdmoe" and list(angle.x)[3] == pytest.approx(12 * 0.316**0.5 + 4)
    assert list(weight.x)[3] == pytest.approx(0.424 * 2 / 3)  # of the three projections that any model compresses
    assert "1 model without added loss" in scatter.caption


def test_numbers_that_are_none_are_not_measured() -> None:
    step = "+ budget shared with down by measured sensitivity"
    rows = changed(step, loss_nats=math.nan, loss_difference_nats=math.nan, change_nats=math.inf, status="not_finite")
    values = [row | {"nats": math.nan} for row in shapley_rows()[:1]] + shapley_rows()[1:]
    run = run_of(rows, values, shares=share_rows())
    page = words(render([run], [figures_for(run)]))
    assert not re.search(r"\bnan\b", page) and "— not finite" in page
    assert of(run, "added_wider") == {} and len(of(run, "shapley")) == 5


def test_the_quick_ladder_alone_and_nothing_measured() -> None:
    quick = {"as published", "+ exact ranks", "1 basis, phi identity (input-mode Tucker)", "RTN, 4 bits", "dense"}
    rows = [row for row in attribution_rows() if row["step"] in {*quick, "+ phi tanh: preset corrected"}]
    names = [plot.name for plot in figures(run_of(rows, [], [])["tables"], {})]
    assert names == ["attribution-ladder", "attribution-mobe", "attribution-floor", "attribution-errors"]
    empty = run_of([], [], [])
    assert figures_for(empty) == []
    assert list(found(empty)) == [("answer", "nothing of this run has a result yet"), ("measured", "")]
    assert words(render([empty], [[]]))


def test_every_figure_has_words_and_is_an_image() -> None:
    drawn = figures_for(run_of())
    assert [figure.name for figure in drawn] == [f"attribution-{name}" for name in NAMES]
    for figure in drawn:
        assert ElementTree.fromstring(figure.svg).tag.endswith("svg")
        assert len(figure.svg) < 130_000 and len(figure.caption) > 80 and figure.view in NAMES


def test_tables_give_every_step_its_numbers_and_its_spec(page: str) -> None:
    text = words(page)
    assert "TD-MoE + exact ranks 0.3160 ± 0.0049 −0.9630 ± 0.0091 80.97 % (80.37 to 81.57) 25.1 %" in text
    assert "+ core refit tdmoe:gate_up=joint,refit=expert,alignment=1 40.0 % 25.1 % −0.4 % gate,up" in text
    assert "as published 32,80,88 0.000 0.381 0.241 0.381 0.499" in text
    many = changed("as published", ranks="a b c d e f")
    (cell,) = [row["ranks"] for row in _view("floor", many) if row["step"] == "as published"]
    assert cell == "a b c d and 2 more"


def _view(name: str, rows: list[Row]) -> list[Any]:
    return next(list(view.rows) for view in views(run_of(rows)["tables"]) if view.name == name)


def test_the_terminal_shows_gap_share_remainder_change_and_every_step() -> None:
    said, table = answer(run_of())
    assert [line.partition(":")[0][:12] for line in said] == [
        "Gap of TD-Mo", "Share of the", "What remains", "Change on th", "Loss that ea"]  # fmt: skip
    assert [line[1].text for line in table.lines] == [row["step"] for row in attribution_rows()]


def test_hostile_names_stay_text(page: str) -> None:
    rows = [row | {"step": HOSTILE, "ranks": HOSTILE, "text": HOSTILE} for row in attribution_rows()]
    rows[1] |= {"loss_difference_nats": None, "status": HOSTILE}
    values = [row | {"text": HOSTILE, "orders": HOSTILE} for row in shapley_rows()]
    predictors = [*predictor_rows(), predictor_rows()[0] | {"error": HOSTILE}]
    run = run_of(rows, values, predictors, model=HOSTILE)
    hostile = render([run], [figures_for(run)])
    planted, outline = Outline(page), Outline(hostile)
    for tag in ("script", "img", "b", "i"):
        assert len(outline.all(tag)) <= len(planted.all(tag))
    assert not set("\u202e\u2066") & set(hostile)


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
