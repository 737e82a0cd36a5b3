"""Claims across runs hold what the runs' tables hold: their numbers are theirs, and they turn when these turn."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import verdict_runs as planted
from test_figures import HOSTILE
from verdict_runs import evaluated, step

from diag.cli.running import write_verdict
from diag.pages import headlines, opening, render, verdict_of
from reports.sentences import sentences

Run = dict[str, Any]
Claims = dict[tuple[str, str], dict[str, Any]]
EVERYTHING = (
    planted.spectra((0.08, 0.12, 0.4), (0.06, 0.1, 0.3)),
    planted.experts(0.82, 0.78, 0.5),
    planted.injection({"weight_error": 0.7, "functional_error": 0.98, "operator_error": 0.3}, (0.02, -0.1, 0.14)),
    planted.drift(),
    planted.quality(1.0, 0.3, 0.1, evaluated("rtn", None, 0.45, 0.005), evaluated("identity", None, 0.0, 0.0)),
    planted.attribution(attribution_shapley=planted.shapley(), attribution_shares=planted.shares()),
)
SCHEMA = Path(__file__).parents[1] / "docs" / "verdict.schema.json"
RTN4 = "rounding to 4 bits (RTN)"


def claims(*runs: Run) -> Claims:
    """{(quantity, subject): claim} of one model."""
    return {(claim["quantity"], claim["subject"]): claim for claim in verdict_of(runs)}


def of(quantity: str, *runs: Run) -> dict[str, dict[str, Any]]:
    """{subject: claim} of one quantity, in their order."""
    return {subject: claim for (name, subject), claim in claims(*runs).items() if name == quantity}


def ends(claim: dict[str, Any]) -> list[float | None]:
    return [None if claim[end] is None else round(claim[end], 4) for end in ("value", "low", "high")]


def words(quantity: str, *runs: Run) -> str:
    return str(next(iter(of(quantity, *runs).values()))["words"])


def why(quantity: str, *runs: Run) -> str:
    """The reason of a claim that is missing."""
    ((reason, claim),) = of(quantity, *runs).items()
    assert (claim["strength"], claim["value"]) == ("missing", None)
    return reason


@pytest.mark.parametrize(
    ("published", "best", "mobe", "headline", "standing"),
    [
        (1.0, 0.3, 0.1, "TD-MoE as published loses to MoBE, and still does at its best", "clear clear"),
        (1.0, 0.11, 0.1, "TD-MoE as published loses to MoBE, but at its best they cannot be told apart",
         "clear unclear"),
        (1.0, 0.0, 0.1, "TD-MoE as published loses to MoBE, and beats it at its best", "clear clear"),
        (0.2, 0.1, 0.5, "TD-MoE beats MoBE, as published and at its best", "clear clear"),
        (0.12, 0.11, 0.1, "TD-MoE and MoBE cannot be told apart, as published and at its best", "unclear unclear"),
        (0.12, 0.0, 0.1, "TD-MoE as published and MoBE cannot be told apart, and at its best TD-MoE beats it",
         "unclear clear"),
        (1.0, None, 0.1, "TD-MoE as published loses to MoBE", "clear"),
        (0.1, None, 0.1, "TD-MoE as published and MoBE cannot be told apart", "unclear"),
        (None, 0.3, 0.1, "TD-MoE with default options loses to MoBE", "clear"),
        (None, 0.1, 0.3, "TD-MoE with default options beats MoBE", "clear"),
        (None, 0.1, 0.1, "TD-MoE with default options and MoBE cannot be told apart", "unclear"),
        (1.0, 0.3, None, "Whether TD-MoE loses to MoBE", "missing"),
        (None, None, 0.1, "Whether TD-MoE loses to MoBE", "missing"),
        (None, None, None, "Whether TD-MoE loses to MoBE", "missing"),
    ],
)  # fmt: skip
def test_the_headline_follows_the_intervals(
    published: float | None, best: float | None, mobe: float | None, headline: str, standing: str
) -> None:
    run = planted.quality(published, best, mobe)
    assert words("gap", run) == headline
    assert " ".join(claim["strength"] for claim in of("gap", run).values()) == standing


def test_who_is_missing_is_said_and_what_the_other_adds() -> None:
    assert why("gap", planted.quality(1.0, 0.3, None)) == "for want of MoBE"
    alone = planted.quality(None, None, 0.1)
    assert why("gap", alone) == "for want of TD-MoE"
    assert ends(of("added_loss", alone)["MoBE"]) == [0.1, 0.0804, 0.1196]
    assert why("gap", planted.quality(None, None, None)).startswith("neither was evaluated")


def test_the_gap_has_an_interval_that_holds_for_any_correlation() -> None:
    """0.9 ± 1.96 (0.01 + 0.01), and the same about 0.2."""
    found = of("gap", planted.quality())
    assert {who: ends(claim) for who, claim in found.items()} == {
        "as published": [0.9, 0.8608, 0.9392], "at its best": [0.2, 0.1608, 0.2392],
    }  # fmt: skip
    assert [claim["unit"] for claim in found.values()] == ["nats a token"] * 2
    after = found["as published"]["after"].replace("\N{NO-BREAK SPACE}", " ")
    assert after == "On wikitext2, 40 % of gate and up of layers 0-3 removed, 25.0 % of bits saved."
    where = {"method": planted.PUBLISHED, "ratio": 0.4}
    assert found["as published"]["evidence"] == {
        "table": "quality", "column": "loss_difference_nats", "rows": 2, "where": where,
    }  # fmt: skip
    assert ends(of("gap", planted.quality(0.1, None, 0.4))["as published"]) == [-0.3, -0.3392, -0.2608]


def test_unmatched_bits_are_told_and_a_heavier_td_moe_is_not_its_best() -> None:
    """0.75 of the bits against 0.74: 1.35 % more."""
    heavy = evaluated("tdmoe:refit=expert", 0.4, 0.2, 0.0)
    found = claims(planted.quality(1.0, 0.3, None, heavy, evaluated("mobe", 0.4, 0.26, 0.1)))
    for who in ("as published", "at its best"):
        assert found["stored_more", who]["value"] == pytest.approx(0.75 / 0.74 - 1)
    assert found["gap", "at its best"]["value"] == pytest.approx(0.2)
    assert not of("stored_more", planted.quality())


def test_a_single_layer_is_one() -> None:
    rows = [row | {"compressed_layers": "2" if row["compressed_layers"] else ""}
            for row in planted.quality()["tables"]["quality"]]  # fmt: skip
    (first, *_) = of("gap", planted.run_of("quality", quality=rows)).values()
    assert "of gate and up of layer 2 removed" in first["after"]


def test_other_comparisons_agree_or_do_not() -> None:
    rows = planted.quality()["tables"]["quality"]
    same, other = ([row | {"dataset": text} for row in rows] for text in ("enwik8", "c4-eval"))
    for row in other:
        if row["method"] == "mobe":
            row["loss_difference_nats"] = 3.0
    found = of("gap_elsewhere", planted.run_of("quality", quality=[*rows, *same, *other]))[""]
    assert (found["value"], found["of"], found["strength"]) == (1, 2, "count")


def test_only_the_same_methods_can_agree() -> None:
    """Another MoBE, or TD-MoE run otherwise, is another comparison; the best of other methods is no other answer."""
    first = planted.quality(1.0, 0.3, 0.1, evaluated("rtn", None, 0.45, 0.005))
    other = [evaluated("dense", None, 0.0, 0.0), evaluated("tdmoe", 0.4, 0.25, 0.3), evaluated("mobe", 0.4, 0.25, 0.2)]
    other = [row | {"dataset": "enwik8"} for row in other]
    found = claims(first, planted.run_of("quality", quality=other))
    assert not [name for name, _ in found if name.endswith("_elsewhere")]


def test_a_share_without_attribution_is_a_quotient() -> None:
    run = planted.quality()
    ((rival, share),) = of("share", run).items()
    assert (rival, ends(share)) == ("against MoBE as it is", [round(0.7 / 0.9, 4), None, None])
    assert words("share", run) == "How TD-MoE was run accounts for most of that gap"
    assert share["after"] == "With default options."
    assert why("largest_change", run) == "attribution does that"
    assert ends(of("remainder", run)[""]) == [0.2, 0.1608, 0.2392]
    assert words("remainder", run) == "What remains bounds the structure's cost against this run of MoBE"
    assert words("share", planted.quality(1.0, 0.8, 0.1)).endswith("accounts for the lesser part of that gap")
    assert words("share", planted.quality(1.0, 0.0, 0.1)).endswith("accounts for all of that gap")


def test_attribution_gives_share_and_largest_change() -> None:
    ladder, shapley = (planted.attribution(**tables) for tables in ({}, {"attribution_shapley": planted.shapley()}))
    share = of("share", ladder)["against MoBE as it is"]
    assert ends(share) == [0.778, 0.74, 0.81]
    assert share["after"] == (
        "With steps up to “core refit”; MoBE was not given the refit; the best run was chosen on the same windows."
    )
    assert words("largest_change", ladder) == "Largest change on the ladder"
    assert ends(of("largest_change", ladder)["“exact ranks”"]) == [0.6, 0.5608, 0.6392]  # 1.96 · 0.02
    assert words("largest_change", shapley) == "Largest change by Shapley value"
    assert ends(of("largest_change", shapley)["“exact ranks”"]) == [0.55, 0.5, 0.6]


def test_the_share_is_like_for_like_first_and_told_on_other_windows() -> None:
    """The table's numbers, not those of the best step's row: with the same refit MoBE is better."""
    run = planted.attribution(attribution_shares=planted.shares())
    found = of("share", run)
    assert {who: ends(claim) for who, claim in found.items()} == {
        "against MoBE given the same refit": [0.737, 0.697, 0.767], "against MoBE as it is": [0.778, 0.738, 0.808],
    }  # fmt: skip
    assert list(found) == ["against MoBE given the same refit", "against MoBE as it is"]
    assert ends(of("remainder", run)[""]) == [round(0.95 * 0.263, 4), None, None]
    assert ends(of("gap", run)["at its best"]) == [0.1998, 0.1698, 0.2298]
    lacking = of("share", planted.attribution(attribution_shares=planted.shares(like=None)))
    assert list(lacking) == ["against MoBE as it is"]
    assert lacking["against MoBE as it is"]["after"].endswith("; MoBE was not given the refit.")
    other = of("share", planted.attribution(attribution_shares=planted.shares("+ exact ranks")))
    assert "With steps up to “exact ranks”" in next(iter(other.values()))["after"], "the run that the table chose"


def test_attribution_is_told_before_quality_and_against_the_preset_that_the_gap_is_to() -> None:
    better = step("+ bases searched", "mobe:phi=identity", 0.05, "mobe", gap_closed=1.056)
    runs = planted.quality(), planted.attribution(better)
    best = of("gap", *runs)["at its best"]
    assert ends(best) == [0.2, 0.1608, 0.2392] and "On c4-eval" in best["after"]
    assert best["evidence"]["table"] == "attribution"
    assert "With steps up to “core refit”" in next(iter(of("share", *runs).values()))["after"]


def test_without_a_gap_a_ladders_mobe_is_a_preset_and_no_rung_below_it() -> None:
    """One basis and no nonlinearity is input-mode Tucker: TD-MoE under another name."""
    rungs = [
        step("1 basis, phi identity", "mobe:bases=1,phi=identity,steps=9", 0.02, "mobe"),
        step("+ phi tanh: preset corrected", "mobe:steps=9,groups=2", 0.11, "mobe"),
        step("preset published", "mobe:preset=published", 0.15, "mobe"),
        step("+ core refit", "mobe:refit=expert", 0.03, "mobe"),
    ]
    tensor = step("default", "tdmoe", 0.3, "beside")
    ((who, claim),) = of("gap", planted.run_of("attribution", attribution=[tensor, *rungs])).items()
    assert (who, claim["words"]) == ("with step “default”", "TD-MoE with step “default” loses to MoBE")
    assert claim["value"] == pytest.approx(0.19) and claim["after"].startswith("Against MoBE (steps=9, groups=2), on")
    only_rungs = planted.run_of("attribution", attribution=[tensor, rungs[0], rungs[3]])
    assert of("gap", only_rungs)[who]["value"] == pytest.approx(0.28), "without any preset another one"
    no_gap = [row | {"gap_closed": None, "status": "no_gap"} for row in planted.attribution()["tables"]["attribution"]]
    run = planted.run_of("attribution", attribution=[*no_gap, rungs[0]])
    assert of("gap", run)["as published"]["value"] == pytest.approx(0.9)
    assert words("no_gap", run).startswith("There is no gap to divide") and not of("share", run)


@pytest.mark.parametrize(
    ("published", "best", "mobe", "quantity", "told", "numbers"),
    [
        (0.11, 0.05, 0.1, "no_gap",
         "There is no gap to divide, as published TD-MoE and MoBE cannot be told apart", [0.01, -0.0292, 0.0492]),
        (0.1, 0.05, 0.5, "no_gap",
         "There is no gap to divide, as TD-MoE as published is the better one", [-0.4, -0.4392, -0.3608]),
        (1.0, None, 0.1, "remainder",
         "What remains bounds the structure's cost against this run of MoBE", [0.9, 0.8608, 0.9392]),
        (1.0, 0.0, 0.1, "remainder",
         "Nothing remains for the structure, as TD-MoE at its best loses less than MoBE by", [0.1, 0.0608, 0.1392]),
        (1.0, 0.11, 0.1, "remainder", "What remains cannot be told from nothing", [0.01, -0.0292, 0.0492]),
    ],
)  # fmt: skip
def test_gaps_that_are_none(
    published: float, best: float | None, mobe: float, quantity: str, told: str, numbers: list[float]
) -> None:
    run = planted.quality(published, best, mobe)
    assert words(quantity, run) == told
    assert ends(of(quantity, run)[""]) == numbers
    assert not of({"no_gap": "remainder", "remainder": "no_gap"}[quantity], run)


@pytest.mark.parametrize(
    ("given", "reason"),
    [((1.0, None, 0.1), "for want of a TD-MoE that was run otherwise and loses less"),
     ((None, 0.3, 0.1), "for want of TD-MoE as published (attribution measures both)"),
     ((1.0, 0.3, None), "for want of MoBE (attribution measures both)")],
)  # fmt: skip
def test_a_share_that_was_not_measured_says_what_is_needed(given: tuple[float | None, ...], reason: str) -> None:
    assert why("share", planted.quality(*given)) == reason


def test_spectra_and_the_expert_mode() -> None:
    found = claims(planted.spectra((0.08, 0.12, 0.4), (0.06, 0.1, 0.3)), planted.experts(0.82, 0.78, 0.5))
    assert [found["exponent", mode]["value"] for mode in ("expert", "output", "input")] == pytest.approx(
        [0.07, 0.11, 0.35]
    )
    assert found["exponent", "expert"]["reference"] == {"baseline": 0.05, "least": 0.06, "most": 0.08}
    binding, cost = found["binding", ""], found["binding_cost", ""]
    assert (binding["value"], binding["of"], binding["reference"]) == (2, 3, {"undecided": 1})
    assert (cost["value"], cost["reference"]["independent experts"]) == pytest.approx((0.14, 0.1))
    assert "raised" in cost["words"]
    apart = found["told_from_independent", ""]
    assert (apart["value"], apart["of"], apart["after"]) == (0, 3, "Nothing is claimed of what experts share.")


def test_a_stack_whose_cutting_saves_has_its_interval_and_is_told_from_independent_experts() -> None:
    found = claims(planted.spectra((0.5, 0.06, 0.4)), planted.experts(0.3, gain=0.05, gain_low=-0.01, gain_high=0.08))
    assert found["exponent", "expert"]["reference"] == {"baseline": 0.05}
    assert (found["binding", ""]["value"], found["binding", ""]["reference"]) == (0, {"not": 1})
    cost = found["binding_cost", ""]
    assert ends(cost) == [0.05, -0.01, 0.08] and cost["reference"] == {"independent experts": -0.1}
    assert cost["strength"] == "clear" and "lowered" in cost["words"]
    assert found["told_from_independent", ""]["reference"] == {"cheaper": 1}
    dearer = of("told_from_independent", planted.experts(0.8, 0.7, gain_null=-0.05))[""]
    assert (dearer["value"], dearer["reference"]) == (2, {"dearer": 2})
    alone = claims(planted.experts(0.8, gain_null=None))
    assert ends(alone["binding_cost", ""]) == [0.14, 0.1, 0.2] and ("told_from_independent", "") not in alone


def test_stacks_whose_published_triple_cuts_nothing_count_all_the_same() -> None:
    """Whether the expert mode binds is of the best ranks, not of the published ones."""
    apart = dict.fromkeys(("published_difference", "due_to_experts", "due_to_ranks"))
    plain, cut = (of("binding", planted.experts(0.82, 0.78, 0.5, **more))[""]
                  for more in ({}, {"status": "nothing_to_cut", **apart}))  # fmt: skip
    assert plain == cut and cut["value"] == 2


def test_stream_and_routing_of_the_models_that_the_verdict_is_about() -> None:
    found = claims(*EVERYTHING)
    assert ends(found["rotation", "TD-MoE as published"]) == [40.0, 39.804, 40.196]
    assert found["rotation", "MoBE"]["value"] == 10.0
    assert found["routing", "MoBE"]["value"] == pytest.approx(0.925)
    assert found["routing", "MoBE"]["evidence"]["where"] == {"method": "mobe", "ratio": 0.4, "layer": 3}


ERRORS = {"weight_error": 0.7, "functional_error": 0.98, "operator_error": 0.3}


def test_the_error_that_predicts_the_damage_of_injected_residuals() -> None:
    found = claims(planted.injection(ERRORS, (0.02, -0.1, 0.14)))
    best = found["predictor_injected", "functional error"]
    assert best["words"] == "Of injected residuals the functional error predicts the damage best"
    assert (best["value"], best["evidence"]["where"]["error"]) == (0.98, "functional_error")
    assert ends(found["predictor_injected_less", "weight error"]) == [0.28, 0.23, 0.33]
    assert ends(found["predictor_injected_less", "operator error"]) == [0.68, 0.63, 0.73]
    turned = planted.injection(ERRORS | {"operator_error": 0.99}, (1.1, 0.9, 1.3), reach=0.001)
    assert words("predictor_injected", turned) == "Of injected residuals the operator error predicts the damage best"
    assert why("predictor_models", turned) == "attribution does that"


def test_no_error_is_the_best_where_the_difference_may_be_none_or_the_kinds_are_few() -> None:
    close = ERRORS | {"weight_error": 0.97}
    untold = "Which error predicts the damage of injected residuals best cannot be told"
    open_ = claims(planted.injection(close, (0.02, -0.1, 0.14)))
    assert open_["predictor_injected", "functional error"]["words"] == untold
    assert ends(open_["predictor_injected_less", "weight error"]) == [0.01, -0.04, 0.06]
    assert open_["predictor_injected_less", "weight error"]["strength"] == "unclear"
    few = of("predictor_injected", planted.injection(close, (0.02, -0.1, 0.14), reach=0.0, count=7))[""]
    assert (few["words"], few["value"], few["of"]) == (untold, 7, 8)
    run = planted.injection(close, (0.02, -0.1, 0.14), reach=0.001)
    assert words("predictor_injected", run).startswith("Of injected residuals the functional error predicts")
    rows = run["tables"]["injection_contrasts"]
    run["tables"]["injection_contrasts"] = [row for row in rows if row["statistic"] != "r2_difference"]
    without = claims(run)
    assert without["predictor_injected", "functional error"]["words"] == untold
    assert ends(without["predictor_injected_other", "weight error"]) == [0.97, None, None]


def correlations(*found: tuple[str, float, float, float], runs: int = 14) -> list[Run]:
    return [
        {"error": error, "response": "loss", "rank_correlation": value, "low": low, "high": high, "runs": runs}
        for error, value, low, high in found
    ]


def test_predictors_of_compressed_models_are_of_the_run_with_most_of_them() -> None:
    rows = correlations(
        ("operator_error", 0.5, 0.2, 0.7), ("functional_error", 0.97, 0.9, 0.99), ("angle_deg", 0.95, 0.85, 1.0)
    )
    ladder = planted.attribution(attribution_predictors=rows)
    small = planted.attribution(attribution_predictors=[row | {"runs": 3, "rank_correlation": 1.0} for row in rows])
    found = [of("predictor_models", *runs) for runs in ([ladder], [small, ladder], [ladder, small])]
    assert found[0] == found[1] == found[2]
    assert list(found[0]) == ["functional error", "angle of the residual stream", "operator error"]
    assert ends(found[0]["functional error"]) == [0.97, 0.9, 0.99]
    assert found[0]["functional error"]["words"] == (
        "Of 14 compressed models no error is known to order the added loss best, rank correlations"
    )
    assert "independent models" in found[0]["functional error"]["after"]


def test_injected_residuals_and_compressed_models_are_two_statements() -> None:
    """The error that explains what is injected may be the last one of models that methods leave."""
    rows = correlations(("weight_error", 0.87, 0.84, 0.95), ("functional_error", 0.73, 0.7, 0.88),
                        ("angle_deg", 0.99, 0.96, 1.0), runs=26)  # fmt: skip
    injected = planted.injection({"weight_error": 0.7, "functional_error": 0.98}, (0.02, -0.1, 0.14))
    runs = injected, planted.attribution(attribution_predictors=rows)
    assert words("predictor_injected", *runs) == "Of injected residuals the functional error predicts the damage best"
    assert words("predictor_models", *runs).startswith(
        "Of 26 compressed models the angle of the residual stream orders the added loss best"
    )
    assert list(of("predictor_models", *runs))[-1] == "functional error"


def advice(*runs: Run) -> list[str]:
    return list(of("alternative", *runs))


def test_what_to_use_instead_is_what_nothing_beats_in_loss_and_bits() -> None:
    rtn, generous = evaluated("rtn", None, 0.45, 0.005), evaluated("svd_llm", 0.4, 0.1, 0.0)
    found = claims(planted.quality(1.0, 0.3, 0.1, rtn, generous))
    assert ends(found["alternative", RTN4]) == [0.005, -0.0146, 0.0246]
    assert (found["alternative_bits", RTN4]["value"], found["alternative_bits", "MoBE"]["value"]) == (0.45, 0.25)
    assert found["next_best", "MoBE"]["words"] == "Best of decompositions"
    tied = claims(planted.quality(1.0, 0.3, 0.01, rtn, evaluated("svd_llm", 0.4, 0.25, 0.02)))
    assert tied["next_best", "MoBE"]["words"] == "Best of decompositions, not told apart in loss"
    assert tied["tied_1", "SVD-LLM"]["words"] == f"Not told apart in loss from {RTN4}, which saves more bits"
    matrix = claims(planted.quality(1.0, 0.3, 0.1, evaluated("rtn", None, 0.45, 0.9)))
    assert ("alternative", "MoBE") in matrix
    assert matrix["next_best", "TD-MoE (default options)"]["words"] == "TD-MoE at its best"
    tensor = claims(planted.quality(1.0, 0.01, 0.1))
    assert tensor["alternative", "TD-MoE (default options)"]["words"].endswith("nothing does better than TD-MoE")
    assert tensor["next_best", "MoBE"]["words"] == "Best of the others"


@pytest.mark.parametrize(
    ("losses", "bits", "tied"),
    [
        ((0.0, 0.005, 0.1), (3, 4), {8}),  # 8 and 4 bits are not told apart, 3 bits are
        ((0.0, 0.005, 0.01), (3,), {8, 4}),
        ((0.0, 0.1, 0.9), (4, 8), set()),  # 3 bits lose more than TD-MoE
        ((0.1, 0.0, 0.9), (4,), set()),
    ],
    ids=["least two tied", "all tied", "three told apart", "dominated"],
)
def test_the_advice_is_a_trade_off_where_losses_are_told_apart(
    losses: tuple[float, ...], bits: tuple[int, ...], tied: set[int]
) -> None:
    """Whichever roundings were measured: the widest is no answer where a narrower one loses as little."""
    rounded = [evaluated(f"rtn:bits={bits}", None, saved, added)
               for bits, saved, added in zip((8, 4, 3), (0.3, 0.45, 0.5), losses, strict=True)]  # fmt: skip
    run = planted.quality(1.0, 0.3, 0.15, *rounded)
    assert advice(run) == [f"rounding to {n} bits (RTN)" for n in bits]
    assert ("is a trade-off" in words("alternative", run)) == (len(bits) > 1)
    found = {subject for quantity, subject in claims(run) if quantity.startswith("tied_")}
    assert {f"rounding to {n} bits (RTN)" for n in tied} <= found
    assert not found & {f"rounding to {n} bits (RTN)" for n in {8, 4, 3} - tied}


@pytest.mark.parametrize("runs", [[], [planted.quality(1.0, 0.3, None)], [planted.quality(None, None, 0.1)]])
def test_what_to_use_instead_needs_td_moe_and_another(runs: list[Run]) -> None:
    assert why("alternative", *(runs or [planted.drift()])).startswith(("no other method was", "there is no TD-MoE"))


def test_advice_keeps_to_the_projections_of_the_pair() -> None:
    """A wider TD-MoE beats MoBE, and is told apart from the comparison over the same projections."""
    wide = {"projections": "gate,up,down"}
    shared = step("+ budget shared with down", "tdmoe:across=global", 0.05, ratio=0.27, **wide)
    found = claims(planted.attribution(shared))
    assert [subject for quantity, subject in found if quantity == "alternative"] == ["MoBE"]
    assert found["next_best", "TD-MoE, “core refit”"]["value"] == 0.3
    wider = found["wider", "TD-MoE, “budget shared with down”"]
    assert (wider["value"], wider["words"]) == (0.05, "Better still, over gate, up and down")
    rounded = step("RTN, 4 bits", "rtn:bits=3,scale=tensor", 0.06, "beside", ratio=None, bits_saved=0.45)
    other = step("RTN, 4 bits", "rtn", 0.01, "beside", ratio=None, bits_saved=0.45, **wide)
    assert advice(planted.attribution(shared, rounded, other)) == ["rounding to 3 bits (RTN, scale=tensor)"]
    mobe = step("preset corrected", "mobe", 0.02, "beside", **wide)
    assert list(of("wider", planted.attribution(shared, mobe))) == ["MoBE"]
    worse = step("+ budget shared with down", "tdmoe:across=global", 0.15, ratio=0.27, **wide)
    assert not of("wider", planted.attribution(worse))


def test_the_best_combination_is_called_that_and_its_switches_are_told() -> None:
    switches = "full modes store no factor, exact ranks, ranks in smaller steps, HOOI, shared input factor, core refit"
    name = f"best of 64 combinations: {switches}"
    best = step(name, "tdmoe:refit=expert,alignment=1", 0.2, "combination", gap_closed=0.889)
    share = of("share", planted.attribution(best))["against MoBE as it is"]
    assert ends(share) == [0.889, None, None] and f"the “best of 64 combinations” ({switches});" in share["after"]
    winning = advice(planted.attribution(best | {"loss_difference_nats": 0.01}))
    assert winning == [f"TD-MoE, “best of 64 combinations” ({switches})"]
    alone = planted.run_of("attribution", attribution=[best, step("preset corrected", "mobe", 0.1, "mobe")])
    assert words("gap", alone) == "TD-MoE with the “best of 64 combinations” loses to MoBE"
    assert next(iter(of("gap", alone).values()))["after"].endswith(f" TD-MoE's switches: {switches}.")


def test_missing_tables_are_not_measured() -> None:
    found = {quantity for quantity, _ in claims(planted.drift())}
    missing = {claim["quantity"] for claim in verdict_of([planted.drift()]) if claim["strength"] == "missing"}
    assert missing == {"gap", "share", "exponent", "binding", "predictor_injected", "predictor_models", "alternative"}
    assert found - missing == {"rotation", "routing"}
    assert opening([]).sentences == [] == list(opening([]).blocks)


def test_failed_jobs_and_losses_that_are_not_finite_are_told() -> None:
    lost = evaluated("mobe", 0.4, 0.25, 0.0, value=None, loss_difference_nats=None, status="not_finite")
    run = planted.quality(1.0, 0.3, None, lost, jobs=5, failed=2)
    assert why("gap", run) == "for want of MoBE"
    unfinished = of("unfinished", run)["quality"]
    assert (unfinished["value"], unfinished["of"]) == (2, 5)
    assert words("gap", planted.quality(float("inf"), 0.3, 0.1)).startswith("TD-MoE with default options loses")


def test_claims_do_not_depend_on_the_order_of_runs_and_nothing_on_chance() -> None:
    assert verdict_of(EVERYTHING) == verdict_of(EVERYTHING[::-1])
    assert opening(EVERYTHING[-3:]) == opening(EVERYTHING[-3:])


def test_sentences_are_short_and_those_of_the_terminal_the_most_important() -> None:
    told = sentences(verdict_of(EVERYTHING))
    assert max(len(sentence.split()) for sentence in told) <= 67
    few = headlines(EVERYTHING)
    assert len(few) == 5 and set(few) < set(told) and few[0] == told[0]


def test_several_models_have_sentences_anchors_and_figures_of_their_own() -> None:
    few = [EVERYTHING[0], EVERYTHING[4]]
    other, twin = ([run | change for run in few] for change in ({"model": "other"}, {"fingerprint": "ffff0000"}))
    runs = [*few, *other, *twin]
    found = opening(runs)
    starts = list(dict.fromkeys(sentence.partition(" — ")[0] for sentence in found.sentences))
    assert starts == ["pico-moe (0123abcd)", "other", "pico-moe (ffff0000)"]
    models = [claim["model"] for claim in verdict_of(runs)]
    assert list(dict.fromkeys(models)) == starts and sum(a != b for a, b in pairwise(models)) == 2
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
    told = [
        "TD-MoE as published loses to MoBE, and still does at its best:",
        "How TD-MoE was run accounts for most of that gap:",
        "What to do instead, added loss on wikitext2:",
    ]
    for claim in told:
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


NO_ERROR = {"loss_difference_nats_stderr": None, "stderr": None, "samples": 1}


def without_errors(run: Run, **changes: Any) -> Run:
    """As one window leaves it."""
    (table, rows), *_ = run["tables"].items()
    return run | {"tables": {table: [row | NO_ERROR | {"windows": 1} | changes for row in rows]}}


def test_without_an_error_nothing_is_claimed_and_nothing_agrees() -> None:
    rtn = evaluated("rtn", None, 0.45, 0.005)
    run = without_errors(planted.quality(1.0, 0.3, 0.1, rtn))
    gap = of("gap", run)
    assert words("gap", run) == "Whether TD-MoE loses to MoBE cannot be told without an error"
    assert [ends(claim) for claim in gap.values()] == [[0.9, None, None], [0.2, None, None]]
    assert {claim["strength"] for claim in gap.values()} == {"estimate"}
    assert "(1 window)" in gap["as published"]["after"]
    assert words("share", run) == ("How much of it is how TD-MoE was run cannot be told without an error of the gap")
    assert not of("remainder", run)
    assert of("alternative", run)[RTN4]["after"].endswith(" No error of these is known.")
    known = planted.quality(1.0, 0.3, 0.1, rtn)
    elsewhere = without_errors(planted.quality(1.0, 0.3, 0.1, rtn), dataset="enwik8")
    for runs in ((known, elsewhere), (elsewhere, run)):
        assert not any(quantity.endswith("elsewhere") for quantity, _ in claims(*runs))


@pytest.mark.parametrize(
    ("published", "best", "mobe", "quantity"),
    [(0.1, 0.05, 0.5, "no_gap"), (1.0, None, 0.1, "share"), (0.12, 0.11, 0.1, "share")],
)
def test_gaps_without_an_error(published: float, best: float | None, mobe: float, quantity: str) -> None:
    run = without_errors(planted.quality(published, best, mobe))
    assert [name for name in ("no_gap", "share", "remainder") if of(name, run)] == [quantity]
    assert not any(claim["strength"] in ("clear", "unclear") for claim in verdict_of([run]))
    assert "cannot be told apart" not in " ".join(sentences(verdict_of([run])))


def test_too_few_windows_for_an_interval_leave_the_difference_without_one() -> None:
    run = paired_run(0.09, 0.12)
    rows = [row | {"mobe_difference_low": None, "mobe_difference_high": None} for row in run["tables"]["attribution"]]
    found = of("gap", run | {"tables": {"attribution": rows}})
    assert [ends(claim) for claim in found.values()] == [[0.9, None, None], [0.02, None, None]]


def test_what_remains_of_a_chosen_combination_is_told_on_windows_that_it_was_not_chosen_on() -> None:
    """Its own loss is too low: 0.01 nats above MoBE, where the table of shares has 0.09 of 0.9."""
    best = step("best of 4 combinations: exact ranks", "tdmoe:alignment=1", 0.11, "combination", gap_closed=0.99)
    run = paired_run(0.09, 0.12)
    run["tables"]["attribution"].append(best | planted.paired(0.01))
    run["tables"]["attribution_shares"] = planted.shares(best["step"], "combination", None, 0.9)
    share = of("share", run)["against MoBE as it is"]
    assert ends(share) == [0.9, 0.86, 0.93] and "the “best of 4 combinations” (exact ranks)" in share["after"]
    assert of("remainder", run)[""]["value"] == pytest.approx(0.09)
    assert of("gap", run)["at its best"]["value"] == pytest.approx(0.09)


def test_a_best_run_without_an_error_is_told() -> None:
    run = planted.quality()
    rows = [row | (NO_ERROR if row["method"] == "tdmoe" else {}) for row in run["tables"]["quality"]]
    found = claims(run | {"tables": {"quality": rows}})
    assert found["remainder", ""]["words"] == "What remains has no known error"
    assert found["next_best", "TD-MoE (default options)"]["words"].endswith(", with no known error")
    gap = found["gap", "as published"]
    assert gap["words"] == "TD-MoE as published loses to MoBE, at its best without a known error"
    assert (gap["strength"], found["gap", "at its best"]["strength"]) == ("clear", "estimate")


def paired_run(rtn: float, tdmoe: float, reach: float = 0.004, **closed: float) -> Run:
    """Standard errors of 0.01 beside the dense model, of differences to MoBE much less."""
    return planted.run_of(
        "attribution",
        attribution=[
            step("as published", planted.PUBLISHED, 1.0, gap_closed=0.0, **planted.paired(0.9)),
            step("+ core refit", "tdmoe:refit=expert", tdmoe, **planted.paired(tdmoe - 0.1, reach), **closed),
            step("preset corrected", "mobe", 0.1, "mobe", gap_closed=1.0, **planted.paired(0.0, 0.0)),
            step("RTN, 4 bits", "rtn", rtn, "beside", ratio=None, bits_saved=0.45, **planted.paired(rtn - 0.1)),
        ],
    )


def test_differences_to_the_reference_are_those_that_attribution_paired_by_window() -> None:
    closed = {"gap_closed": 0.978, "gap_low": 0.973, "gap_high": 0.982}
    run = paired_run(0.09, 0.12, **closed)
    assert [ends(claim) for claim in of("gap", run).values()] == [[0.9, 0.896, 0.904], [0.02, 0.016, 0.024]]
    assert ends(of("share", run)["against MoBE as it is"]) == [0.978, 0.973, 0.982]
    assert ends(of("remainder", run)[""]) == [0.02, None, None], "its interval is that of the share"
    assert words("next_best", run) == "Best of decompositions"
    turned = paired_run(0.11, 0.12, **closed)
    assert advice(turned) == [RTN4, "MoBE"], "told apart, turned for the other order"
    tied = paired_run(0.102, 0.12)
    assert advice(tied) == [RTN4] and words("next_best", tied).endswith(", not told apart in loss")


@pytest.mark.parametrize(
    ("value", "low", "high", "rest", "told", "left"),
    [
        (0.9944, 0.990, 0.999, 0.005, "What remains bounds the structure's cost against this run of MoBE", 0.005),
        (0.9944, 0.985, 1.002, 0.005, "What remains cannot be told from nothing", 0.005),
        (1.02, 1.01, 1.03, -0.02,
         "Nothing remains for the structure, as TD-MoE at its best loses less than MoBE by", 0.02),
    ],
)  # fmt: skip
def test_a_remainder_has_one_interval_that_of_the_share(
    value: float, low: float, high: float, rest: float, told: str, left: float
) -> None:
    """Whatever the interval of the difference holds."""
    run = paired_run(0.5, 0.1 + rest, gap_closed=value, gap_low=low, gap_high=high)
    assert words("remainder", run) == told
    assert ends(of("remainder", run)[""]) == [left, None, None]


def test_verdict_json_follows_its_schema_and_the_csv_has_the_same_claims(tmp_path: Path) -> None:
    schema = pytest.importorskip("jsonschema")
    write_verdict(EVERYTHING, tmp_path)
    found = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"))
    schema.validate(found, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert found["claims"] == json.loads(json.dumps(verdict_of(EVERYTHING)))
    header, *lines = (tmp_path / "tables" / "verdict.csv").read_text(encoding="utf-8").splitlines()
    assert header == "model,subject,quantity,value,low,high,unit,of,reference,evidence,strength"
    assert len(lines) == len(found["claims"])
    assert not list((tmp_path / "alone").glob("*")) and write_verdict(EVERYTHING[:1], tmp_path / "alone") is None
