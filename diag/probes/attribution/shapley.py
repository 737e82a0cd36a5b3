"""Shapley values: one difference shared among switches, whatever their order (Shapley 1953).

With v(S) the loss removed by the coalition S of switches, v(empty) = 0,

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) - v(S))

the mean of what i removes when it is switched on, over all orders of switching the n on; or over some orders, drawn
without replacement. Either way sum_i phi_i = v(all). Values are linear in v, so a window has values of its own, and so
has an order; the value is the mean of these, its interval that of resampled windows, and orders where some were drawn.

Legend: W windows, K orders (1 where all of them are in one), B bootstrap samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, permutations

import numpy as np
from numpy.typing import NDArray

from diag.statistics.gap import Vector

Coalition = frozenset[str]
Losses = Mapping[Coalition, NDArray[np.float64]]  # (W,) of each

EXACT_SWITCHES = 7  # up to so many, all coalitions are measured by default
DRAWN_ORDERS = 16  # otherwise


def subsets(switches: Sequence[str]) -> list[Coalition]:
    """All coalitions, smallest first."""
    return [frozenset(chosen) for size in range(len(switches) + 1) for chosen in combinations(switches, size)]


def drawn_orders(switches: Sequence[str], count: int, seed: int) -> list[tuple[str, ...]]:
    """`count` different orders; all of them where there are no more."""
    if count >= math.factorial(len(switches)):
        return list(permutations(switches))
    random = np.random.default_rng([seed, len(switches)])
    found: dict[tuple[str, ...], None] = {}
    while len(found) < count:
        found[tuple(switches[i] for i in random.permutation(len(switches)))] = None
    return list(found)


def prefixes(orders: Sequence[Sequence[str]]) -> list[Coalition]:
    """The coalitions that these orders go through, smallest first, each once."""
    found = {frozenset(order[:size]): None for order in orders for size in range(len(order) + 1)}
    return sorted(found, key=lambda coalition: (len(coalition), sorted(coalition)))


def exact(losses: Losses, switches: Sequence[str]) -> dict[str, Vector]:
    """(1, W) of every switch, over all orders, from the losses of all coalitions."""
    count = len(switches)
    found = {name: np.zeros((1, len(losses[frozenset()]))) for name in switches}
    for coalition in subsets(switches):
        weight = math.factorial(len(coalition)) * math.factorial(max(0, count - len(coalition) - 1))
        for name in switches:
            if name not in coalition:
                found[name] += weight / math.factorial(count) * (losses[coalition] - losses[coalition | {name}])
    return found


def by_orders(losses: Losses, orders: Sequence[Sequence[str]]) -> dict[str, Vector]:
    """(K, W) of every switch: what it removes where each order has it."""
    found: dict[str, list[Vector]] = {name: [] for name in orders[0]}
    for order in orders:
        for size, name in enumerate(order):
            before = frozenset(order[:size])
            found[name].append(losses[before] - losses[before | {name}])
    return {name: np.stack(removed) for name, removed in found.items()}


def sampled(removed_KW: Vector, weights_BK: Vector, weights_BW: Vector) -> Vector:
    """(B,) the mean over drawn orders and drawn windows."""
    found_B: Vector = ((weights_BK @ removed_KW) * weights_BW).sum(1)
    return found_B
