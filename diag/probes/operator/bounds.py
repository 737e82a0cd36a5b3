"""Bounds on the operator error of a Tucker truncation over sigma_(k+1), the least that rank k can leave.

Corollary 1 of Rethinking, for an unfolding n cut to rank k and a tensor of d modes:

    ||E_(n)||_2 / sigma_(k+1) <= sqrt(d) sqrt(1 + sum_(i > k+1) (sigma_i / sigma_(k+1))^2)          (`paper`)

It supposes that the other modes lose about as much as mode n does, so it may be exceeded. What holds always, for HOSVD,
ST-HOSVD and HOOI started from one of them (De Lathauwer et al. 2000, Vannieuwenhoven et al. 2012), is

    ||E_(n)||_2 <= ||E||_F <= sqrt(sum over modes m of sum_(i > k_m) sigma_(m, i)^2)                 (`proven`)

For sigma_i ~ i^-alpha with alpha < 1/2 the first bound grows as N^(1/2 - alpha) with the size N of the mode. `growth`
measures that: k stays, the stack gets wider.

Legend: N size of a mode, k its rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diag.statistics.powerlaw import fit_indices, fit_rank_exponent
from tdmoe.numerics.gram import ModeGram
from tdmoe.numerics.spectrum import spectrum_of

Vector = NDArray[np.float64]

DIMENSIONS = 3
WIDTHS = (0.125, 0.25, 0.5, 0.75, 1.0)  # of a mode
LEAST_WIDTH = 8  # a power law through fewer points says nothing
KEPT = 4  # k is the smallest width over this
FLAT = 0.5  # alpha from which the bound does not grow


def paper(sigma: Vector, rank: int) -> float:
    """Corollary 1's right-hand side at rank k < N."""
    return math.sqrt(DIMENSIONS * float((sigma[rank:] ** 2).sum())) / float(sigma[rank])


def proven(spectra: Iterable[tuple[Vector, int]], sigma_next: float) -> float:
    """sqrt(sum of the tails of all modes, each with its rank) / sigma_(k+1)."""
    return math.sqrt(sum(float((sigma[rank:] ** 2).sum()) for sigma, rank in spectra)) / sigma_next


@dataclass(frozen=True)
class Width:
    """Corollary 1's bound on a sub-stack of that width at the rank `k`, and the exponent refitted there."""

    width: int
    k: int
    alpha: float
    bound: float


@dataclass(frozen=True)
class Growth:
    """Slopes of log bound on log width: measured, predicted as 1/2 - alpha, and of exact power laws with each alpha.

    The prediction is what remains for N far above k; the power laws have the widths and the rank that were measured.
    """

    widths: tuple[Width, ...]
    measured: float | None
    predicted: float | None
    power_law: float | None


def growth(gram: ModeGram, axis: int, shape: tuple[int, int, int], generator: torch.Generator) -> Growth:
    """Growth of the bound with a mode: nested random parts of its indices, whose Grams are blocks of the whole one."""
    size = shape[axis]
    order = torch.randperm(size, generator=generator)
    sizes = sorted({width for part in WIDTHS if (width := round(part * size)) >= LEAST_WIDTH})
    found: list[Width] = []
    for width in sizes:
        some = order[:width].sort().values
        part: tuple[int, int, int] = tuple(width if a == axis else n for a, n in enumerate(shape))  # type: ignore[assignment]
        spectrum = spectrum_of(ModeGram(gram.gram[some][:, some], gram.product_error), part, "")
        k = max(1, sizes[0] // KEPT)
        if spectrum is None or len(spectrum.sigma) <= k or spectrum.sigma[k] <= spectrum.noise_floor:
            continue
        fit = fit_rank_exponent(spectrum.sigma, *fit_indices(spectrum.sigma, spectrum.noise_floor))
        if fit.alpha is not None:
            found.append(Width(width, k, fit.alpha, paper(spectrum.sigma, k)))
    if len(found) < 3:
        return Growth(tuple(found), None, None, None)
    alpha = float(np.mean([at.alpha for at in found]))
    laws = [paper(np.exp(-at.alpha * np.log(np.arange(1.0, at.width + 1))), at.k) for at in found]
    measured, power_law = (_slope(found, values) for values in ([at.bound for at in found], laws))
    return Growth(tuple(found), measured, max(0.0, FLAT - alpha), power_law)


def _slope(found: list[Width], values: list[float]) -> float:
    return float(np.polyfit(np.log([at.width for at in found]), np.log(values), 1)[0])
