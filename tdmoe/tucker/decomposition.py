"""Tucker decomposition of a (whitened) expert stack: HOSVD, ST-HOSVD and HOOI, from mode Grams, block by block.

    T ~ G x_expert U_E x_output U_O x_input U_I,   orthonormal factors, so   ||T - T^||^2 = ||T||^2 - ||G||^2

HOSVD takes each mode's leading eigenvectors (De Lathauwer et al. 2000a); ST-HOSVD cuts one mode after the other and
looks only at what is left (Vannieuwenhoven et al. 2012); HOOI improves one factor at a time with the others fixed,
which can only lower the error (De Lathauwer et al. 2000b). A mode at full rank has no factor.

Legend: E experts, O outputs, I inputs; R, P, Q their ranks; N size of a mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmoe.forms.tucker import TuckerWeights
from tdmoe.numerics.gram import MODES
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import mode_products
from tdmoe.numerics.ranks import Ranks
from tdmoe.stacks.source import WeightSource
from tdmoe.tucker.modes import Basis, Metrics, basis

TOLERANCE = 1e-4  # of ||T - T^||^2 that a sweep must gain for another one
SWEEPS = 10
GRAM_COLUMNS = 1 << 16  # of an unfolding that are multiplied at once

Factors = Mapping[str, Tensor]  # orthonormal U by mode; a mode at full rank has none


@dataclass(frozen=True)
class Sweeps:
    """Course of HOOI: squared error over ||T||^2 at the start and after each sweep; whether it stopped by itself."""

    squared_errors: tuple[float, ...]
    converged: bool


def hosvd(bases: Mapping[str, Basis], ranks: Ranks) -> dict[str, Tensor]:
    """The leading directions of every mode that is cut."""
    return {m: bases[m].U_NN[:, :rank] for m, rank in zip(MODES, ranks, strict=True) if rank < bases[m].U_NN.shape[0]}


def st_hosvd(
    reader: WeightSource,
    metrics: Metrics,
    ranks: Ranks,
    *,
    first: Mapping[str, Basis] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor]:
    """One mode after the other, the one that shrinks the stack most first; `first` may hold its basis."""
    factors: dict[str, Tensor] = {}
    for mode in cutting_order(reader.stack.shape, ranks):
        known = (first or {}).get(mode) if not factors else None
        found = known or basis(projected_gram(reader, metrics, factors, mode, dtype, device))
        factors[mode] = found.U_NN[:, : ranks[MODES.index(mode)]]
    return {m: factors[m] for m in MODES if m in factors}


def cutting_order(shape: Sequence[int], ranks: Ranks) -> list[str]:
    """Modes that are cut, by the numbers that cutting them saves in the next products."""
    saved = {m: (n - r) / n for m, n, r in zip(MODES, shape, ranks, strict=True) if r < n}
    return sorted(saved, key=lambda m: -saved[m])


def hooi(
    reader: WeightSource,
    metrics: Metrics,
    start: Factors,
    norm_squared: float,
    *,
    sweeps: int = SWEEPS,
    tolerance: float = TOLERANCE,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Tensor], Sweeps]:
    """Improve `start` mode by mode, until a sweep gains less than `tolerance` of the squared error.

    `norm_squared` is ||T||^2. With at most one mode cut the start is the optimum already. The squared errors never
    rise, beyond rounding in `dtype`: a sweep that would is not taken.
    """
    factors = dict(start)
    if norm_squared <= 0.0:
        return factors, Sweeps((0.0,), True)
    errors = [_squared_error(reader, metrics, factors, norm_squared, dtype, device)]
    if len(factors) < 2:
        return factors, Sweeps(tuple(errors), True)
    for _ in range(sweeps):
        tried = dict(factors)
        for mode in factors:
            others = {m: U for m, U in tried.items() if m != mode}
            found = basis(projected_gram(reader, metrics, others, mode, dtype, device))
            rank = factors[mode].shape[1]
            tried[mode] = found.U_NN[:, :rank]
        error = max(0.0, 1.0 - float(found.energy_N[:rank].sum()) / norm_squared)
        if error > errors[-1]:
            return factors, Sweeps(tuple(errors), True)
        factors, gain = tried, errors[-1] - error
        errors.append(error)
        if gain <= tolerance * error:
            return factors, Sweeps(tuple(errors), True)
    return factors, Sweeps(tuple(errors), False)


def finish(
    reader: WeightSource,
    metrics: Metrics,
    factors: Factors,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> TuckerWeights:
    """Core and factors of the weights themselves: the metric of a cut mode is undone in its factor.

    A mode that is not cut keeps all of T, so its metric cancels and the raw weights are used. For a cut output mode
    alone this is COALA's inversion-free W^ = U U^T W.
    """
    projectors = {m: metrics[m].project(U) if m in metrics else U for m, U in factors.items()}
    core = mode_products(reader, *(projectors.get(m) for m in MODES), dtype=dtype, device=device)
    stored = {m: metrics[m].undo(U) if m in metrics else U for m, U in factors.items()}
    return TuckerWeights(core, *(None if m not in stored else stored[m].to(dtype) for m in MODES))


def projected_gram(
    reader: WeightSource, metrics: Metrics, factors: Factors, mode: str, dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """Gram of `mode` of T x_m U_m^T over the modes of `factors`, in float64.

    The mode's own metric is applied to the Gram, that of another mode that is not cut to the weights.
    """
    projectors: list[Tensor | None] = []
    for m in MODES:
        U = factors.get(m)
        if m == mode or (U is None and m not in metrics):
            projectors.append(None)
        elif U is None:
            projectors.append(metrics[m].S_NN)
        else:
            projectors.append(metrics[m].project(U) if m in metrics else U)
    Y_RPQ = mode_products(reader, *projectors, dtype=dtype, device=device)
    G_NN = unfolding_gram(Y_RPQ, MODES.index(mode))
    return metrics[mode].gram(G_NN.to(metrics[mode].S_NN)) if mode in metrics else G_NN


def unfolding_gram(Y_RPQ: Tensor, axis: int) -> Tensor:
    """Y_(n) Y_(n)^T in float64: the unfolding is never made, products run over slices of it."""
    size = Y_RPQ.shape[axis]
    G_NN = torch.zeros(size, size, dtype=torch.float64, device=Y_RPQ.device)
    with full_precision():
        if axis == 0:
            for Y_RK in Y_RPQ.flatten(1).split(GRAM_COLUMNS, dim=1):
                G_NN += Y_RK @ Y_RK.T
        else:
            for Y_PQ in Y_RPQ:
                G_NN += Y_PQ @ Y_PQ.T if axis == 1 else Y_PQ.T @ Y_PQ
    return G_NN


def _squared_error(
    reader: WeightSource,
    metrics: Metrics,
    factors: Factors,
    norm_squared: float,
    dtype: torch.dtype,
    device: torch.device | str,
) -> float:
    if not factors:
        return 0.0
    mode, *_ = factors
    others = {m: U for m, U in factors.items() if m != mode}
    G_NN = projected_gram(reader, metrics, others, mode, dtype, device)
    U = factors[mode].to(G_NN)
    return max(0.0, 1.0 - float(((U.T @ G_NN) * U.T).sum()) / norm_squared)
