"""One budget of parameters, shared among the stacks of a model.

    global      min sum_s w_s err_s^2(r_s)  subject to  sum_s parameters_s(r_s) <= budget
    activation  parameters of a layer proportional to how evenly and how surely its experts are used (published)

`global` is one Lagrange multiplier over the lower convex hulls of (parameters, w err^2): the pieces of all hulls in the
order of what a parameter gains, until the budget is spent (Shoham & Gersho 1988). The rest, less than the next piece,
goes to points of the frontiers between the hulls' corners, for as long as the sum falls. One stack may give up a point
so that another can take one.

Legend: n points of a frontier, L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tdmoe.problems import InputError
from tdmoe.tucker.rank_search import Frontier

SMOOTHING = 0.25  # of a layer's importance that its neighbours have a say in
MOST_KEPT = 0.999  # of a stack whose ranks are searched for

Vector = NDArray[np.float64]


def share_globally(frontiers: Sequence[Frontier], weights: Sequence[float], budget: float) -> list[int]:
    """The point of every frontier; InputError where even the smallest ones exceed the budget."""
    costs = [weight * frontier.squared_n for weight, frontier in zip(weights, frontiers, strict=True)]
    parameters = [frontier.parameters_n for frontier in frontiers]
    chosen = [0] * len(frontiers)
    left = budget - sum(int(p[0]) for p in parameters)
    if left < 0:
        least = f"the least ranks of all stacks take {budget - left:,.0f}"
        raise InputError("budget", f"{budget:,.0f} parameters", least, "lower the ratio")
    pieces: list[tuple[float, int, int]] = []
    for stack, (p, cost) in enumerate(zip(parameters, costs, strict=True)):
        corners = lower_hull(p.astype(np.float64), cost)
        gains = -np.diff(cost[corners]) / np.diff(p[corners])
        pieces += [(-gain, stack, int(end)) for gain, end in zip(gains.tolist(), corners[1:], strict=True)]
    for _, stack, end in sorted(pieces):
        needed = int(parameters[stack][end] - parameters[stack][chosen[stack]])
        if needed > left:
            break
        chosen[stack], left = end, left - needed
    while (better := _step(parameters, costs, chosen, left) or _exchange(parameters, costs, chosen, left)) is not None:
        chosen = better
        left = budget - sum(int(p[at]) for p, at in zip(parameters, chosen, strict=True))
    return chosen


def lower_hull(x_n: Vector, y_n: Vector) -> NDArray[np.int64]:
    """Indices of the corners of the lower convex hull, x ascending (Andrew 1979)."""
    corners: list[int] = []
    for i in range(len(x_n)):
        while len(corners) >= 2:
            a, b = corners[-2:]
            if (y_n[b] - y_n[a]) * (x_n[i] - x_n[a]) < (y_n[i] - y_n[a]) * (x_n[b] - x_n[a]):
                break
            corners.pop()
        corners.append(i)
    return np.asarray(corners)


def _step(
    parameters: Sequence[NDArray[np.int64]], costs: Sequence[Vector], chosen: list[int], left: float
) -> list[int] | None:
    """The one step up that gains most of all that still fit."""
    ends = [int(np.searchsorted(p, p[at] + left, side="right")) - 1 for p, at in zip(parameters, chosen, strict=True)]
    gains = [float(cost[at] - cost[end]) for cost, at, end in zip(costs, chosen, ends, strict=True)]
    best = int(np.argmax(gains))
    if gains[best] <= 0.0:
        return None
    return [*chosen[:best], ends[best], *chosen[best + 1 :]]


def _exchange(
    parameters: Sequence[NDArray[np.int64]], costs: Sequence[Vector], chosen: list[int], left: float
) -> list[int] | None:
    """The step down of one stack and up of another that gain most together; None if no two gain anything."""
    best: tuple[float, list[int]] | None = None
    for stack, at in enumerate(chosen):
        if at == 0:
            continue
        lower = [*chosen[:stack], at - 1, *chosen[stack + 1 :]]
        freed = int(parameters[stack][at] - parameters[stack][at - 1])
        if (higher := _step(parameters, costs, lower, left + freed)) is None:
            continue
        gain = sum(float(cost[a] - cost[b]) for cost, a, b in zip(costs, chosen, higher, strict=True))
        if gain > 0.0 and (best is None or gain > best[0]):
            best = gain, higher
    return None if best is None else best[1]


def importance(tokens_E: Vector, gate_E: Vector) -> float:
    """sqrt(E) ||f||_2 * mass of a layer, as in the TD-MoE re-implementation (Tangshengku/TD-MoE, `router`).

    f is the share of routed tokens that each expert had; the mass is the mean routing weight, as the experts are given
    it (a router that normalises the weights of the chosen experts has the same mass in every layer).
    """
    routed = tokens_E.sum()
    return float(np.sqrt(len(tokens_E)) * np.linalg.norm(tokens_E / routed) * gate_E.sum() / routed)


def share_by_importance(importances: Sequence[float], sizes: Sequence[int], budget: float) -> list[float]:
    """Fraction of each layer's parameters that stays, proportional to its smoothed importance.

    Neighbours are those of the list. A layer is never given more than MOST_KEPT of itself; what it cannot take goes to
    the others (the published code loses it, and with it the budget).
    """
    v = np.asarray(importances, dtype=np.float64)
    padded = np.pad(v, 1, mode="edge")
    v = (1 - SMOOTHING) * v + SMOOTHING * (padded[:-2] + padded[2:]) / 2
    most = MOST_KEPT * np.asarray(sizes, dtype=np.float64)
    if budget >= most.sum():
        return [MOST_KEPT] * len(v)
    given, open_ = np.zeros_like(v), np.ones(len(v), dtype=bool)
    while True:
        given[open_] = (budget - given[~open_].sum()) * v[open_] / v[open_].sum()
        over = open_ & (given > most)
        if not over.any():
            return list(given / np.asarray(sizes))
        given[over], open_ = most[over], open_ & ~over
