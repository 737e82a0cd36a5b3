"""One budget for many stacks: against trying all choices, the Lagrangian bound, and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from tdmoe.problems import InputError
from tdmoe.tucker.rank_search import Frontier
from tdmoe.tucker.shared_budget import importance, lower_hull, share_by_importance, share_globally


def frontier(seed: int, points: int) -> Frontier:
    """Storage rising, error falling, not convex."""
    generator = np.random.default_rng(seed)
    parameters = np.cumsum(generator.integers(1, 40, points))
    errors = np.sort(generator.random(points))[::-1]
    return Frontier(parameters, np.zeros((points, 3), dtype=np.int64), errors)


@pytest.mark.parametrize("seed", range(8))
def test_the_choice_is_near_the_best_of_all_and_above_the_dual_bound(seed: int) -> None:
    frontiers = [frontier(10 * seed + s, 5 + s) for s in range(4)]
    weights = [1.0, 0.3, 2.0, 0.7]
    least, most = (sum(int(f.parameters_n[at]) for f in frontiers) for at in (0, -1))
    for share in (0.05, 0.3, 0.6, 0.9):
        budget = least + share * (most - least)
        chosen = share_globally(frontiers, weights, budget)
        used, cost = total(frontiers, weights, chosen)
        assert used <= budget
        every = (
            total(frontiers, weights, at) for at in itertools.product(*(range(len(f.squared_n)) for f in frontiers))
        )
        best = min(c for p, c in every if p <= budget)
        largest = max(
            w * float(np.diff(-f.squared_n[lower_hull(f.parameters_n, f.squared_n)]).max())
            for w, f in zip(weights, frontiers, strict=True)
        )
        assert best - 1e-12 <= cost <= best + largest
        assert not any(
            total(frontiers, weights, [c + (i == s) for i, c in enumerate(chosen)])[0] <= budget
            for s in range(4)
            if chosen[s] + 1 < len(frontiers[s].squared_n)
        ), "nothing more would fit"


def total(frontiers: list[Frontier], weights: list[float], at: object) -> tuple[int, float]:
    picked = list(zip(frontiers, weights, at, strict=True))
    return sum(int(f.parameters_n[i]) for f, _, i in picked), sum(w * float(f.squared_n[i]) for f, w, i in picked)


def test_on_convex_frontiers_it_is_the_optimum() -> None:
    """err^2 = a (1 - p/n)^2: the gain of a parameter is the same everywhere, in closed form."""
    n, scales = 1000, (1.0, 4.0)
    p = np.arange(1, n + 1)
    curves = [Frontier(p, np.zeros((n, 3), dtype=np.int64), a * (1 - p / n) ** 2) for a in scales]
    first, second = (int(p[at]) for at in share_globally(curves, [1.0, 1.0], 1000))
    # a_1 (1 - x/n) = a_2 (1 - (1000 - x)/n)  =>  x = n (a_1 - a_2 + a_2 ...): 1 - x = 4 x  => x = 1/5
    assert first + second == 1000 and abs(first - 200) <= 1


def test_a_stack_may_be_left_whole_and_a_budget_too_small_is_refused() -> None:
    frontiers = [frontier(1, 4), frontier(2, 6)]
    assert share_globally(frontiers, [1, 1], 10**6) == [3, 5]
    with pytest.raises(InputError, match="budget 3 parameters: the least ranks of all stacks take .*; lower"):
        share_globally(frontiers, [1, 1], 3)


@pytest.mark.parametrize("seed", range(5))
def test_the_lower_hull_is_scipys(seed: int) -> None:
    found = frontier(seed, 30)
    x, y = found.parameters_n.astype(float), found.squared_n
    hull = ConvexHull(np.stack([x / x.max(), y], 1)).vertices
    line = y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0])
    expected = sorted(i for i in hull if y[i] <= line[i] + 1e-12)
    assert lower_hull(x, y).tolist() == expected


def test_importance_is_that_of_the_published_code() -> None:
    """sqrt(K) ||f||_2 * mass: even use gives 1, a single expert sqrt(K)."""
    assert importance(np.full(8, 5.0), np.full(8, 2.5)) == pytest.approx(0.5)
    assert importance(np.asarray([0.0, 12.0, 0.0]), np.asarray([0.0, 12.0, 0.0])) == pytest.approx(3**0.5)


def test_shares_follow_smoothed_importance_and_use_the_whole_budget() -> None:
    kept = share_by_importance([1.0, 2.0, 4.0], [100, 100, 100], 150)
    smooth = np.asarray([0.75 + 0.25 * 1.5, 1.5 + 0.25 * 2.5, 3.0 + 0.25 * 3.0])  # an edge is its own neighbour
    np.testing.assert_allclose(kept, 1.5 * smooth / smooth.sum())
    kept = share_by_importance([1.0, 1.0, 50.0], [100, 100, 100], 200)
    assert kept[2] == pytest.approx(0.999) and sum(kept) == pytest.approx(2.0), "what one cannot take the others get"
    assert share_by_importance([1.0, 1.0], [10, 30], 39.9999) == [0.999, 0.999]
