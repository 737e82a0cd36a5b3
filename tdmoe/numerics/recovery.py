"""Recovery of single entries of a matrix by its truncated SVD, at every rank in one pass over the components.

    W = sum_n sigma_n u_n v_n^T,   w^_ij(k) = sum_{n <= k} c_ij,n,   c_ij,n = u_in sigma_n v_jn

No reconstruction is formed. With V the eigenvectors of the smaller Gram W^T W, sigma_n u_n = W v_n, so the components
of an entry are

    c_ij,n = (W V)_in V_jn

without a division by a singular value: only the rows and columns of the entries that are asked for are multiplied.
An entry is recovered at rank k if |w^_ij(k) - w_ij| <= max(1e-6, 0.05 |w_ij|) (the rule of Rethinking's notebook). The
test is pointwise, so that an entry may be lost again at a higher rank; from `stays_from` on it no longer is.

Legend: O outputs, I inputs, N = min(O, I) components, P entries, L rows (or columns) that hold entries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tdmoe.numerics.eigen import eigenvectors
from tdmoe.numerics.precision import full_precision
from tdmoe.problems import InputError

ABSOLUTE, RELATIVE = 1e-6, 0.05  # tolerance of the published rule
CHUNK_BYTES = 64 << 20  # of one float64 table (entries, components)


@dataclass(frozen=True)
class Curves:
    """Recovery of P entries over ranks 1..N. Ranks and components count from 1; `share` is of sum_n |c_n|.

    `half_P`: the smallest rank whose components hold half of that sum.
    """

    recovered_PN: Tensor
    stays_from_P: Tensor
    dominant_P: Tensor
    dominant_share_P: Tensor
    half_P: Tensor
    sigma_N: Tensor

    @property
    def first_P(self) -> Tensor:
        """The smallest rank at which each entry is recovered, whether or not it stays so."""
        return self.recovered_PN.to(torch.uint8).argmax(1) + 1

    def recovered(self, ranks: Tensor, among_P: Tensor) -> Tensor:
        """Share of the entries `among_P` (indices) that are recovered at each of `ranks`."""
        return self.recovered_PN[among_P][:, ranks - 1].double().mean(0)

    def stays(self, ranks: Tensor, among_P: Tensor) -> Tensor:
        """Share of them that are recovered at this and at every higher rank."""
        return (self.stays_from_P[among_P, None] <= ranks).double().mean(0)


@dataclass(frozen=True)
class Components:
    """W, or its transpose where that is taller, with the eigenvectors of its Gram: J is the smaller side."""

    W_KJ: Tensor
    V_JN: Tensor
    sigma_N: Tensor
    transposed: bool

    def of(self, row_P: Tensor, column_P: Tensor) -> Tensor:
        """c_PN of entries (row, column)."""
        k_P, j_P = (column_P, row_P) if self.transposed else (row_P, column_P)
        k_L, at_P = k_P.unique(return_inverse=True)
        with full_precision():
            return (self.W_KJ[k_L] @ self.V_JN)[at_P] * self.V_JN[j_P]


def components(W_OI: Tensor) -> Components:
    """Components of one matrix, in float64: a Gram of the smaller side and its eigenvectors."""
    W_KJ = W_OI.double()
    if transposed := W_OI.shape[0] < W_OI.shape[1]:
        W_KJ = W_KJ.T
    with full_precision():
        values_N, V_JN = eigenvectors(W_KJ.T @ W_KJ)
    return Components(W_KJ, V_JN, values_N.clamp(min=0).sqrt(), transposed)


def recovered(estimate_P: Tensor, w_P: Tensor) -> Tensor:
    """The published rule, pointwise; the estimate may have more dimensions behind P."""
    w = w_P.view(-1, *(1,) * (estimate_P.ndim - 1))
    return (estimate_P - w).abs() <= (RELATIVE * w.abs()).clamp(min=ABSOLUTE)


def recovery_curves(W_OI: Tensor, row_P: Tensor, column_P: Tensor, chunk_bytes: int = CHUNK_BYTES) -> Curves:
    """All ranks of all entries (row, column), exactly; memory: W in float64, its Gram twice, and one chunk.

    InputError where an entry lies outside the matrix.
    """
    outputs, inputs = W_OI.shape
    row_P, column_P = (index.to(W_OI.device) for index in (row_P, column_P))
    _check(row_P, "row", outputs)
    _check(column_P, "column", inputs)
    found = components(W_OI)
    size = max(1, chunk_bytes // (8 * len(found.sigma_N)))
    parts = [
        _curves(found.of(row_S, column_S), W_OI[row_S, column_S].double())
        for row_S, column_S in zip(row_P.split(size), column_P.split(size), strict=True)
    ]
    recovered_PN, stays_P, dominant_P, share_P, half_P = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return Curves(recovered_PN, stays_P, dominant_P, share_P, half_P, found.sigma_N.cpu())


def _curves(c_PN: Tensor, w_P: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    recovered_PN = recovered(c_PN.cumsum(1), w_P)
    count = c_PN.shape[1]
    lost_last_P = count - recovered_PN.flip(1).to(torch.uint8).argmin(1)  # the highest rank at which it is lost
    stays_P = torch.where(recovered_PN.all(1), torch.ones_like(lost_last_P), lost_last_P + 1)
    size_PN = c_PN.abs()
    total_P = size_PN.sum(1)
    dominant_P = size_PN.argmax(1)
    share_P = size_PN.amax(1) / total_P.clamp(min=torch.finfo(torch.float64).tiny)
    half_P = (size_PN.cumsum(1) < 0.5 * total_P[:, None]).sum(1) + 1
    return recovered_PN, stays_P, dominant_P + 1, share_P, half_P


def _check(index_P: Tensor, side: str, size: int) -> None:
    if len(index_P) and not 0 <= int(index_P.min()) <= int(index_P.max()) < size:
        wrong = int(index_P.max()) if int(index_P.max()) >= size else int(index_P.min())
        raise InputError(f"{side} {wrong}", why=f"the matrix has {side}s 0 to {size - 1}", remedy="give one of these")
