"""Claims, tables and figures of injection hold what its rows hold."""

from __future__ import annotations

from typing import Any

import pytest
import verdict_runs as planted

from diag.pages import claims_of
from diag.probes.injection.columns import laws, points, ratios, views
from diag.probes.injection.figures import figures, responses

Row = dict[str, Any]
R2 = {"weight_error": 0.7, "functional_error": 0.98, "operator_error": 0.3}
WHERE = {"scope": "one", "layer": 3, "projection": "up"}


def of(run: Row, quantity: str) -> dict[str, Row]:
    return {c["subject"]: c for c in claims_of("injection", run["tables"]) if c["quantity"] == quantity}


def ratio(design: str, size: float | None, value: float) -> Row:
    return WHERE | {"statistic": "ratio", "design": design, "size": size, "families": "rank_one/flat", "value": value,
                    "low": value / 2, "high": value * 2, "functional_error_ratio": 1.5,
                    "operator_error_ratio": 4.0}  # fmt: skip


def run(family: str, seed: int | None, change: float, size: float = 0.2, **changes: Any) -> Row:
    return WHERE | {"design": "frobenius", "family": family, "size": size, "seed": seed, "weight_error": size,
                    "functional_error": 2 * size, "operator_error": 3 * size, "loss_change": change,
                    "status": "ok"} | changes  # fmt: skip


def test_the_error_that_explains_most_is_claimed_with_its_distance_to_the_others() -> None:
    found = planted.injection(R2, (0.02, -0.1, 0.14))
    explained = of(found, "explained")
    assert {name: claim["value"] for name, claim in explained.items()} == {
        "functional error": 0.98, "weight error": 0.7, "operator error": 0.3}  # fmt: skip
    assert explained["weight error"]["words"].endswith("gate, up of all layers")
    ahead = of(found, "explained_difference")
    claim = ahead["functional error over weight error"]
    assert [claim[key] for key in ("value", "low", "high")] == pytest.approx([0.28, 0.23, 0.33])
    assert claim["strength"] == "clear"
    near = of(planted.injection(R2 | {"weight_error": 0.95}, (0.02, -0.1, 0.14)), "explained_difference")
    assert near["functional error over weight error"]["strength"] == "unclear"
    joint = of(found, "exponent_together")["operator error"]
    assert joint["strength"] == "unclear" and (joint["value"], joint["low"], joint["high"]) == (0.02, -0.1, 0.14)
    assert of(found, "exponent")["functional error"]["value"] == 2.0


def test_too_few_kinds_and_no_law_claim_nothing() -> None:
    few = of(planted.injection(R2, (0.02, -0.1, 0.14), count=7), "explained_difference")
    assert list(few) == ["7 kinds of residual clearly increased the loss, 8 are needed"]
    assert list(of({"tables": {"injection": [run("flat", 0, 0.1)]}}, "answer")) == [
        "nothing of this run has a result yet"]  # fmt: skip


def test_ratios_are_over_all_sizes_where_there_are_several_and_stand_with_the_squares() -> None:
    rows = [ratio("frobenius", 0.2, 9.0), ratio("frobenius", None, 3.0), ratio("operator", 0.2, 0.5),
            ratio("functional", 0.2, 1.0)]  # fmt: skip
    assert [row["value"] for row in ratios(rows)] == [3.0, 0.5]
    found = planted.injection(R2, (0.02, -0.1, 0.14))
    found["tables"]["injection_contrasts"] += [row | {"scope": "all", "layer": None, "projection": "gate,up"}
                                               for row in rows]  # fmt: skip
    pairs = of(found, "ratio")
    assert pairs["rank one over flat, equal Frobenius norm"]["reference"] == {
        "functional error squared": 2.25, "operator error squared": 16.0}  # fmt: skip
    forest = figures(found["tables"], {})[0]
    assert [(mark.name, mark.value) for mark in forest.groups[0][1][0].marks] == [  # type: ignore[attr-defined]
        ("operator_error", 16.0), ("functional_error", 2.25), ("value", 3.0)]  # fmt: skip


def test_points_are_means_over_draws_and_sites_stand_apart() -> None:
    rows = [run("along", 0, 0.4), run("along", 1, 0.2), run("flat", 0, 0.1, projection="up,down", layer=None),
            run("rtn:bits=2", None, -0.1)]  # fmt: skip
    cells = points(rows)
    assert [(cell["site"], cell["family"], cell["draws"]) for cell in cells] == [
        ("up, down of all layers", "flat", 1), ("up of layer 3 alone", "along", 2),
        ("up of layer 3 alone", "rtn:bits=2", 1)]  # fmt: skip
    assert cells[1]["loss_change"] == pytest.approx(0.3) and (cells[1]["least"], cells[1]["largest"]) == (0.2, 0.4)
    law = WHERE | {"statistic": "exponent", "error": "weight_error", "value": 2.0, "r2": 0.9}
    plot = responses("up of layer 3 alone", [*cells[1:], cells[1] | {"weight_error": 0.4, "loss_change": 1.2}], [law])
    panel = plot.panels[0]
    assert plot.name == "injection-L003-up" and "1 of 3 points did not increase" in plot.caption
    assert [series.name for series in panel.series] == ["along", "fit"]
    assert list(panel.series[0].low) == [0.2, 0.2] and list(panel.series[1].y) == pytest.approx([0.3, 1.2])
    assert panel.title == "weight error: R² 0.900, exponent 2.00"
    failed = WHERE | {"family": "flat", "status": "failed"}
    lines = {view.name: view.rows for view in views({"injection": [*rows, failed], "injection_contrasts": []})}
    assert len(lines["points"]) == 4 and lines["points"][-1]["status"] == "failed" and not lines["laws"]


def test_laws_join_the_statistics_of_an_error() -> None:
    table = planted.injection(R2, (0.02, -0.1, 0.14))["tables"]["injection_contrasts"]
    (operator,) = [row for row in laws(table) if row["error"] == "operator error"]
    assert (operator["value"], operator["r2"], operator["joint"], operator["rank"]) == (2.0, 0.3, 0.02, 0.3)
