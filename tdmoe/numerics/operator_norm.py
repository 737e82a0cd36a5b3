"""Spectral norms as intervals, from Gram matrices of residuals: the lower end attained, the upper end certain.

    lower   sqrt of the largest Ritz value of G = X X^T: Lanczos iteration with full reorthogonalisation
    upper   (1 + TIGHT) lower, once a Cholesky factorisation of upper^2 - G shows that no eigenvalue lies above it

Both ends hold in the rounding of the Gram (float32 products: about 1e-6 of the norm). The factorisation takes the place
of the probabilistic bound on a power method's error (Kuczynski & Wozniakowski 1992): it is certain, and costs N^3 / 3.
Where it fails, and for small matrices, the largest eigenvalue itself is computed and the ends are the same.

Legend: N size of a Gram, B Grams, M vectors of a Krylov space.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmoe.numerics import lapack
from tdmoe.numerics.eigen import is_positive_definite, largest_eigenvalue
from tdmoe.numerics.precision import full_precision

Vector = NDArray[np.float64]

SMALL = 256  # all eigenvalues of several such matrices, in one batched call, cost no more than a Krylov space
TIGHT = 1e-4  # relative width of an interval
STEPS, MOST_STEPS = 12, 120  # of Lanczos between two looks at the Ritz value, and in all
SETTLED = 1e-6  # relative change of the Ritz value from one look to the next
UPPER_ENDS = ("closed_form", "eigenvalue", "cholesky")  # from the tightest to the loosest


@dataclass(frozen=True)
class Norms:
    """Intervals of several spectral norms; `upper_end` says how the loosest of the upper ends was found."""

    lower_B: Vector
    upper_B: Vector
    upper_end: str

    @staticmethod
    def known(norms_B: Vector) -> Norms:
        """Norms from a closed form."""
        return Norms(norms_B, norms_B, "closed_form")

    @staticmethod
    def joined(parts: Iterable[Norms]) -> Norms:
        """One after the other."""
        found = list(parts)
        ends = max((part.upper_end for part in found), key=UPPER_ENDS.index)
        lower_B, upper_B = (np.concatenate(both) for both in zip(*((p.lower_B, p.upper_B) for p in found), strict=True))
        return Norms(lower_B, upper_B, ends)


def norms_of_grams(G_BNN: Tensor, seed: int = 0) -> Norms:
    """||X_b||_2 from X_b X_b^T; `seed` starts the Krylov spaces."""
    if not G_BNN.shape[-1]:
        return Norms.known(np.zeros(len(G_BNN)))
    if G_BNN.shape[-1] <= SMALL:
        values_B = lapack.eigvalsh(G_BNN.double())[:, -1].clamp(min=0.0)
        norms = values_B.sqrt().cpu().numpy()
        return Norms(norms, norms, "eigenvalue")
    with full_precision():
        return Norms.joined(_interval(G_NN, seed) for G_NN in G_BNN)


def norms_of_matrices(X_BOI: Tensor) -> Norms:
    """||X_b||_2 of every matrix: of large ones from float32 products, in whose rounding the intervals hold."""
    X_BNK = X_BOI if X_BOI.shape[1] <= X_BOI.shape[2] else X_BOI.mT
    with full_precision():
        if X_BNK.shape[1] <= SMALL:
            X_BNK = X_BNK.double()
            return norms_of_grams(X_BNK @ X_BNK.mT)
        return Norms.joined(_interval(X_NK @ X_NK.T, seed=0) for X_NK in X_BNK)


def _interval(G_NN: Tensor, seed: int) -> Norms:
    scale = float(G_NN.diagonal().sum(dtype=torch.float64))
    if scale <= 0.0:
        return Norms(np.zeros(1), np.zeros(1), "eigenvalue")
    G_NN = G_NN / scale  # the products of small squares would underflow
    value = largest_ritz_value(G_NN, seed)
    G_NN = G_NN.double()
    certain = _none_above(G_NN, value * (1 + TIGHT) ** 2)
    if not certain:
        value = max(0.0, largest_eigenvalue(G_NN.cpu()))
    lower = np.array([(scale * value) ** 0.5])
    return Norms(lower, lower * (1 + TIGHT), "cholesky") if certain else Norms(lower, lower, "eigenvalue")


def largest_ritz_value(G_NN: Tensor, seed: int) -> float:
    """The largest eigenvalue on a Krylov space that grows until the value settles: never above the true one."""
    size, generator = len(G_NN), torch.Generator().manual_seed(seed)
    most = min(MOST_STEPS, size)
    V_MN = torch.zeros(most, size, dtype=G_NN.dtype, device=G_NN.device)
    v_N = torch.randn(size, dtype=G_NN.dtype, generator=generator).to(G_NN.device)
    diagonal, beside, value = np.zeros(most), np.zeros(most), 0.0
    for m in range(most):
        V_MN[m] = v_N / v_N.norm()
        v_N = G_NN @ V_MN[m]
        diagonal[m] = float(v_N @ V_MN[m])
        for _ in range(2):
            v_N = v_N - V_MN[: m + 1].T @ (V_MN[: m + 1] @ v_N)
        beside[m] = float(v_N.norm())
        ended = beside[m] <= 1e-14 * diagonal[: m + 1].max() or m + 1 == most
        if ended or (m + 1) % STEPS == 0:
            before, value = value, _largest_of_tridiagonal(diagonal[: m + 1], beside[:m])
            if ended or value - before <= SETTLED * value:
                break
    return value


def _largest_of_tridiagonal(diagonal_M: Vector, beside_M: Vector) -> float:
    T_MM = np.diag(diagonal_M) + np.diag(beside_M, 1) + np.diag(beside_M, -1)
    return float(np.linalg.eigvalsh(T_MM)[-1])


def _none_above(G_NN: Tensor, limit: float) -> bool:
    """Tell whether limit - G is positive definite."""
    shifted_NN = -G_NN
    shifted_NN.diagonal().add_(limit)
    return is_positive_definite(shifted_NN)
