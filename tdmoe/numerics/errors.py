"""Distance of a rebuilt expert stack from the original: in weights, on the layer's inputs, and as an operator.

    weight_error            ||W - W^||_F / ||W||_F
    functional_error        sqrt(sum_e ||(W_e - W^_e) C^(1/2)||_F^2 / sum_e ||W_e C^(1/2)||_F^2)
    functional_error_expert the same with every expert's own C_e
    operator_error          mean over e of ||W_e - W^_e||_2 / ||W_e||_2, and its maximum, over experts that are not zero

C is the mean of x x^T over all routed inputs of the layer, undamped. Spectral norms are exact to rounding for small
matrices, intervals at most 1e-4 wide for large ones (tdmoe/numerics/operator_norm.py). Products and sums of a row are
in float32, sums of rows in float64; one block of experts is held at a time.

Legend: E experts, O outputs, I inputs, B experts of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from tdmoe.numerics import lapack
from tdmoe.numerics.operator_norm import Norms, norms_of_matrices
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import expert_blocks, lower_products
from tdmoe.numerics.whitening import DampedNorm
from tdmoe.stacks.source import WeightSource

Kind = Literal["weight", "functional", "operator"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Rebuild = Callable[[int, int], Tensor]  # experts start..stop-1 as W^_BOI


@dataclass(frozen=True)
class StackErrors:
    """Relative errors of a stack; None where not asked for, or where statistics are needed.

    `operator` and `operator_max` are the lower ends of their intervals, `operator_upper` is the upper end of the mean.
    """

    weight: float
    functional: float | None
    functional_expert: float | None
    operator: float | None
    operator_max: float | None
    operator_upper: float | None


def stack_errors(
    reader: WeightSource,
    rebuild: Rebuild,
    C_II: Tensor | None = None,
    C_EII: Callable[[int], Tensor] | None = None,
    *,
    device: torch.device | str = "cpu",
    kinds: Collection[Kind] = KINDS,
    norms_W: Norms | None = None,
    damped_W: DampedNorm | None = None,
) -> StackErrors:
    """Errors of W^ against the stack; `C_EII(e)` gives the second moment of expert e's own inputs, one at a time.

    The weight error is always among them, as it costs nothing beside the others. Norms are of every matrix that an
    expert holds: of gate and up apart where they are one stack. `norms_W` are those of the stack itself
    (`stack_norms`), where they are known already; so is `damped_W`, under this same C.
    """
    if "functional" not in kinds:
        C_II = C_EII = None
    root = None if C_II is None else _Root(C_II.to(device))
    lost, whole = _Sums(), _Sums()
    norms_E, blocks_W = [], []
    for start, W_BOI in expert_blocks(reader, torch.float32, device):
        W_BOI = W_BOI.contiguous()
        E_BOI = W_BOI - rebuild(start, start + len(W_BOI)).to(W_BOI)
        for sums, X_BOI in ((lost, E_BOI), (whole, W_BOI)):
            sums.plain += squares(X_BOI)
            if root is not None and (sums is lost or damped_W is None):
                sums.pooled += root.energy(X_BOI)
            for e in range(len(X_BOI)) if C_EII is not None else ():
                sums.own += weighted(X_BOI[e], C_EII(start + e).to(X_BOI))  # type: ignore[misc]
        if "operator" in kinds:
            norms_E.append(_norms(E_BOI, reader.stack.matrices))
            blocks_W += [] if norms_W is not None else [_norms(W_BOI, reader.stack.matrices)]
    if root is not None and damped_W is not None:
        whole.pooled = damped_W.squared - damped_W.added * whole.plain
        if whole.pooled < damped_W.squared / 2:  # little of it would be left of its digits
            blocks = expert_blocks(reader, torch.float32, device)
            whole.pooled = sum(root.energy(W_BOI.contiguous()) for _, W_BOI in blocks)
    operator: tuple[float | None, ...] = (None, None, None)
    if "operator" in kinds:
        operator = _relative(Norms.joined(norms_E), norms_W or Norms.joined(blocks_W))
    return StackErrors(
        _ratio(lost.plain, whole.plain) ** 0.5,
        None if C_II is None else _ratio(max(0.0, lost.pooled), whole.pooled) ** 0.5,
        None if C_EII is None else _ratio(max(0.0, lost.own), whole.own) ** 0.5,
        *operator,
    )


def stack_norms(reader: WeightSource, *, device: torch.device | str = "cpu") -> Norms:
    """||W_e||_2 of every matrix of the stack."""
    blocks = expert_blocks(reader, torch.float32, device)
    return Norms.joined([_norms(W_BOI, reader.stack.matrices) for _, W_BOI in blocks])


def _norms(X_BOI: Tensor, matrices: int) -> Norms:
    """Spectral norms of the matrices that lie side by side along the outputs of every expert."""
    return norms_of_matrices(X_BOI.unflatten(1, (matrices, -1)).flatten(0, 1))


def _relative(E: Norms, W: Norms) -> tuple[float, float, float]:
    """Mean and maximum of ||E_e|| / ||W_e|| at the lower ends, the mean at the upper ends; over matrices not zero."""
    there = W.lower_B > 0.0
    if not there.any():
        return 0.0, 0.0, 0.0
    lower, upper = E.lower_B[there] / W.upper_B[there], E.upper_B[there] / W.lower_B[there]
    return float(lower.mean()), float(lower.max()), float(upper.mean())


@dataclass
class _Sums:
    """||X||_F^2, ||X C^(1/2)||_F^2, and the same under each expert's own C, of blocks as they come."""

    plain: float = 0.0
    pooled: float = 0.0
    own: float = 0.0


class _Root:
    """||X C^(1/2)||_F^2 as ||X L||_F^2 with C = L L^T: a sum of squares, for little over half of the products.

    Where C is not positive definite, `weighted` instead.
    """

    def __init__(self, C_II: Tensor) -> None:
        L_II, failed = lapack.cholesky_ex(C_II.double())
        self.C_II = C_II.float() if failed else None
        self.L_II = L_II.float()

    def energy(self, X_BOI: Tensor) -> float:
        if self.C_II is not None:
            return weighted(X_BOI, self.C_II)
        return sum(squares(Y_BOP) for _, Y_BOP in lower_products(X_BOI, self.L_II))


def squares(X: Tensor) -> float:
    """||X||_F^2: of rows in float32, and their sum in float64, fifty times as fast as all of it in float64."""
    return float(torch.linalg.vector_norm(X, dim=-1).double().square().sum())


def weighted(X: Tensor, C_II: Tensor) -> float:
    """||X C^(1/2)||_F^2 of one matrix or several."""
    with full_precision():
        return float((X @ C_II).mul_(X).sum(-1).sum(dtype=torch.float64))


def _ratio(lost: float, whole: float) -> float:
    """0 where nothing was lost, also of nothing; infinite where something was made of nothing."""
    if lost == 0.0:
        return 0.0
    return lost / whole if whole > 0.0 else float("inf")
