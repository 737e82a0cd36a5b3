"""Claims: numbers from the rows as data, and sentences that say no more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_figures import fail, synthetic_run

from diag.declare.claim import Claim, Estimate, Quantity
from diag.pages import answer, claims_of
from reports.sentences import sentences


def found(run: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(c["quantity"], c["subject"]): c for c in claims_of("spectra", run["tables"], run["jobs"])}


def test_spectra_claim_what_the_rows_hold() -> None:
    run = synthetic_run((0,), ("gate",))
    rows = run["tables"]["spectra"]
    for row, (alpha, null) in zip(rows, [(0.20, 0.01), (0.03, 0.02), (0.05, 0.06)], strict=True):
        row |= {"alpha": alpha, "alpha_null": null, "alpha_jackknife_stderr": 0.01}
    rows[0] |= {"energy_25": 0.64, "energy_25_null": 0.36, "alpha_paper": 0.5}
    claims = found(run)
    values = {key: (c["value"], c["of"]) for key, c in claims.items()}
    assert values["above_baseline", ""] == (2, 3)
    assert values["clear_excess", ""] == (1, 3)
    assert values["tail_fitted", ""] == (3, 3)
    assert values["lognormal", ""] == (3, 3)
    assert values["measured", ""] == (1, 1)
    assert [claims["excess", mode]["value"] for mode in ("expert", "output", "input")] == pytest.approx(
        [0.19, 0.01, -0.01]
    )
    kept = claims["quarter_error", "expert"]
    assert kept["value"] == pytest.approx(0.6)
    assert kept["reference"] == pytest.approx({"baseline": 0.8})
    assert kept["evidence"] == {"table": "spectra", "column": "energy_25", "rows": 1, "where": {"mode": "expert"}}
    assert claims["paper", "layer 0, gate, expert"]["value"] == pytest.approx(-0.3)
    json.dumps(list(claims.values()))


def test_operator_claims_what_the_rows_hold() -> None:
    where = {"layer": 1, "projection": "up", "expert": "mean", "status": "ok"}
    rows = [
        where | {"method": "tdmoe", "ratio": 0.4, "operator_over_svd": 1.5, "weight_over_svd": 1.2,
                 "operator_error": 0.6, "weight_error": 0.5, "kept_ratio": 0.6},
        where | {"method": "svd", "ratio": 0.4, "operator_over_svd": 1.0, "weight_over_svd": 1.0,
                 "operator_error": 0.4, "weight_error": 0.7, "kept_ratio": 0.6},
        where | {"method": "truncate:mode=input", "ratio": None, "operator_over_optimal": 1.75,
                 "weight_over_optimal": 1.5},
        where | {"expert": None, "mode": "input", "method": "tdmoe", "operator_over_optimal": 2.0, "bound_paper": 1.9,
                 "bound_proven": 5.0},
    ]  # fmt: skip
    claims = {(c["quantity"], c["subject"]): c for c in claims_of("operator", {"operator": rows})}
    values = {key: c["value"] for key, c in claims.items()}
    assert values == {
        ("operator_over_svd", "tdmoe"): 1.5,
        ("weight_over_svd", "tdmoe"): 1.2,
        ("same_best", ""): 0,
        ("operator_over_optimal", "input"): 1.75,
        ("bound_exceeded", ""): 1,
        ("bound_over_measured", "Corollary 1"): 0.95,
        ("bound_over_measured", "proven"): 2.5,
        ("functional_error", "no statistics of the inputs were given (--statistics)"): None,
    }
    assert claims["operator_over_optimal", "input"]["reference"] == {"Frobenius norm": 1.5}
    assert claims["functional_error", "no statistics of the inputs were given (--statistics)"]["strength"] == "missing"


def test_an_incomplete_run_and_an_empty_one_say_so() -> None:
    run = fail(synthetic_run((0,), ("gate", "up")), "spectra-L000-up", "broken")
    assert sentences(list(found(run).values()))[-1] == (
        "Measured: 1 of 2 jobs. The run is incomplete: all of the above holds for the measured part only."
    )
    nothing = claims_of("spectra", {"spectra": []}, [{"key": "spectra-L000-up", "state": "failed"}])
    assert sentences(nothing)[0] == "Answer: not measured, nothing of this run has a result yet."


QUANTITY = Quantity("gap", "Gap", "loss", after="Smaller is better.")


@pytest.mark.parametrize(
    ("pattern", "estimates", "expected"),
    [
        ("values", [("tdmoe", Estimate(0.5, 0.4, 0.6)), ("mobe", Estimate(0.25))],
         "Gap: TD-MoE 0.50 (0.40 to 0.60) and MoBE 0.250. Smaller is better."),
        ("best", [("tdmoe", Estimate(0.5)), ("mobe", Estimate(0.25))],
         "Gap: MoBE 0.250 and TD-MoE 0.500. Smaller is better."),
        ("share", [("", Estimate(3, of=7, unit="stacks"))], "Gap: 3 of 7 stacks. Smaller is better."),
        ("extreme", [("layer 3", Estimate(-0.3))], "Gap: −0.300 (layer 3). Smaller is better."),
        ("between", [("", Estimate(1.0, 0.5, 2.0))], "Gap: from 0.500 to 2.000. Smaller is better."),
        ("values", [("no reference", Estimate(None))], "Gap: not measured, no reference."),
    ],
)  # fmt: skip
def test_patterns_in_words(pattern: str, estimates: list[tuple[str, Estimate]], expected: str) -> None:
    quantity = Quantity(**(vars(QUANTITY) | {"pattern": pattern}))
    assert sentences([Claim(subject, quantity, value).as_dict() for subject, value in estimates]) == [expected]


@pytest.mark.parametrize(
    ("estimate", "reference", "strength"),
    [
        (Estimate(None), {}, "missing"),
        (Estimate(2, of=3), {}, "count"),
        (Estimate(0.5), {}, "estimate"),
        (Estimate(0.5, 0.1, 0.9), {}, "clear"),
        (Estimate(0.5, 0.1, 0.9), {"baseline": 0.2}, "unclear"),
    ],
)
def test_strength(estimate: Estimate, reference: dict[str, float], strength: str) -> None:
    assert Claim("", QUANTITY, estimate, reference).strength == strength


def test_the_terminal_has_at_most_five_sentences_and_a_table() -> None:
    said, table = answer(synthetic_run())
    assert len(said) == 5
    assert [cell.text for cell in table.lines[3]] == ["3", "gate", "0.130 (0.050)", "0.131 (0.050)", "0.132 (0.050)"]
    assert [name for name, _ in table.groups] == ["", "expert", "output", "input"]
