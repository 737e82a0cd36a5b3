"""Statistics of injections, against scipy and against planted laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_ind
from scipy.stats import t as student

from diag.probes.injection.cells import ERRORS, Run
from diag.probes.injection.contrasts import explained, regress, resampled, spearman, summarise
from diag.statistics.intervals import interval, students_interval

DESIGNS = {"frobenius": "weight_error", "operator": "operator_error", "functional": "functional_error"}
# what a residual of Frobenius norm 1 has of the other errors
FAMILIES = {
    "isotropic": (0.8, 0.6),
    "flat": (0.8, 0.4),
    "rank_one": (0.8, 3.5),
    "along": (1.3, 0.9),
    "against": (0.5, 0.9),
}


def planted(exponents: dict[str, float], noise: float = 0.0, seeds: int = 4, windows: int = 6) -> list[Run]:
    """Runs whose loss is the product of powers of their errors; `noise` is relative, of every seed and window."""
    random = np.random.default_rng(7)
    runs = []
    for family, (functional, operator) in FAMILIES.items():
        for seed in range(seeds):
            luck = np.exp(noise * random.standard_normal())
            for design, held in DESIGNS.items():
                for size in (0.1, 0.3):
                    row: dict[str, Any] = {"design": design, "family": family, "size": size, "seed": seed}
                    unit = {"weight_error": 1.0, "functional_error": functional, "operator_error": operator}
                    row |= {name: size * value / unit[held] for name, value in unit.items()}
                    row["functional_error_expert"] = None
                    response = luck * np.prod([row[name] ** power for name, power in exponents.items()])
                    change_W = response * (1 + noise * random.standard_normal(windows))
                    runs.append(Run(row, change_W))
    return runs


def rows_of(rows: list[dict[str, Any]], statistic: str, **where: Any) -> dict[str, dict[str, Any]]:
    chosen = [r for r in rows if r["statistic"] == statistic and all(r[k] == v for k, v in where.items())]
    return {r["error"]: r for r in chosen}


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_that_of_scipy(ties: bool) -> None:
    random = np.random.default_rng(1)
    x, y = random.standard_normal((2, 40))
    if ties:
        x, y = x.round(), y.round()
    assert spearman(x, y) == pytest.approx(float(spearmanr(x, y).statistic), abs=1e-12)
    assert spearman(np.ones(5), np.arange(5.0)) is None


@pytest.mark.parametrize("law", [{"functional_error": 2.0}, {"operator_error": 1.5}, {"weight_error": 2.0}])
def test_the_error_that_the_damage_was_planted_on_is_found(law: dict[str, float]) -> None:
    [(name, power)] = law.items()
    rows = summarise(planted(law, noise=0.05), seed=0, samples=200)
    joint = rows_of(rows, "joint")
    for error, row in joint.items():
        assert row["value"] == pytest.approx(law.get(error, 0.0), abs=0.1)
        assert row["low"] <= row["value"] <= row["high"] and row["high"] - row["low"] < 0.3
    exponents = rows_of(rows, "exponent")
    explained = {error: row["r2"] for error, row in exponents.items() if row["status"] == "ok"}
    assert max(explained, key=lambda error: explained[error]) == name and explained[name] > 0.99
    assert exponents[name]["value"] == pytest.approx(power, abs=0.1)
    correlations = {e: r["value"] for e, r in rows_of(rows, "spearman").items() if r["value"] is not None}
    assert max(correlations, key=lambda error: correlations[error]) == name
    assert correlations[name] > 0.95


def test_inside_a_design_the_exponent_comes_from_the_families_alone() -> None:
    rows = summarise(planted({"functional_error": 2.0}), seed=0, samples=50)
    for design, held in DESIGNS.items():
        inside = rows_of(rows, "within", design=design)
        assert held not in inside and set(inside) == set(ERRORS) - {held}
        if design != "functional":
            assert inside["functional_error"]["value"] == pytest.approx(2.0)
            assert inside["functional_error"]["r2"] == pytest.approx(1.0)
    assert rows_of(rows, "within", design="functional")["operator_error"]["value"] == pytest.approx(0.0, abs=1e-9)


def test_ratios_of_families() -> None:
    rows = summarise(planted({"functional_error": 2.0}), seed=0, samples=50)
    ratios = {(r["design"], r["families"], r["size"]): r for r in rows if r["statistic"] == "ratio"}
    assert len(ratios) == 3 * 2 * 3
    for size in (0.1, 0.3, None):
        row = ratios["frobenius", "rank_one/flat", size]
        assert (row["value"], row["low"], row["high"]) == pytest.approx((1.0, 1.0, 1.0))
        assert row["operator_error_ratio"] == pytest.approx(3.5 / 0.4)
        row = ratios["operator", "along/against", size]
        assert row["value"] == pytest.approx((1.3 / 0.5) ** 2) and row["operator_error_ratio"] == pytest.approx(1.0)
    assert ratios["operator", "rank_one/flat", None]["value"] == pytest.approx((0.4 / 3.5) ** 2)


def test_what_a_method_leaves_is_compared_with_the_law_of_the_drawn() -> None:
    runs = planted({"functional_error": 2.0})
    for size in (0.1, 0.3):
        row = {"design": "frobenius", "family": "svd", "size": size, "seed": None, "functional_error_expert": None}
        row |= {"weight_error": size, "functional_error": 0.7 * size, "operator_error": 0.5 * size}
        runs.append(Run(row, np.full(6, 3.0 * (0.7 * size) ** 2)))
    rows = summarise(runs, seed=0, samples=50)
    excess = rows_of(rows, "excess", families="svd")
    assert excess["functional_error"]["value"] == pytest.approx(3.0)
    assert excess["functional_error_expert"]["status"] == "no_statistics_of_each_expert"
    assert rows_of(rows, "joint")["functional_error"]["count"] == 30, "methods are no part of the law"


def test_responses_that_are_not_positive_are_left_out_and_counted() -> None:
    runs = planted({"functional_error": 2.0})
    turned = [Run(run.row, -run.change_W) if run.cell == ("frobenius", "against", 0.1) else run for run in runs]
    rows = summarise(turned, seed=0, samples=50)
    row = rows_of(rows, "exponent")["functional_error"]
    assert (row["count"], row["left_out"]) == (29, 1) and row["value"] == pytest.approx(2.0)
    ratio = next(r for r in rows if (r["design"], r["families"], r["size"]) == ("frobenius", "along/against", 0.1))
    assert ratio["value"] is None and ratio["status"] == "not_positive"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of the exponent, over 20 experiments with noise between seeds and windows."""
    inside = 0
    for repeat in range(20):
        random = np.random.default_rng(100 + repeat)
        runs = []
        for run in planted({"functional_error": 2.0}, seeds=3, windows=8):
            noisy = run.change_W * (1 + 0.2 * random.standard_normal(8)) * (1 + 0.1 * random.standard_normal())
            runs.append(Run(run.row, noisy))
        row = rows_of(summarise(runs, seed=0, samples=40), "exponent")["functional_error"]
        inside += row["low"] <= 2.0 <= row["high"]
    assert inside >= 18


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("of_seed", "of_window"), [(0.1, 0.02), (0.01, 0.2)], ids=["seeds", "windows"])
def test_few_seeds_and_windows_make_intervals_wide_enough(seeds: int, of_seed: float, of_window: float) -> None:
    """The ratio of two families that do the same damage, in 300 experiments of few seeds and 8 windows."""
    random, inside = np.random.default_rng(5), 0
    for _ in range(300):
        runs = []
        for family, (functional, operator) in list(FAMILIES.items())[1:3]:
            windows_W = of_window * random.standard_normal(8)
            for seed in range(seeds):
                row: dict[str, Any] = {"design": "frobenius", "family": family, "size": 0.1, "seed": seed}
                row |= {"weight_error": 0.1, "functional_error": functional, "operator_error": operator}
                luck = np.exp(of_seed * random.standard_normal())
                noise_W = 1 + windows_W + 0.02 * random.standard_normal(8)
                runs.append(Run(row | {"functional_error_expert": None}, luck * noise_W))
        row = next(r for r in summarise(runs, seed=0, samples=4) if r["families"] == "rank_one/flat")
        inside += row["low"] <= 1.0 <= row["high"]
    assert inside >= 0.92 * 300


def test_students_interval_of_a_mean_is_the_usual_one() -> None:
    x = np.array([1.0, 2.0, 4.0, 9.0])
    left_out = (x.sum() - x) / 3
    expected = student.interval(0.95, 3, loc=x.mean(), scale=x.std(ddof=1) / 2)
    assert students_interval(x.mean(), left_out, np.zeros(4, dtype=np.int64)) == pytest.approx(expected)
    y = np.array([3.0, 3.5, 7.0])
    both = np.concatenate([left_out - y.mean(), x.mean() - (y.sum() - y) / 2])
    test = ttest_ind(x, y, equal_var=False).confidence_interval()
    found = students_interval(x.mean() - y.mean(), both, np.array([0, 0, 0, 0, 1, 1, 1]))
    assert found == pytest.approx((test.low, test.high)), "Welch's"
    assert students_interval(1.0, np.array([]), np.array([], dtype=np.int64)) == (None, None)
    assert students_interval(1.0, np.array([1.0, np.nan]), np.array([0, 0])) == (None, None)


def test_which_error_explains_more_is_told_with_its_interval() -> None:
    rows = summarise(planted({"functional_error": 2.0}, noise=0.05), seed=0, samples=200)
    explains = {error: row["r2"] for error, row in rows_of(rows, "exponent").items()}
    found = {(r["error"], r["other_error"]): r for r in rows if r["statistic"] == "r2_difference"}
    assert len(found) == 3
    for (error, other), row in found.items():
        assert row["value"] == pytest.approx(explains[error] - explains[other], abs=1e-9) and row["count"] == 30
        assert row["low"] < row["value"] < row["high"]
    assert found["functional_error", "operator_error"]["low"] > 0 > found["weight_error", "functional_error"]["high"]
    alike = summarise(planted({"functional_error": 0.2, "weight_error": 0.3}, noise=0.5), seed=0, samples=200)
    row = next(r for r in alike if (r["error"], r["other_error"]) == ("weight_error", "functional_error"))
    assert row["low"] < 0 < row["high"]


def test_what_a_line_explains_is_that_of_numpy() -> None:
    random = np.random.default_rng(2)
    x, y, times = random.standard_normal(9), random.standard_normal((2, 9)), random.integers(0, 3, (2, 9))
    for r2, values, often in zip(explained(x, y, times / 8), y, times, strict=True):
        again = np.corrcoef(np.repeat(x, often), np.repeat(values, often))[0, 1]
        assert r2 == pytest.approx(again**2)
    assert np.isnan(explained(np.ones(9), y, times / 8)).all()


def test_what_does_not_determine_a_slope_gives_none() -> None:
    x, one = np.array([[1.0], [1.0], [1.0], [1.0]]), np.zeros(4)
    assert regress(x, np.array([1.0, 2.0, 3.0, 4.0]), one) is None
    assert regress(np.arange(4.0)[:, None], np.array([1.0, -1.0, -1.0, 2.0]), one) is None
    fit = regress(np.log([[1.0], [2.0], [4.0]]), np.array([3.0, 12.0, 48.0]), np.zeros(3))
    assert fit is not None and fit[0][0] == pytest.approx(2.0) and fit[1] == pytest.approx(1.0)
    assert interval([]) == (None, None) and interval([float("nan")] * 3 + [1.0]) == (None, None)
    assert interval(list(np.arange(1001.0))) == pytest.approx((25.0, 975.0))


@pytest.mark.parametrize("kinds", [1, 3])
def test_slopes_of_all_samples_at_once_are_those_of_each(kinds: int) -> None:
    random = np.random.default_rng(3)
    x, response = random.standard_normal((12, 2)), np.exp(random.standard_normal((5, 12)))
    response[3, 4], response[4, 0] = -1.0, np.nan
    groups = np.arange(12.0) % kinds
    for sample, slopes in zip(response, resampled(x, response, groups), strict=True):
        fit = regress(x, sample, groups)
        assert fit is not None and slopes == pytest.approx(fit[0])
