"""The verdict says what the runs' tables say: its numbers are theirs, and it turns when they turn."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
import verdict_runs as planted
from test_figures import HOSTILE
from verdict_runs import evaluated, step

from reports.verdict import opening
from reports.verdict.sentences import sentences

Run = dict[str, Any]
EVERYTHING = (
    planted.spectra((0.08, 0.12, 0.4), (0.06, 0.1, 0.3)),
    planted.experts(0.82, 0.78, 0.5),
    planted.injection({"weight_error": 0.7, "functional_error": 0.98, "operator_error": 0.3}, (0.02, -0.1, 0.14)),
    planted.drift(),
    planted.quality(1.0, 0.3, 0.1, evaluated("rtn", None, 0.45, 0.005), evaluated("identity", None, 0.0, 0.0)),
    planted.attribution(attribution_shapley=planted.shapley()),
)


def said(*runs: Run) -> list[str]:
    return [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in sentences(runs)]


@pytest.mark.parametrize(
    ("published", "best", "mobe", "headline"),
    [
        (1.0, 0.3, 0.1, "TD-MoE as published loses to MoBE on this model, and still does at its best: "),
        (
            1.0,
            0.11,
            0.1,
            "TD-MoE as published loses to MoBE on this model, but at its best they cannot be told apart: ",
        ),
        (1.0, 0.0, 0.1, "TD-MoE as published loses to MoBE on this model, and beats it at its best: "),
        (0.2, 0.1, 0.5, "TD-MoE beats MoBE on this model, even as published: "),
        (0.12, 0.11, 0.1, "TD-MoE and MoBE cannot be told apart on this model: "),
        (
            0.12,
            0.0,
            0.1,
            "TD-MoE as published and MoBE cannot be told apart on this model, and at its best TD-MoE beats",
        ),
        (1.0, None, 0.1, "TD-MoE as published loses to MoBE on this model: "),
        (0.1, None, 0.1, "TD-MoE as published and MoBE cannot be told apart on this model: "),
        (None, 0.3, 0.1, "TD-MoE loses to MoBE on this model: "),
        (None, 0.1, 0.3, "TD-MoE beats MoBE on this model: "),
        (None, 0.1, 0.1, "TD-MoE and MoBE cannot be told apart on this model: "),
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
        "on wikitext2, with 40 % of gate and up of layers 0-3 removed, the loss of TD-MoE as published is 0.900 (95 % "
        "interval 0.861 to 0.939) nats a token above that of MoBE, and at its best (default options) 0.200 (0.161 to "
        "0.239) above; bits saved 25.0 % and 25.0 % against 25.0 %."
    )
    turned = said(planted.quality(0.1, None, 0.4))[0]
    assert "is 0.300 (95 % interval 0.261 to 0.339) nats a token below that of MoBE; bits saved" in turned


def test_unmatched_bits_are_told_and_a_heavier_td_moe_is_not_its_best() -> None:
    heavy = evaluated("tdmoe:refit=expert", 0.4, 0.2, 0.0)
    (first, *_) = said(planted.quality(1.0, 0.3, None, heavy, evaluated("mobe", 0.4, 0.26, 0.1)))
    assert "(not quite matched: it stores as published 1.4 % more and at its best 1.4 % more bits than MoBE)" in first
    assert "at its best (default options) 0.200" in first


def test_a_single_layer_is_one() -> None:
    rows = [row | {"compressed_layers": "2" if row["compressed_layers"] else ""}
            for row in planted.quality()["tables"]["quality"]]  # fmt: skip
    assert "with 40 % of gate and up of layer 2 removed" in said(planted.run_of("quality", quality=rows))[0]


def test_other_comparisons_agree_or_do_not() -> None:
    rows = planted.quality()["tables"]["quality"]
    same, other = ([row | {"dataset": text} for row in rows] for text in ("enwik8", "c4-eval"))
    for row in other:
        if row["method"] == "mobe":
            row["loss_difference_nats"] = 3.0
    run = planted.run_of("quality", quality=[*rows, *same, *other])
    assert said(run)[0].endswith("Of the 2 other comparisons (texts, ratios, sets of layers) 1 agree.")


def test_what_was_self_inflicted_without_attribution_is_a_quotient() -> None:
    second = said(planted.quality())[1]
    assert second.startswith(
        "How TD-MoE was run accounts for most of that gap: at its best it loses 0.700 (95 % interval 0.661 to 0.739) "
        "nats less than as published, 77.8 % (interval not measured) of the gap."
    )
    assert "Which change did it: not measured (attribution does that)." in second
    assert "What remains, 0.200 (0.161 to 0.239) nats, is an upper bound of what the structure costs" in second
    assert second.endswith("The floor that the modes' tails set: not measured.")
    assert said(planted.quality(1.0, 0.8, 0.1))[1].startswith(
        "How TD-MoE was run accounts for the lesser part of that gap: "
    )


def test_attribution_gives_share_change_remainder_and_floor() -> None:
    without, with_values = (
        said(planted.attribution(**tables))[1] for tables in ({}, {"attribution_shapley": planted.shapley()})
    )
    assert "77.8 % (95 % interval 74.0 to 81.0) of the gap." in without
    assert "The largest single change on the ladder is “+ exact ranks”: 0.600 ± 0.020 nats." in without
    assert (
        "The largest single change is “exact ranks”: 0.550 (95 % interval 0.500 to 0.600) nats, 61.1 % (58.0 to 64.0) "
        "of the gap (Shapley value over all orders)."
    ) in with_values
    assert with_values.endswith(
        "At that best run's ranks no Tucker decomposition has a functional error below 0.190, that of truncating the "
        "input mode alone; its own is 0.222."
    )


def test_attribution_is_told_before_quality_and_against_the_preset_that_the_gap_is_to() -> None:
    better = step("+ bases searched", "mobe:phi=identity", 0.05, "mobe", gap_closed=1.056)
    first, second, *_ = said(planted.quality(), planted.attribution(better))
    assert "on c4-eval, with 40 % of gate and up of layers 0-3 removed" in first and "above that of MoBE," in first
    assert "at its best (step “+ core refit”) 0.200" in first and "0.700 (95 %" in second


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
            "Nothing remains for the structure: at its best TD-MoE is 0.100 (95 % interval 0.061 to 0.139)",
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
    assert "medians and ranges over 2 stacks" in third and "expert mode 0.070 (0.060 to 0.080), null 0.050" in third
    assert (
        "The expert mode is the flattest: a quarter of its rank holds 27.0 % of the energy (of Gaussian weights 25.0 "
        "%), of the input mode's 55.0 % (25.0 %). 5 of 6 exponents lie more than two jackknife standard errors above "
        "their"
    ) in third
    assert (
        "With 40 % removed the expert mode binds in 2 of 3 stacks (undecided in 1): cutting it raises the least error "
        "at equal storage by 14.0 % (median); its price share, above 0.5 where it should be cut last, is 0.78 (0.50 "
        "to 0.82), with a 95 % interval that leaves out 0.5 in 2 of 3; independent experts would have 0.80, which the "
        "interval holds in 2 of 3."
    ) in third
    turned = said(planted.spectra((0.5, 0.06, 0.4), alpha_jackknife_stderr=None), planted.experts(0.3, gain=0.05))[2]
    assert (
        "The output mode is the flattest" in turned and "3 of 3 exponents lie above their null; their errors" in turned
    )
    assert "the expert mode does not bind: cutting it lowers the least error at equal storage by 5.0 %;" in turned
    assert "is 0.30 (95 % interval 0.25 to 0.35)" in turned


def test_stacks_whose_published_triple_cuts_nothing_count_all_the_same() -> None:
    """Whether the expert mode binds is of the best ranks, not of the published ones."""
    apart = dict.fromkeys(("published_difference", "due_to_experts", "due_to_ranks"))
    told = [said(planted.experts(0.82, 0.78, 0.5, **more))[2] for more in ({}, {"status": "nothing_to_cut", **apart})]
    assert told[0] == told[1] and "the expert mode binds in 2 of 3 stacks" in told[0]


def test_the_error_that_predicts_the_damage() -> None:
    errors = {"weight_error": 0.7, "functional_error": 0.98, "operator_error": 0.3}
    fourth = said(planted.injection(errors, (0.02, -0.1, 0.14)))[3]
    assert fourth.startswith(
        "The functional error predicts the damage best: over 12 kinds of residual injected into gate and up of all "
        "layers, a power of it, exponent 2.00 (95 % interval 1.90 to 2.10), explains 98.0 % of the variance of the "
        "logarithm of the added loss; the weight error 70.0 % (28.0 points less, 95 % interval 23.0 to 33.0) and the "
        "operator error 30.0 % (68.0 points less, 95 % interval 63.0 to 73.0)."
    )
    assert "has the exponent +0.02 (−0.10 to +0.14): no effect of its own was found." in fourth
    assert "cannot be told apart" not in fourth
    turned = said(planted.injection(errors | {"operator_error": 0.99}, (1.1, 0.9, 1.3), reach=0.001))[3]
    assert turned.startswith("The operator error predicts the damage best") and "it adds damage of its own" in turned
    assert (
        "with the operator error and 0.980 (0.930 to 1.030) with the functional error, which cannot be told" in turned
    )


def test_no_error_is_the_best_where_the_difference_may_be_none_or_the_kinds_are_few() -> None:
    close = {"weight_error": 0.97, "functional_error": 0.98, "operator_error": 0.3}
    fourth = said(planted.injection(close, (0.02, -0.1, 0.14)))[3]
    assert fourth.startswith(
        "Which error predicts the damage best cannot be told: over 12 kinds of residual injected into gate and up of "
        "all layers, a power of the functional error, exponent 2.00 (95 % interval 1.90 to 2.10), explains 98.0 %"
    )
    assert "the weight error 97.0 % (1.0 points less, 95 % interval −4.0 to 6.0, cannot be told apart)" in fourth
    assert "the operator error 30.0 % (68.0 points less, 95 % interval 63.0 to 73.0)" in fourth
    assert said(planted.injection(close, (0.02, -0.1, 0.14), reach=0.0, count=7))[3] == (
        "Which error predicts the damage best cannot be told: 7 kinds of residual injected into gate and up of all "
        "layers clearly increased the loss, 8 are needed."
    )
    run = planted.injection(close, (0.02, -0.1, 0.14), reach=0.001)
    assert said(run)[3].startswith("The functional error predicts the damage best")
    rows = run["tables"]["injection_contrasts"]
    run["tables"]["injection_contrasts"] = [row for row in rows if row["statistic"] != "r2_difference"]
    assert "the weight error 97.0 % (interval of the difference not measured)" in said(run)[3]
    assert said(run)[3].startswith("Which error predicts the damage best cannot be told: over 12")


def test_predictors_of_attribution_are_added() -> None:
    rows = [
        {"error": error, "response": "loss", "rank_correlation": value, "low": low, "high": high, "runs": 14}
        for error, value, low, high in (
            ("operator_error", 0.5, 0.2, 0.7), ("functional_error", 0.97, 0.9, 0.99), ("angle_deg", 0.95, 0.85, 1.0),
        )
    ]  # fmt: skip
    assert said(planted.attribution(attribution_predictors=rows))[3] == (
        "Over 14 runs of attribution the added loss has the rank correlation 0.970 (0.900 to 0.990) with the "
        "functional error, 0.950 (0.850 to 1.000) with the angle of the residual stream and 0.50 (0.20 to 0.70) with "
        "the operator error; 1 of the other 2 cannot be told apart from the first."
    )


def test_what_to_do_instead_is_the_least_loss_at_no_more_bits() -> None:
    rtn, generous = evaluated("rtn", None, 0.45, 0.005), evaluated("svd_llm", 0.4, 0.1, 0.0)
    fifth = said(planted.quality(1.0, 0.3, 0.1, rtn, generous))[4]
    assert fifth.startswith("What to do instead: RTN. Of the 4 runs that save at least 25.0 % of the bits, ")
    assert (
        "RTN adds least to the loss on wikitext2, +0.005 ± 0.010 nats a token at 45.0 % saved; TD-MoE as published "
        "+1.000 ± 0.010 nats a token at 25.0 % saved. Among decompositions it is MoBE, with +0.100 ± 0.010 nats a "
        "token"
    ) in fifth
    tied = said(planted.quality(1.0, 0.3, 0.01, rtn))[4]
    assert "MoBE cannot be told apart from it." in tied
    matrix = said(planted.quality(1.0, 0.3, 0.1, evaluated("rtn", None, 0.45, 0.9)))[4]
    assert matrix.startswith("What to do instead: MoBE.") and "Among decompositions" not in matrix
    tensor = said(planted.quality(1.0, 0.01, 0.1))[4]
    assert tensor.startswith("What to do instead: nothing that was measured does better than TD-MoE.")
    assert "TD-MoE (default options) adds least" in tensor and "of the others MoBE, +0.100" in tensor


@pytest.mark.parametrize("runs", [[], [planted.quality(1.0, 0.3, None)], [planted.quality(None, None, 0.1)]])
def test_what_to_do_instead_needs_td_moe_and_another(runs: list[Run]) -> None:
    fifth = said(*(runs or [planted.drift()]))[4]
    assert fifth.startswith("What to do instead: not measured; ")


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
    assert said(infinite)[0].startswith("TD-MoE loses to MoBE on this model: ")


def test_sentences_do_not_depend_on_the_order_of_runs_and_nothing_on_chance() -> None:
    assert said(*EVERYTHING) == said(*reversed(EVERYTHING))
    assert opening(EVERYTHING[-3:]) == opening(EVERYTHING[-3:])


def test_several_models_have_sentences_anchors_and_figures_of_their_own() -> None:
    few = [EVERYTHING[0], EVERYTHING[4]]
    other, twin = ([run | change for run in few] for change in ({"model": "other"}, {"fingerprint": "ffff0000"}))
    found = opening([*few, *other, *twin])
    starts = [sentence.partition(": ")[0] for sentence in found.sentences]
    assert starts == ["pico-moe (0123abcd)"] * 5 + ["other"] * 5 + ["pico-moe (ffff0000)"] * 5
    anchors = [block.anchor for block in found.blocks]
    assert len(set(anchors)) == len(anchors)
    names = [block.figure.name for block in found.blocks if block.figure]
    assert names == ["verdict-pareto-1", "verdict-pareto-2", "verdict-pareto-3"]


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
