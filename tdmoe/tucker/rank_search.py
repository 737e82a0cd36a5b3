"""The exact error of every rank triple of a Tucker decomposition, and the best triple under a budget.

With orthonormal directions U of each mode (HOSVD) the squared error of keeping the first r_n of each is what the core
holds outside of that block. By inclusion and exclusion

    err^2(r) = t_E + t_O + t_I - X_EO - X_EI - X_OI + X_EOI

t_n the tail of mode n, X_nm the energy beyond r_n and beyond r_m at once. An X needs the core's corner beyond the least
ranks of interest only, and those are bounded: max t_n <= err^2 <= sum t_n, so a triple whose largest tail exceeds the
smallest sum of tails within the budget cannot win. Cutting one mode alone needs no core at all.

Legend: E experts, O outputs, I inputs; a, b, c points of the rank grid of each mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmoe.numerics.gram import MODES
from tdmoe.numerics.products import mode_products
from tdmoe.numerics.ranks import ALIGNMENT, Ranks, Shape, named
from tdmoe.problems import InputError
from tdmoe.stacks.source import Device, WeightSource
from tdmoe.tucker.modes import Basis, Metrics

Vector = NDArray[np.float64]
Grid = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Frontier:
    """Triples from the smallest storage to the largest, the error falling: parameters (n,), ranks (n, 3), errors (n,).

    `squared_n` is the squared error over ||T||^2.
    """

    parameters_n: NDArray[np.int64]
    ranks_n3: NDArray[np.int64]
    squared_n: Vector

    def thinned(self, step: int) -> Frontier:
        """The last point of every `step` parameters, and the first and the last of all."""
        last = np.diff(self.parameters_n // step, append=-1) != 0
        last[0] = True
        return Frontier(self.parameters_n[last], self.ranks_n3[last], self.squared_n[last])


@dataclass(frozen=True)
class ErrorTable:
    """Squared errors over ||T||^2 of all triples of the grid, (a, b, c); the last point of a grid is full rank."""

    shape: Shape
    grid: Grid
    squared_abc: Vector

    def parameters(self) -> NDArray[np.int64]:
        """Stored parameters of every triple, full modes without a factor."""
        return grid_parameters(self.shape, self.grid)

    def allowed(self, budget: float, *, cut_experts: bool = False) -> Vector:
        """`squared_abc`, infinite where a triple exceeds `budget`; `cut_experts` leaves out the full expert rank."""
        errors = np.where(self.parameters() <= budget, self.squared_abc, np.inf)
        if cut_experts:
            errors[-1] = np.inf
        return errors

    def best(self, budget: float, *, cut_experts: bool = False) -> tuple[Ranks, float]:
        """(ranks, squared error) of the least error within `budget` parameters; of equals the smallest."""
        parameters, errors = self.parameters(), self.allowed(budget, cut_experts=cut_experts)
        if not np.isfinite(errors.min()):
            why = f"{named(self.shape)} takes at least {int(parameters.min()):,}"
            raise InputError("budget", f"{budget:,.0f} parameters", why, "lower the ratio")
        least = np.argwhere(errors == errors.min())
        a, b, c = min(least, key=lambda at: parameters[tuple(at)])
        return self._ranks(a, b, c), float(errors[a, b, c])

    def frontier(self, *, cut_experts: bool = False) -> Frontier:
        """Every triple that no other beats in both storage and error."""
        parameters, errors = self.parameters().ravel(), self.allowed(np.inf, cut_experts=cut_experts).ravel()
        order = np.lexsort((errors, parameters))
        earlier = np.concatenate([[np.inf], np.minimum.accumulate(errors[order])[:-1]])
        kept = order[errors[order] < earlier]
        at = np.unravel_index(kept, self.squared_abc.shape)
        ranks = np.stack([points[i] for points, i in zip(self.grid, at, strict=True)], axis=1)
        return Frontier(parameters[kept], ranks, errors[kept])

    def _ranks(self, a: int, b: int, c: int) -> Ranks:
        return Ranks(*(int(points[i]) for points, i in zip(self.grid, (a, b, c), strict=True)))


def rank_grid(shape: Shape, *, preserve_experts: bool = False, alignment: int = ALIGNMENT) -> Grid:
    """Every expert rank (only the full one where experts are preserved), aligned output and input ranks, full ones."""
    aligned = [np.unique([*range(alignment, size, alignment), size]) for size in shape[1:]]
    experts = np.arange(shape[0] if preserve_experts else 1, shape[0] + 1)
    return experts, aligned[0], aligned[1]


def grid_parameters(shape: Shape, grid: Grid) -> NDArray[np.int64]:
    """(a, b, c): what Ranks.parameters says of every triple."""
    a, b, c = np.ix_(*grid)
    factors = sum(np.where(points < size, points * size, 0) for points, size in zip((a, b, c), shape, strict=True))
    return np.asarray(a * b * c + factors, dtype=np.int64)


def interesting(bases: Mapping[str, Basis], shape: Shape, grid: Grid, budget: float, *, slack: float = 1.0) -> Grid:
    """The part of the grid, from a least rank of each mode up, outside of which no triple within `budget` can win.

    `slack`: nor come within that factor of the least squared error.
    """
    tails = grid_tails(bases, grid)
    fits = grid_parameters(shape, grid) <= budget
    if not fits.any():
        return grid
    t_a, t_b, t_c = np.ix_(*tails)
    lowest = np.maximum(np.maximum(t_a, t_b), t_c)
    bound = np.where(fits, t_a + t_b + t_c, np.inf).min()
    possible = np.argwhere(fits & (lowest <= slack * bound * (1 + 1e-6)))
    least = possible.min(axis=0)
    return grid[0][least[0] :], grid[1][least[1] :], grid[2][least[2] :]


def error_table(
    reader: WeightSource,
    metrics: Metrics,
    bases: Mapping[str, Basis],
    grid: Grid,
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> ErrorTable:
    """Exact squared errors of all triples of `grid` (each mode's points ascending, the last one full)."""
    least = [int(points[0]) for points in grid]
    beyond = {  # directions that some triple leaves out, as matrices that act on the weights
        m: _project(metrics, m, bases[m].U_NN[:, r:]) for m, r in zip(MODES, least, strict=True)
    }
    whole = {m: metrics[m].S_NN if m in metrics else None for m in MODES}
    cells = {m: _cells(points) for m, points in zip(MODES, grid, strict=True)}
    norm = float(bases["input"].energy_N.sum())

    def corner(Y: Tensor, modes: tuple[str, ...]) -> Vector:
        """Energy of Y beyond every point of the grid, over `modes`; the other axes are summed."""
        binned = _binned(Y, modes, cells)
        for axis in range(len(modes)):
            binned = np.flip(np.flip(binned, axis).cumsum(axis), axis)
            binned = np.concatenate([binned, np.zeros_like(binned.take([0], axis))], axis)
        return binned / norm

    def products(*A: Tensor | None) -> Tensor:
        return mode_products(reader, *A, dtype=dtype, device=device)

    E, O, I = MODES  # noqa: E741
    squared = sum(np.ix_(*grid_tails(bases, grid)), start=np.zeros(()))
    open_ = {m: beyond[m].shape[1] > 0 for m in MODES}
    if open_[E] and open_[O]:
        squared = squared - corner(products(beyond[E], beyond[O], whole[I]), (E, O))[:, :, None]
    if open_[E] and open_[I]:
        squared = squared - corner(products(beyond[E], whole[O], beyond[I]), (E, I))[:, None, :]
    if open_[O] and open_[I]:
        Y_EOI = products(None, beyond[O], beyond[I])
        squared = squared - corner(Y_EOI, (O, I))[None]
        if open_[E]:
            Y_ROI = torch.tensordot(beyond[E].T.to(Y_EOI), Y_EOI, 1)
            squared = squared + corner(Y_ROI, (E, O, I))
    return ErrorTable(reader.stack.shape, grid, np.maximum(squared, 0.0))


def _project(metrics: Metrics, mode: str, U_NR: Tensor) -> Tensor:
    return metrics[mode].project(U_NR) if mode in metrics else U_NR


def grid_tails(bases: Mapping[str, Basis], grid: Grid) -> list[Vector]:
    """Squared error over ||T||^2 of cutting one mode alone, at its points of the grid."""
    found = []
    for mode, points in zip(MODES, grid, strict=True):
        tail = bases[mode].tail()
        found.append((tail[torch.from_numpy(points)] / tail[0]).cpu().numpy())
    return found


def _binned(Y_RPQ: Tensor, modes: tuple[str, ...], cells: Mapping[str, NDArray[np.int64]]) -> Vector:
    """Energy of Y between the points of the grid, over `modes`; the other axes are summed. A slice at a time."""
    experts, outputs, inputs = MODES
    rows_aP, columns_cQ = (
        _indicator(cells[m], size, Y_RPQ.device) if m in modes else torch.ones(1, size, device=Y_RPQ.device).double()
        for m, size in zip((outputs, inputs), Y_RPQ.shape[1:], strict=True)
    )
    slices = torch.stack([rows_aP @ Y_PQ.square().double() @ columns_cQ.T for Y_PQ in Y_RPQ]).cpu().numpy()
    stacked = np.add.reduceat(slices, cells[experts], 0) if experts in modes else slices
    return np.asarray(stacked.sum(tuple(i for i, m in enumerate(MODES) if m not in modes)))


def _indicator(starts: NDArray[np.int64], size: int, device: torch.device) -> Tensor:
    """(cells, size): which directions lie in the cells that begin at `starts`; as a product it sums fastest."""
    sizes = torch.from_numpy(np.diff(starts, append=size))
    cell_N = torch.repeat_interleave(torch.arange(len(starts)), sizes)
    return torch.nn.functional.one_hot(cell_N, len(starts)).T.double().to(device)


def _cells(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bounds at which the directions beyond the first point change from one point of the grid to the next."""
    starts: NDArray[np.int64] = points[:-1] - points[0]
    return starts
