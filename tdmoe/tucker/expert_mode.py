"""Choice of cutting the expert mode of a Tucker decomposition or not, exact: from the errors of all rank triples.

With e(r) the relative error of ranks r (tdmoe/tucker/rank_search.py) and only triples of at most B stored parameters,

    curve          e(r_E) = min over (r_O, r_I) of e(r_E, r_O, r_I)           for r_E = 1..E, at constant storage
    gain           1 - min_{r_E < E} e(r_E) / e(E)
    price of mode  p_m(r) = min over r' < r_m of (e^2(r, r_m -> r') - e^2(r)) / parameters that this frees
    price_share    p_E / (p_E + min(p_O, p_I))    at the best triple that keeps every expert, (E, r_O, r_I)

`gain` is the paper's ablation without the accident of its ranks: above 0, experts share a subspace and cutting their
mode lowers the error; below 0, storage is better spent on keeping them all. `price_share` says how clear that is: the
multipliers of a constrained optimum, what a parameter is worth in the expert mode against the mode where it is worth
least. Above 1/2 the expert mode is the last that should give storage away, below it the first. (A price is the cheapest
step's, not the derivative: the first cut of a full mode has a factor to pay for.)

Legend: E experts; a, b, c points of the rank grid of expert, output and input mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tdmoe.numerics.gram import MODES
from tdmoe.numerics.ranks import Ranks, Shape
from tdmoe.tucker.modes import Basis
from tdmoe.tucker.rank_search import ErrorTable, Grid, grid_parameters, grid_tails


@dataclass(frozen=True)
class Point:
    """A triple of ranks: stored parameters, and squared error over ||T||^2."""

    ranks: Ranks
    parameters: int
    squared: float

    @property
    def error(self) -> float:
        """||T - T^|| / ||T||."""
        return float(self.squared**0.5)


@dataclass(frozen=True)
class Binding:
    """Experts `whole` against experts `cut` at equal storage; None where there is nothing to compare."""

    whole: Point
    cut: Point | None
    gain: float | None
    price_share: float | None

    @property
    def best(self) -> Point:
        """The lower error of the two; experts stay whole where neither is."""
        return self.cut if self.cut is not None and self.cut.squared < self.whole.squared else self.whole


def curve(table: ErrorTable, budget: float) -> list[Point]:
    """The best triple of every expert rank that fits `budget` parameters at all, ascending."""
    parameters, errors = table.parameters(), table.allowed(budget)
    flat_aX = errors.reshape(len(errors), -1)
    points = []
    for a, x in enumerate(flat_aX.argmin(axis=1)):
        if np.isfinite(flat_aX[a, x]):
            b, c = np.unravel_index(x, errors.shape[1:])
            points.append(_point(table, parameters, (a, int(b), int(c))))
    return points


def at_ranks(table: ErrorTable, ranks: Ranks) -> Point:
    """The point of those ranks, which must be of the grid."""
    return _point(table, table.parameters(), _place(table, ranks))


def binding(table: ErrorTable, budget: float) -> Binding | None:
    """The definitions above; None where no triple with every expert fits the budget."""
    points = curve(table, budget)
    if not points or points[-1].ranks.expert < table.shape[0]:
        return None
    whole, cut = points[-1], min(points[:-1], key=lambda point: point.squared, default=None)
    gain = None
    if cut is not None and whole.squared > 0.0:
        gain = 1.0 - cut.error / whole.error
    return Binding(whole, cut, gain, price_share(prices(table, whole.ranks)))


def prices(table: ErrorTable, ranks: Ranks) -> dict[str, float | None]:
    """Squared error (over ||T||^2) that each mode costs for every freed 1 % of the dense parameters, by its cheapest
    cut from `ranks`; None where no cut of that mode frees anything. Among the ranks of the grid."""
    parameters, errors = table.parameters(), table.squared_abc
    at = _place(table, ranks)
    percent = 0.01 * float(np.prod(table.shape, dtype=np.float64))
    found: dict[str, float | None] = {}
    for axis, mode in enumerate(MODES):
        line = tuple(slice(0, i) if n == axis else i for n, i in enumerate(at))
        freed = (parameters[at] - parameters[line]) / percent
        rates = (errors[line] - errors[at])[freed > 0] / freed[freed > 0]
        found[mode] = max(0.0, float(rates.min())) if rates.size else None
    return found


def price_share(found: Mapping[str, float | None]) -> float | None:
    """p_E / (p_E + the least of the other modes'); None where a mode has no price, or all are zero."""
    expert, others = found["expert"], [p for m, p in found.items() if m != "expert" and p is not None]
    if expert is None or not others or expert + min(others) == 0.0:
        return None
    return expert / (expert + min(others))


def curve_grid(
    bases: Mapping[str, Basis], shape: Shape, grid: Grid, budgets: Sequence[float], always: Sequence[Ranks] = ()
) -> Grid:
    """The part of the grid that the curve may need: every expert rank, and output and input ranks from a least one on.

    max t_n <= e^2 <= sum t_n with t the tails of the modes: at one expert rank a triple whose largest tail is not below
    the smallest sum of tails within the budget cannot win. `always` names triples of the grid that stay.
    """
    tails, parameters = grid_tails(bases, grid), grid_parameters(shape, grid)
    needed_bc = np.zeros(parameters.shape[1:], dtype=bool)
    needed_bc[-1, -1] = True
    for ranks in always:
        needed_bc[_index(grid[1], ranks.output), _index(grid[2], ranks.input)] = True
    t_b, t_c = tails[1][:, None], tails[2][None, :]
    for a, t_a in enumerate(tails[0]):
        highest_bc, lowest_bc = t_a + t_b + t_c, np.maximum(t_a, np.maximum(t_b, t_c))
        for budget in budgets:
            fits_bc = parameters[a] <= budget
            if fits_bc.any():
                bound = highest_bc[fits_bc].min()
                needed_bc |= fits_bc & ((lowest_bc < bound * (1 - 1e-6)) | (highest_bc == bound))
    rows, columns = needed_bc.any(axis=1), needed_bc.any(axis=0)
    return grid[0], grid[1][rows.argmax() :], grid[2][columns.argmax() :]


def _index(points: NDArray[np.int64], rank: int) -> int:
    """Index of a rank among the points of its mode."""
    at = int(np.searchsorted(points, rank))
    assert at < len(points) and points[at] == rank, "a rank of the grid"
    return at


def _place(table: ErrorTable, ranks: Ranks) -> tuple[int, int, int]:
    a, b, c = (_index(points, rank) for points, rank in zip(table.grid, ranks, strict=True))
    return a, b, c


def _point(table: ErrorTable, parameters: NDArray[np.int64], at: tuple[int, int, int]) -> Point:
    ranks = Ranks(*(int(points[i]) for points, i in zip(table.grid, at, strict=True)))
    return Point(ranks, int(parameters[at]), float(table.squared_abc[at]))
