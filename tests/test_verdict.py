"""The verdict says what the runs' tables say: its numbers are theirs, and it turns when they turn."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
import verdict_runs as planted
from test_figures import HOSTILE
from verdict_runs import evaluated, step

from diag.pages import render
from reports.verdict import opening
from reports.verdict.sentences import sentences

Run = dict[str, Any]
EVERYTHING = (
    planted.spectra((0.08, 0.12, 0.4), (0.06, 0.1, 0.3)),
    planted.experts(0.82, 0.78, 0.5),
    planted.injection({"weight_error": 0.7, "functional_error": 0.98, "operator_error": 0.3}, (0.02, -0.1, 0.14)),
    planted.drift(),
    planted.quality(1.0, 0.3, 0.1, evaluated("rtn", None, 0.45, 0.005), evaluated("identity", None, 0.0, 0.0)),
    planted.attribution(attribution_shapley=planted.shapley(), attribution_shares=planted.shares()),
)


def said(*runs: Run) -> list[str]:
    return [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in sentences(runs)]


@pytest.mark.parametrize(
    ("published", "best", "mobe", "headline"),
    [
        (1.0, 0.3, 0.1, "TD-MoE as published loses to MoBE, and still does at its best: "),
        (
            1.0,
            0.11,
            0.1,
            "TD-MoE as published loses to MoBE, but at its best they cannot be told apart: ",
        ),
        (1.0, 0.0, 0.1, "TD-MoE as published loses to MoBE, and beats it at its best: "),
        (0.2, 0.1, 0.5, "TD-MoE beats MoBE, as published and at its best: "),
        (0.12, 0.11, 0.1, "TD-MoE and MoBE cannot be told apart, as published and at its best: "),
        (
            0.12,
            0.0,
            0.1,
            "TD-MoE as published and MoBE cannot be told apart, and at its best TD-MoE beats",
        ),
        (1.0, None, 0.1, "TD-MoE as published loses to MoBE: "),
        (0.1, None, 0.1, "TD-MoE as published and MoBE cannot be told apart: "),
        (None, 0.3, 0.1, "TD-MoE with default options loses to MoBE: "),
        (None, 0.1, 0.3, "TD-MoE with default options beats MoBE: "),
        (None, 0.1, 0.1, "TD-MoE with default options and MoBE cannot be told apart: "),
        (1.0, 0.3, None, "Whether TD-MoE loses to MoBE: not measured, for want of MoBE. "),
        (None, None, 0.1, "Whether TD-MoE loses to MoBE: not measured, for want of TD-MoE. MoBE adds +0.100 ± 0.010 "),
        (None, None, None, "Whether TD-MoE loses to MoBE: not measured; "),
    ],
)
def test_the_headline_follows_the_intervals(
    published: float | None, best: float | None, mobe: float | None, headline: str
) -> None:
    assert said(planted.quality(published, best, mobe))[0].startswith(headline)


def test_the_gap_is_told_in_nats_with_an_interval_that_holds_for_any_correlation() -> None:
    """0.9 ± 1.96 (0.01 + 0.01), and the same about 0.2."""
    assert said(planted.quality())[0].endswith(
        "at its best: 0.900 (95 % interval 0.861 to 0.939) and 0.200 (0.161 to 0.239) nats a token more on wikitext2, "
        "40 % of gate and up of layers 0-3 removed, 25.0 % of bits saved."
    )
    turned = said(planted.quality(0.1, None, 0.4))[0]
    assert ": 0.300 (95 % interval 0.261 to 0.339) nats a token less on wikitext2, " in turned
    both = said(planted.quality(0.3, 0.0, 0.1))[0]
    assert ": 0.200 (95 % interval 0.161 to 0.239) nats a token more and 0.100 (0.061 to 0.139) less on" in both


def test_unmatched_bits_are_told_and_a_heavier_td_moe_is_not_its_best() -> None:
    heavy = evaluated("tdmoe:refit=expert", 0.4, 0.2, 0.0)
    (first, *_) = said(planted.quality(1.0, 0.3, None, heavy, evaluated("mobe", 0.4, 0.26, 0.1)))
    assert first.endswith("(TD-MoE stores 1.4 % more bits as published and 1.4 % more bits at its best).")
    assert "and 0.200 (" in first


def test_a_single_layer_is_one() -> None:
    rows = [row | {"compressed_layers": "2" if row["compressed_layers"] else ""}
            for row in planted.quality()["tables"]["quality"]]  # fmt: skip
    assert ", 40 % of gate and up of layer 2 removed" in said(planted.run_of("quality", quality=rows))[0]


def test_other_comparisons_agree_or_do_not() -> None:
    rows = planted.quality()["tables"]["quality"]
    same, other = ([row | {"dataset": text} for row in rows] for text in ("enwik8", "c4-eval"))
    for row in other:
        if row["method"] == "mobe":
            row["loss_difference_nats"] = 3.0
    run = planted.run_of("quality", quality=[*rows, *same, *other])
    assert said(run)[0].endswith(" Same methods elsewhere: 1 of 2 agree.")


def test_only_the_same_methods_can_agree() -> None:
    """Another MoBE, or TD-MoE run otherwise, is another comparison; the best of other methods is no other answer."""
    first = planted.quality(1.0, 0.3, 0.1, evaluated("rtn", None, 0.45, 0.005))
    other = [evaluated("dense", None, 0.0, 0.0), evaluated("tdmoe", 0.4, 0.25, 0.3), evaluated("mobe", 0.4, 0.25, 0.2)]
    other = [row | {"dataset": "enwik8"} for row in other]
    found = said(first, planted.run_of("quality", quality=other))
    assert "elsewhere" not in found[0] and "elsewhere" not in found[4], "published was not measured there, nor was RTN"
    theirs = [evaluated(method, 0.4, 0.25, added, dataset="enwik8") for method, added in
              ((planted.PUBLISHED, 0.9), ("mobe:steps=9", 0.1), ("mobe", 1.5), ("svd_llm", 0.05))]  # fmt: skip
    rtn = evaluated("rtn", None, 0.45, 1.0, dataset="enwik8")
    found = said(first, planted.run_of("quality", quality=[other[0], *theirs, rtn]))
    assert found[0].endswith("Same methods elsewhere: 0 of 1 agree."), "against the same MoBE, not the best one"
    assert found[4].endswith("Same methods elsewhere: 0 of 1 agree."), "as published is better there"
    apart = [row | {"projections": "gate,up,down"} for row in theirs]
    assert "elsewhere" not in said(first, planted.run_of("quality", quality=[other[0], *apart]))[0]


def test_what_was_self_inflicted_without_attribution_is_a_quotient() -> None:
    second = said(planted.quality())[1]
    assert second.startswith(
        "How TD-MoE was run accounts for most of that gap: 77.8 % (interval not measured), with default options."
    )
    assert "Which change did it: not measured (attribution does that)." in second
    assert "What remains, 0.200 (0.161 to 0.239) nats, bounds the structure's cost against this run of MoBE" in second
    assert said(planted.quality(1.0, 0.8, 0.1))[1].startswith(
        "How TD-MoE was run accounts for the lesser part of that gap: "
    )


def test_attribution_gives_share_change_and_remainder() -> None:
    without, with_values = (
        said(planted.attribution(**tables))[1] for tables in ({}, {"attribution_shapley": planted.shapley()})
    )
    assert (
        "77.8 % (95 % interval 74.0 to 81.0), with steps up to “core refit”; MoBE was not given the refit; the best "
        "run was chosen on the same windows."
    ) in without
    assert "Largest change on the ladder: “exact ranks”, 0.600 ± 0.020 nats." in without
    assert "Largest change by Shapley value: “exact ranks”, 0.550 (0.500 to 0.600) nats." in with_values


def test_the_share_is_like_for_like_first_and_told_on_other_windows() -> None:
    """The table's numbers, not those of the best step's row: with the same refit MoBE is better."""
    first, second, *_ = said(planted.attribution(attribution_shares=planted.shares()))
    assert second == (
        "How TD-MoE was run accounts for most of that gap: 73.7 % (95 % interval 69.7 to 76.7) against MoBE given the "
        "same refit, 77.8 % against MoBE as it is, with steps up to “core refit”. Largest change on the "
        "ladder: “exact ranks”, 0.600 ± 0.020 nats. What remains, 0.250 nats, bounds the structure's cost against this "
        "run of MoBE."
    )
    assert "and 0.200 (0.170 to 0.230) nats a token more on c4-eval" in first
    lacking = said(planted.attribution(attribution_shares=planted.shares(like=None)))[1]
    assert ": 77.8 % (95 % interval 73.8 to 80.8), with steps up to “core refit”; MoBE was not given the refit. La" in (
        lacking
    )
    other = said(planted.attribution(attribution_shares=planted.shares("+ exact ranks")))[1]
    assert "with steps up to “exact ranks”" in other, "the run that the table chose"


def test_attribution_is_told_before_quality_and_against_the_preset_that_the_gap_is_to() -> None:
    better = step("+ bases searched", "mobe:phi=identity", 0.05, "mobe", gap_closed=1.056)
    first, second, *_ = said(planted.quality(), planted.attribution(better))
    assert "and 0.200 (0.161 to 0.239) nats a token more on c4-eval, 40 % of gate and up of layers 0-3 rem" in first
    assert "with steps up to “core refit”" in second


def test_without_a_gap_a_ladders_mobe_is_a_preset_and_no_rung_below_it() -> None:
    """One basis and no nonlinearity is input-mode Tucker: TD-MoE under another name."""
    rungs = [
        step("1 basis, phi identity", "mobe:bases=1,phi=identity,steps=9", 0.02, "mobe"),
        step("+ phi tanh: preset corrected", "mobe:steps=9,groups=2", 0.11, "mobe"),
        step("preset published", "mobe:preset=published", 0.15, "mobe"),
        step("+ core refit", "mobe:refit=expert", 0.03, "mobe"),
    ]
    tensor = step("default", "tdmoe", 0.3, "beside")
    (first, *_) = said(planted.run_of("attribution", attribution=[tensor, *rungs]))
    assert first.startswith("TD-MoE with step “default” loses to MoBE: 0.190 (")
    assert "than MoBE steps=9, groups=2 on" in first
    only_rungs = planted.run_of("attribution", attribution=[tensor, rungs[0], rungs[3]])
    assert ": 0.280 (" in said(only_rungs)[0], "without any preset another one"
    no_gap = [row | {"gap_closed": None, "status": "no_gap"} for row in planted.attribution()["tables"]["attribution"]]
    run = planted.run_of("attribution", attribution=[*no_gap, rungs[0]])
    assert said(run)[0].startswith("TD-MoE as published loses to MoBE, and still does at its best: 0.900 (")


@pytest.mark.parametrize(
    ("published", "best", "mobe", "told"),
    [
        (
            0.11,
            0.05,
            0.1,
            "there is no gap to divide; TD-MoE as published and MoBE differ by +0.010 (−0.029 to +0.049)",
        ),
        (0.1, 0.05, 0.5, "there is no gap to divide, as TD-MoE is the better one as published."),
        (1.0, None, 0.1, "the whole gap of 0.900 (0.861 to 0.939) nats is an upper bound of what the structure costs."),
        (None, 0.3, 0.1, "not measured, for want of TD-MoE as published (attribution measures both)."),
        (1.0, 0.3, None, "not measured, for want of MoBE (attribution measures both)."),
        (
            1.0,
            0.0,
            0.1,
            "Nothing remains for the structure: at its best TD-MoE loses 0.100 (95 % interval 0.061 to 0.139)",
        ),
        (1.0, 0.11, 0.1, "What remains, +0.010 (−0.029 to +0.049) nats, cannot be told from nothing."),
    ],
)
def test_gaps_that_are_none(published: float | None, best: float | None, mobe: float | None, told: str) -> None:
    assert told in said(planted.quality(published, best, mobe))[1]


def test_no_gap_is_taken_from_the_table() -> None:
    rows = [row | {"status": "no_gap", "gap_closed": None} for row in planted.attribution()["tables"]["attribution"]]
    assert "there is no gap to divide" in said(planted.run_of("attribution", attribution=rows))[1]


def test_spectra_and_the_expert_mode() -> None:
    third = said(planted.spectra((0.08, 0.12, 0.4), (0.06, 0.1, 0.3)), planted.experts(0.82, 0.78, 0.5))[2]
    assert third == (
        "Spectra: exponents, expert mode 0.070 (null 0.050; range 0.060 to 0.080), output 0.110 (0.050; 0.100 to "
        "0.120), input 0.350 (0.050; 0.300 to 0.400). With 40 % removed the expert mode binds in 2 of 3 stacks "
        "(undecided in 1): cutting it raises the least error by 14.0 % (range 14.0 to 14.0), independent "
        "experts' by 10.0 %, not told apart: nothing is claimed of what experts share."
    )
    saving = planted.experts(0.3, gain=0.05, gain_low=-0.01, gain_high=0.08)
    turned = said(planted.spectra((0.5, 0.06, 0.4)), saving)[2]
    assert turned == (
        "Spectra: exponents, expert mode 0.500 (null 0.050), output 0.060 (0.050), input 0.400 (0.050). With 40 % "
        "removed the expert mode does not bind: cutting it lowers the least error by 5.0 % (95 % interval −1.0 to "
        "8.0), independent experts' by −10.0 %, told apart in 1 of 1 stacks (cheaper in 1)."
    )
    dearer = planted.experts(0.8, 0.7, gain_null=-0.05)
    assert said(dearer)[2].endswith("independent experts' by 5.0 %, told apart in 2 of 2 stacks (dearer in 2).")
    assert said(planted.experts(0.8, gain_null=None))[2].endswith("by 14.0 % (95 % interval 10.0 to 20.0).")


def test_stacks_whose_published_triple_cuts_nothing_count_all_the_same() -> None:
    """Whether the expert mode binds is of the best ranks, not of the published ones."""
    apart = dict.fromkeys(("published_difference", "due_to_experts", "due_to_ranks"))
    told = [said(planted.experts(0.82, 0.78, 0.5, **more))[2] for more in ({}, {"status": "nothing_to_cut", **apart})]
    assert told[0] == told[1] and "the expert mode binds in 2 of 3 stacks" in told[0]


def test_the_error_that_predicts_the_damage() -> None:
    errors = {"weight_error": 0.7, "functional_error": 0.98, "operator_error": 0.3}
    fourth = said(planted.injection(errors, (0.02, -0.1, 0.14)))[3]
    assert fourth.startswith(
        "Of drawn residuals the functional error predicts the damage best: over 12 kinds a power of it explains 98.0 "
        "% of the variance of the log loss, the weight error 28.0 points less (95 % interval 23.0 to 33.0) and the "
        "operator error 68.0 less (63.0 to 73.0)."
    )
    turned = said(planted.injection(errors | {"operator_error": 0.99}, (1.1, 0.9, 1.3), reach=0.001))[3]
    assert turned.startswith("Of drawn residuals the operator error predicts the damage best: ")
    assert turned.endswith(" Of compressed models: not measured (attribution does that).")


def test_no_error_is_the_best_where_the_difference_may_be_none_or_the_kinds_are_few() -> None:
    close = {"weight_error": 0.97, "functional_error": 0.98, "operator_error": 0.3}
    fourth = said(planted.injection(close, (0.02, -0.1, 0.14)))[3]
    assert fourth.startswith(
        "Which error predicts the damage of drawn residuals best cannot be told: over 12 kinds a power of the "
        "functional error explains 98.0 %"
    )
    assert "the weight error 1.0 points less (95 % interval −4.0 to 6.0)" in fourth
    assert "the operator error 68.0 less (63.0 to 73.0)" in fourth
    assert said(planted.injection(close, (0.02, -0.1, 0.14), reach=0.0, count=7))[3].startswith(
        "Which error predicts the damage of drawn residuals best cannot be told: 7 kinds of residual injected into "
        "gate and up of all layers clearly increased the loss, 8 are needed."
    )
    run = planted.injection(close, (0.02, -0.1, 0.14), reach=0.001)
    assert said(run)[3].startswith("Of drawn residuals the functional error predicts")
    rows = run["tables"]["injection_contrasts"]
    run["tables"]["injection_contrasts"] = [row for row in rows if row["statistic"] != "r2_difference"]
    assert "the weight error 97.0 % (interval of the difference not measured)" in said(run)[3]
    assert said(run)[3].startswith("Which error predicts the damage of drawn residuals best cannot be told: over 12")


def test_predictors_of_attribution_are_added_of_the_run_with_most_models() -> None:
    rows = [
        {"error": error, "response": "loss", "rank_correlation": value, "low": low, "high": high, "runs": 14}
        for error, value, low, high in (
            ("operator_error", 0.5, 0.2, 0.7), ("functional_error", 0.97, 0.9, 0.99), ("angle_deg", 0.95, 0.85, 1.0),
        )
    ]  # fmt: skip
    ladder = planted.attribution(attribution_predictors=rows)
    undrawn = " Of drawn residuals: not measured (injection does that)."
    alone = (
        "Of 14 compressed models no error is known to order the added loss best: rank correlation 0.970 (95 % interval "
        "0.900 to 0.990, were they independent) with the functional error; next 0.950 (0.850 to 1.000) with the angle "
        f"of the residual stream.{undrawn}"
    )
    small = planted.attribution(attribution_predictors=[row | {"runs": 3, "rank_correlation": 1.0} for row in rows])
    assert said(ladder)[3] == said(small, ladder)[3] == said(ladder, small)[3] == alone
    tied = [row | ({"rank_correlation": 0.9698} if row["error"] == "angle_deg" else {}) for row in rows]
    fourth = said(planted.attribution(attribution_predictors=tied))[3]
    assert fourth.endswith(
        "were they independent) with the functional error and the angle of the residual stream; next 0.500 (0.200 to "
        f"0.700) with the operator error.{undrawn}"
    )


def test_drawn_residuals_and_compressed_models_are_two_statements() -> None:
    """The error that explains what is injected may be the last one of models that methods leave."""
    errors = (("weight_error", 0.87, 0.95), ("functional_error", 0.73, 0.88), ("angle_deg", 0.99, 1.0))
    rows = [{"error": name, "rank_correlation": value, "low": value - 0.03, "high": high, "runs": 26}
            for name, value, high in errors]  # fmt: skip
    injected = planted.injection({"weight_error": 0.7, "functional_error": 0.98}, (0.02, -0.1, 0.14))
    ends = {
        "last": rows,
        "number 2": [row | {"rank_correlation": 0.5} if row["error"] == "weight_error" else row for row in rows],
    }
    for place, table in ends.items():
        fourth = said(injected, planted.attribution(attribution_predictors=table))[3]
        assert fourth.startswith("Of drawn residuals the functional error predicts the damage best: ")
        assert fourth.endswith(
            " Of 26 compressed models the angle of the residual stream orders the added loss best: rank correlation "
            f"0.990 (95 % interval 0.960 to 1.000, were they independent); the functional error is {place} of 3, "
            "0.730 (0.700 to 0.880)."
        )


FRONT = "of bits saved; nothing else over the same projections saves more and loses less"


def test_what_to_do_instead_is_what_nothing_beats_in_loss_and_bits() -> None:
    rtn, generous = evaluated("rtn", None, 0.45, 0.005), evaluated("svd_llm", 0.4, 0.1, 0.0)
    fifth = said(planted.quality(1.0, 0.3, 0.1, rtn, generous))[4]
    assert fifth == (
        "What to do instead: rounding to 4 bits (RTN). On wikitext2 it adds +0.005 ± 0.010 nats a token at 45.0 % "
        f"{FRONT}; of decompositions MoBE, +0.100 ± 0.010 at 25.0 %."
    )
    tied = said(planted.quality(1.0, 0.3, 0.01, rtn, evaluated("svd_llm", 0.4, 0.25, 0.02)))[4]
    assert "; of decompositions MoBE, +0.010 ± 0.010 at 25.0 %, which cannot be told apart. Not told apart" in tied
    assert tied.endswith(" Not told apart in loss from rounding to 4 bits (RTN), which saves more bits: SVD-LLM.")
    matrix = said(planted.quality(1.0, 0.3, 0.1, evaluated("rtn", None, 0.45, 0.9)))[4]
    assert matrix.startswith("What to do instead: MoBE.") and "of decompositions" not in matrix
    assert matrix.endswith(f" nats a token at 25.0 % {FRONT}; TD-MoE (default options), +0.300 ± 0.010 at 25.0 %.")
    tensor = said(planted.quality(1.0, 0.01, 0.1))[4]
    assert tensor.startswith("What to do instead: nothing that was measured does better than TD-MoE.")
    assert "TD-MoE (default options) adds +0.010" in tensor and "of the others MoBE, +0.100" in tensor


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        (
            (0.0, 0.005, 0.1),  # 8 and 4 bits are not told apart, 3 bits are
            " is a trade-off on wikitext2: rounding to 3 bits (RTN) +0.100 ± 0.010 nats a token at 50.0 % of bits "
            "saved; rounding to 4 bits (RTN) +0.005 ± 0.010 at 45.0 %; nothing else over the same projections saves "
            "more and loses less; of decompositions MoBE, +0.150 ± 0.010 at 25.0 %. Not told apart in loss from "
            "rounding to 4 bits (RTN), which saves more bits: rounding to 8 bits (RTN).",
        ),
        ((0.0, 0.005, 0.01), ": rounding to 3 bits (RTN). On wikitext2 it adds +0.010 ± 0.010 nats a token at 50.0 %"),
        ((0.0, 0.1, 0.9), " is a trade-off on wikitext2: rounding to 4 bits (RTN) +0.100"),  # 3 lose more than TD-MoE
        ((0.1, 0.0, 0.9), ": rounding to 4 bits (RTN). On wikitext2 it adds 0.000 ±"),
    ],
    ids=["least two tied", "all tied", "three told apart", "dominated"],
)
def test_the_advice_is_a_trade_off_where_losses_are_told_apart(losses: tuple[float, ...], told: str) -> None:
    """Whichever roundings were measured: the widest is no answer where a narrower one loses as little."""
    rounded = [evaluated(f"rtn:bits={bits}", None, saved, added)
               for bits, saved, added in zip((8, 4, 3), (0.3, 0.45, 0.5), losses, strict=True)]  # fmt: skip
    assert f"What to do instead{told}" in said(planted.quality(1.0, 0.3, 0.15, *rounded))[4]


@pytest.mark.parametrize("runs", [[], [planted.quality(1.0, 0.3, None)], [planted.quality(None, None, 0.1)]])
def test_what_to_do_instead_needs_td_moe_and_another(runs: list[Run]) -> None:
    fifth = said(*(runs or [planted.drift()]))[4]
    assert fifth.startswith("What to do instead: not measured; ")


def test_sentences_are_short() -> None:
    told = [sentence.split() for sentence in said(*EVERYTHING)]
    assert max(len(words) for words in told) <= 67
    assert max(sum(any(map(str.isalpha, word)) for word in words) for words in told) <= 50, "numbers apart"


def test_missing_tables_are_not_measured() -> None:
    only_drift = opening([planted.drift()])
    assert len(only_drift.sentences) == 5
    assert all("not measured" in sentence for sentence in only_drift.sentences)
    assert [block.anchor for block in only_drift.blocks if block.figure] == ["verdict-geometry", "verdict-routing"]
    assert opening([]).sentences == [] == list(opening([]).blocks)


def test_failed_jobs_and_losses_that_are_not_finite_are_told() -> None:
    lost = evaluated("mobe", 0.4, 0.25, 0.0, value=None, loss_difference_nats=None, status="not_finite")
    first, *_, last = said(planted.quality(1.0, 0.3, None, lost, jobs=5, failed=2))
    assert "not measured, for want of MoBE" in first
    assert last.startswith("Incomplete: 2 of 5 jobs of quality did not finish; ")
    infinite = planted.quality(float("inf"), 0.3, 0.1)
    assert said(infinite)[0].startswith("TD-MoE with default options loses to MoBE: ")


def test_sentences_do_not_depend_on_the_order_of_runs_and_nothing_on_chance() -> None:
    assert said(*EVERYTHING) == said(*reversed(EVERYTHING))
    assert opening(EVERYTHING[-3:]) == opening(EVERYTHING[-3:])


def test_several_models_have_sentences_anchors_and_figures_of_their_own() -> None:
    few = [EVERYTHING[0], EVERYTHING[4]]
    other, twin = ([run | change for run in few] for change in ({"model": "other"}, {"fingerprint": "ffff0000"}))
    found = opening([*few, *other, *twin])
    starts = [sentence.partition(" — ")[0] for sentence in found.sentences]
    assert starts == ["pico-moe (0123abcd)"] * 5 + ["other"] * 5 + ["pico-moe (ffff0000)"] * 5
    anchors = [block.anchor for block in found.blocks]
    assert len(set(anchors)) == len(anchors)
    names = [block.figure.name for block in found.blocks if block.figure]
    assert names == ["verdict-pareto-1", "verdict-pareto-2", "verdict-pareto-3"]


LONG = "an-organisation-with-a-long-name/A-Model-Of-Many-Experts-235B-A22B-Instruct-"


@pytest.mark.parametrize("names", [("mini", "other"), (LONG + "2507", LONG + "2512"),
                                   ("a: b. c (", HOSTILE), (HOSTILE + " x: (", f"1. {HOSTILE}")])  # fmt: skip
def test_a_claim_is_told_in_bold_whatever_the_models_are_called(names: tuple[str, str]) -> None:
    runs = [planted.quality() | {"model": name} for name in names]
    heads = [re.findall(r"<strong>([^<]*)</strong>", item) for item in answer_of(runs)]
    claims = ["TD-MoE as published loses to MoBE, and still does at its best:",
              "How TD-MoE was run accounts for most of that gap:", "What to do instead:"]  # fmt: skip
    for claim in claims:
        found = [head[0] for head in heads if head and head[0].endswith(claim)]
        assert len(set(found)) == 2, (claim, heads)
        assert not any("  " in head for head in found)


def answer_of(runs: list[Run]) -> list[str]:
    """Of the verdict on the page, item by item."""
    page = render(runs, [[] for _ in runs])
    return re.findall(r"<li>.*?</li>", page[page.index('id="verdict"') : page.index('id="comparison"')], re.DOTALL)


def test_a_headline_about_options_is_told_in_bold() -> None:
    spec = f"tdmoe:{','.join(f'option{n}=value. {n}: (' for n in range(9))}"
    run = planted.quality(None, None, 0.1, evaluated(spec, 0.4, 0.25, 0.3))
    (first, *_) = answer_of([run, planted.drift()])
    assert re.search(r"<strong>TD-MoE with option0=value.*… ?.* loses to MoBE:</strong>", first), first


def test_hostile_names_stay_text_on_one_line() -> None:
    rows = [row | {"dataset": HOSTILE, "checkpoint": HOSTILE} for row in planted.quality()["tables"]["quality"][1:]]
    rows += [evaluated("dense", None, 0.0, 0.0, dataset=HOSTILE), evaluated(HOSTILE, 0.4, 0.25, 0.01, dataset=HOSTILE)]
    steps = [step(HOSTILE, "tdmoe", 0.2), step(HOSTILE, HOSTILE, 0.5, "beside", text=HOSTILE)]
    runs = [
        planted.run_of("quality", model=HOSTILE, quality=rows),
        planted.attribution(*steps, attribution_shapley=[planted.shapley()[1] | {"text": HOSTILE}], model=HOSTILE),
        planted.run_of("drift", model=HOSTILE, drift=planted.drifted(HOSTILE, 0.4, 10.0, 0.9)),
        planted.spectra((0.1, 0.2, 0.3)) | {"model": HOSTILE},
    ]
    found = opening(runs)
    assert len(found.blocks) > 6 and len(found.sentences) == 5
    told = [*found.sentences]
    for block in found.blocks:
        told += [block.title, block.text, block.table.caption, *block.table.headings]
        told += [text for line in block.table.lines for cell in line for text in (cell.text, cell.note)]
        if block.figure is not None:
            ElementTree.fromstring(block.figure.svg)
            told += [block.figure.alt, block.figure.caption]
            assert b"<script" not in block.figure.svg
    assert not set("\u202e\u2066\n") & set("".join(told))
    assert any("document.title" in text for text in told)
    assert all(re.fullmatch(r"[a-z0-9-]+", block.anchor) for block in found.blocks)
