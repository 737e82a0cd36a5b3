"""The three mode Gram matrices of a WeightStack, accumulated in float64 without a copy of any unfolding.

    G_EE[e, f] = <W_e, W_f>     G_OO = sum_e W_e W_e^T     G_II = sum_e W_e^T W_e

Their eigenvalues are the squared singular values of the expert, output and input unfoldings (De Lathauwer et al.
2000, HOSVD). Products run in float32 (bf16 weights multiply exactly in it) over the sums of one block, which are added
up in float64, and only the upper triangle is computed.

Long float32 sums of squares are biased: squares of bf16 numbers are not spread evenly modulo powers of two (0, 1 or 4
modulo 8), so they round down more often than up. A diagonal from the product comes out 1e-7 to 5e-7 too small
everywhere. So the diagonal is summed apart, in short pieces (where such sums are still exact) and then in float64. What
float32 loses all the same is estimated, not assumed: on some blocks, by block power iteration on (computed Gram -
float64 operator).

Legend: E experts, O output features, I input features, B experts of a block, R rows and C columns as stored, N mode
size, K summed-over weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmoe.numerics import lapack
from tdmoe.numerics.precision import full_precision
from tdmoe.stacks.blocks import STRIP_WEIGHTS
from tdmoe.stacks.source import WeightSource

MODES = ("expert", "output", "input")
# Size of the squares on the diagonal, whose lower halves are computed in vain; a GPU wants larger products.
PANEL, GPU_PANEL = 128, 1024
TENSOR_CORE_TERMS = 1024  # of one tensor-core sum: they truncate where others round
MEASURED_ADDENDS = (0, 4, 16)  # blocks whose rounding error is measured; the worst stands for all
EXACT_WEIGHTS = 1 << 19  # converted to float64 at once: what a cache holds
POWER_STEPS, POWER_VECTORS = 3, 4
ERROR_MARGIN = 2.0  # power iteration approaches a norm from below


@dataclass(frozen=True)
class ModeGram:
    """G_NN in float64 on the CPU, and an estimate of ||G_NN - exact||_2 from float32 products (0 for float64).

    `parts` holds the Gram of each group of experts where groups were asked for; they sum to `gram`.
    """

    gram: Tensor
    product_error: float
    parts: tuple[Tensor, ...] = ()


def mode_grams(
    reader: WeightSource,
    *,
    modes: Sequence[str] = MODES,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    bounds: list[int] | None = None,
    seed: int | None = 0,
) -> dict[str, ModeGram]:
    """Grams of the asked modes. One pass over the blocks (output, input), one over strips (expert).

    `bounds` = [0, ..., E] splits the experts into groups whose Grams are returned too (output and input modes only:
    the expert Gram of fewer experts is a submatrix). `seed` starts the power iteration of the error;
    None leaves that unmeasured (NaN).
    `dtype` is that of the factors: float32, float64, or on a GPU bfloat16 for tensor cores (sums in float32).
    Cost: E O I (E + O + I) / 2 multiply-adds, the upper triangles only; memory as in `plan_blocks`.
    """
    edges = bounds or [0, reader.stack.shape[0]]
    with full_precision():
        grams: dict[str, ModeGram] = {}
        if blocked := [m for m in ("output", "input") if m in modes]:
            grams |= _block_grams(reader, blocked, dtype, device, edges, seed)
        if "expert" in modes:
            grams["expert"] = _expert_gram(reader, dtype, device, seed)
    return {m: grams[m] for m in MODES if m in grams}


def _block_grams(
    reader: WeightSource,
    modes: list[str],
    dtype: torch.dtype,
    device: torch.device | str,
    edges: list[int],
    seed: int | None,
) -> dict[str, ModeGram]:
    sums = {m: _Sum(reader.stack.shape[MODES.index(m)], len(edges) - 1, dtype, device, seed) for m in modes}
    for start, W_BRC in reader.blocks(edges, dtype, device):
        group = sum(start >= edge for edge in edges) - 1
        for mode, total in sums.items():
            total.add(group, W_BRC if mode == reader.stack.row_mode else W_BRC.flatten(0, 1).T[None])
    return {m: s.finish() for m, s in sums.items()}


def _expert_gram(reader: WeightSource, dtype: torch.dtype, device: torch.device | str, seed: int | None) -> ModeGram:
    total = _Sum(reader.stack.shape[0], 1, dtype, device, seed)
    for Y_EK in reader.strips(dtype, device):
        total.add(0, *Y_EK.split(STRIP_WEIGHTS, dim=1))
    return total.finish()


class _Sum:
    """Sum of Y Y^T over matrices Y_NK: upper triangle in float64, per group; the error of some addends is measured."""

    def __init__(
        self, size: int, groups: int, dtype: torch.dtype, device: torch.device | str, seed: int | None
    ) -> None:
        self.seed = seed
        self.G_gNN = torch.zeros(groups, size, size, dtype=torch.float64, device=device)
        self.exact = dtype == torch.float64
        self.count = 0  # addends that are not zero
        self.relative_error = 0.0 if self.exact or seed is not None else float("nan")

    def add(self, group: int, *factors: Tensor) -> None:
        """Add the products of `factors`, each one matrix (N, K) or several (B, N, K)."""
        target = self.G_gNN[group]
        if self.exact or self.seed is None or self.count not in MEASURED_ADDENDS:
            self._add(target, factors)
            self.count += 1
            return
        addend = torch.zeros_like(target)
        self._add(addend, factors)
        target += addend
        if any(bool(Y.any()) for Y in factors):  # zeros are exact and tell nothing about the others
            self.count += 1
            symmetrise(addend)
            self.relative_error = max(self.relative_error, _relative_error(addend, factors, self.seed))

    def finish(self) -> ModeGram:
        parts = [part.cpu() for part in self.G_gNN]
        for part in parts:
            symmetrise(part)
        gram = parts[0]
        if len(parts) > 1:
            gram = gram.clone()
            for part in parts[1:]:
                gram += part
        error = self.relative_error * float(gram.trace())  # as if the blocks' errors all pointed the same way
        return ModeGram(gram, error, tuple(parts) if len(parts) > 1 else ())

    def _add(self, target_NN: Tensor, factors: Sequence[Tensor]) -> None:
        before_N = target_NN.diagonal().clone()
        for Y_NK in _matrices(factors):
            add_upper(target_NN, Y_NK)
        if not self.exact:
            target_NN.diagonal().copy_(before_N + sum(_squares(Y) for Y in factors))


def _matrices(factors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Every (N, K) matrix of factors that are one matrix or several (B, N, K)."""
    for Y in factors:
        yield from Y if Y.ndim == 3 else [Y]


def add_upper(G_NN: Tensor, Y_NK: Tensor) -> None:
    """Add the upper triangle of Y Y^T: the square above the diagonal in one product, the two halves by recursion."""
    size, panel = G_NN.shape[0], PANEL if G_NN.device.type == "cpu" else GPU_PANEL
    if size <= panel:
        _add_product(G_NN, Y_NK, Y_NK)
        return
    half = -(-size // (2 * panel)) * panel
    add_upper(G_NN[:half, :half], Y_NK[:half])
    _add_product(G_NN[:half, half:], Y_NK[:half], Y_NK[half:])
    add_upper(G_NN[half:, half:], Y_NK[half:])


def _add_product(G_NM: Tensor, X_NK: Tensor, Y_MK: Tensor) -> None:
    """Add X Y^T; of bf16 on tensor cores, where products are exact and short sums come out in float32."""
    if X_NK.dtype != torch.bfloat16:
        G_NM += X_NK @ Y_MK.T
        return
    for x_NK, y_MK in zip(X_NK.split(TENSOR_CORE_TERMS, dim=1), Y_MK.split(TENSOR_CORE_TERMS, dim=1), strict=True):
        G_NM += torch.mm(x_NK, y_MK.T, out_dtype=torch.float32)


def _squares(Y: Tensor) -> Tensor:
    """Sums of squares of the rows of one (N, K) or several (B, N, K) matrices, in float64."""
    sums: Tensor = Y.float().square().sum(-1).double()  # torch sums float32 in a tree of short pieces
    return sums.sum(0) if Y.ndim == 3 else sums


def symmetrise(upper_NN: Tensor) -> None:
    strict = upper_NN.triu(1)
    upper_NN.triu_().add_(strict.T)


def _relative_error(G_NN: Tensor, factors: Sequence[Tensor], seed: int) -> float:
    """||G - sum Y Y^T||_2 / trace G, the exact sum as an operator in float64; infinite where G is not finite."""
    trace = float(G_NN.trace())
    if not torch.isfinite(G_NN).all():
        return float("inf")
    if trace == 0.0:  # every square underflowed
        return float("inf")
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(G_NN.shape[0], POWER_VECTORS, dtype=torch.float64, generator=generator).to(G_NN.device)
    norm = 0.0
    for _ in range(POWER_STEPS):
        Q = lapack.qr(X)[0]
        X = G_NN @ Q
        for Y_NK in _matrices(factors):
            for piece_NK in Y_NK.split(max(1, EXACT_WEIGHTS // Y_NK.shape[0]), dim=1):
                X -= _apply(piece_NK.double(), Q)
        norm = float(torch.linalg.matrix_norm(X, 2))
        if norm == 0.0:
            return 0.0
    return ERROR_MARGIN * norm / trace


def _apply(Y_NK: Tensor, Q_NV: Tensor) -> Tensor:
    """Y Y^T Q, ordered so that BLAS meets Y as it lies in memory: several times faster for so few columns."""
    if Y_NK.is_contiguous():
        return Y_NK @ (Q_NV.T @ Y_NK).T
    return ((Y_NK.T @ Q_NV).T @ Y_NK.T).T
