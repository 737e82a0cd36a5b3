"""The ranks of a stack under a budget, by the error that is asked for.

The energy of the core gives the error of every triple, but in the metric that was decomposed in. Operator norms have no
such table at all. Where another error is to be minimised, the factors of a few triples are made and measured: all near
the least error of the table, all different from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from tdmoe.numerics.errors import Kind, stack_errors
from tdmoe.numerics.ranks import Ranks
from tdmoe.stacks.source import WeightSource
from tdmoe.tucker.decomposition import finish, hosvd
from tdmoe.tucker.modes import Basis, Metrics
from tdmoe.tucker.rank_search import ErrorTable, Grid, error_table, interesting

CANDIDATES = 8
SLACK = 2.0  # times the least squared error of the table that a candidate may have
APART = 0.1  # by how much two candidates differ in a rank, of its size


def best_ranks(
    reader: WeightSource,
    metrics: Metrics,
    bases: Mapping[str, Basis],
    grid: Grid,
    budget: float,
    *,
    cut_experts: bool = False,
    measure: Callable[[Ranks], float] | None = None,
    **how: Any,
) -> Ranks:
    """The triple of the least error within `budget` parameters: of the table, or by `measure` among its best."""
    if not cut_experts:  # the bounds count on the full mode
        grid = interesting(bases, reader.stack.shape, grid, budget, slack=1.0 if measure is None else SLACK)
    table = error_table(reader, metrics, bases, grid, **how)
    if measure is None:
        return table.best(budget, cut_experts=cut_experts)[0]
    return min(candidates(table, budget, cut_experts=cut_experts), key=measure)


def candidates(table: ErrorTable, budget: float, *, cut_experts: bool = False, count: int = CANDIDATES) -> list[Ranks]:
    """The best triple of the table, then the next ones that differ from all before."""
    best, least = table.best(budget, cut_experts=cut_experts)
    errors = table.allowed(budget, cut_experts=cut_experts)
    near = np.argwhere(errors <= SLACK * least)
    near = near[np.argsort(errors[tuple(near.T)], kind="stable")]
    triples = np.stack([points[near[:, axis]] for axis, points in enumerate(table.grid)], axis=1)
    apart = APART * np.asarray(table.shape)
    found = [best]
    left = triples
    while len(found) < count:
        left = left[(np.abs(left - np.asarray(found[-1])) >= apart).any(axis=1)]
        if not len(left):
            break
        found.append(Ranks(*map(int, left[0])))
    return found


def measured_error(
    reader: WeightSource, metrics: Metrics, bases: Mapping[str, Basis], objective: Kind, C_II: Tensor | None, **how: Any
) -> Callable[[Ranks], float]:
    """The error `objective` of the HOSVD with given ranks."""

    def measure(ranks: Ranks) -> float:
        made = finish(reader, metrics, hosvd(bases, ranks), **how)
        errors = stack_errors(reader, made.members, C_II, device=how["device"], kinds=(objective,))
        return float(getattr(errors, objective))

    return measure
