"""How far a rebuilt expert stack is from the original: in weights, on the layer's inputs, and as an operator.

    weight_error            ||W - W^||_F / ||W||_F
    functional_error        sqrt(sum_e ||(W_e - W^_e) C^(1/2)||_F^2 / sum_e ||W_e C^(1/2)||_F^2)
    functional_error_expert the same with every expert's own C_e
    operator_error          mean over e of ||W_e - W^_e||_2 / ||W_e||_2, and its maximum, over experts that are not zero

C is the mean of x x^T over all routed inputs of the layer, undamped. Spectral norms are exact to rounding: the largest
eigenvalue of the smaller Gram of each expert. All sums are in float64; one block of experts is held at a time.

Legend: E experts, O outputs, I inputs, B experts of a block, N the smaller of O and I.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tdmoe.eigen import largest_eigenvalue
from tdmoe.precision import full_precision
from tdmoe.products import expert_blocks
from tdmoe.source import WeightSource

TOGETHER = 256  # Grams up to this size go through one batched solver, several times faster than one by one
Rebuild = Callable[[int, int], Tensor]  # experts start..stop-1 as W^_BOI


@dataclass(frozen=True)
class StackErrors:
    """Relative errors of a stack; None where not asked for, or where statistics are needed."""

    weight: float
    functional: float | None
    functional_expert: float | None
    operator: float | None
    operator_max: float | None


def stack_errors(
    reader: WeightSource,
    rebuild: Rebuild,
    C_II: Tensor | None = None,
    C_EII: Callable[[int], Tensor] | None = None,
    *,
    device: torch.device | str = "cpu",
    operator: bool = True,
    norms_W: Sequence[float] | None = None,
) -> StackErrors:
    """Errors of W^ against the stack; `C_EII(e)` gives the second moment of expert e's own inputs, one at a time.

    Norms are of every matrix that an expert holds: of gate and up apart where they are one stack. `norms_W` are those
    of the stack itself (`stack_norms`), where they are known already.
    """
    lost, whole = _Sums(C_II, device), _Sums(C_II, device)
    matrices = reader.stack.matrices
    norms: list[float] = []
    for start, W_BOI in expert_blocks(reader, torch.float32, device):
        W_BOI = W_BOI.contiguous()
        E_BOI = W_BOI - rebuild(start, start + len(W_BOI)).to(W_BOI)
        lost.add(E_BOI)
        whole.add(W_BOI)
        for e in range(len(W_BOI)) if C_EII is not None else ():
            own_II = C_EII(start + e).to(W_BOI)  # type: ignore[misc]
            lost.own += weighted(E_BOI[e], own_II)
            whole.own += weighted(W_BOI[e], own_II)
        if operator:
            part = slice(start * matrices, (start + len(W_BOI)) * matrices)
            whole_norms = _norms(W_BOI, matrices) if norms_W is None else norms_W[part]
            norms += [e / w for e, w in zip(_norms(E_BOI, matrices), whole_norms, strict=True) if w > 0.0]
    return StackErrors(
        weight=_ratio(lost.plain, whole.plain) ** 0.5,
        functional=None if C_II is None else _ratio(max(0.0, lost.pooled), whole.pooled) ** 0.5,
        functional_expert=None if C_EII is None else _ratio(max(0.0, lost.own), whole.own) ** 0.5,
        operator=float(np.mean(norms or [0.0])) if operator else None,
        operator_max=max(norms, default=0.0) if operator else None,
    )


def stack_norms(reader: WeightSource, *, device: torch.device | str = "cpu") -> list[float]:
    """||W_e||_2 of every matrix of the stack."""
    blocks = (W_BOI for _, W_BOI in expert_blocks(reader, torch.float32, device))
    return [norm for W_BOI in blocks for norm in _norms(W_BOI, reader.stack.matrices)]


def _norms(X_BOI: Tensor, matrices: int) -> list[float]:
    """Spectral norms of the matrices that lie side by side along the outputs of every expert."""
    return spectral_norms(X_BOI.unflatten(1, (matrices, -1)).flatten(0, 1))


def spectral_norms(E_BOI: Tensor) -> list[float]:
    """||E_e||_2 of every matrix, from the largest eigenvalue of its smaller Gram."""
    wide = E_BOI if E_BOI.shape[1] <= E_BOI.shape[2] else E_BOI.transpose(1, 2)
    with full_precision():
        if wide.shape[1] <= TOGETHER:
            G_BNN = (wide.double() @ wide.double().mT).cpu()
            values_B: list[float] = torch.linalg.eigvalsh(G_BNN)[:, -1].clamp(min=0.0).sqrt().tolist()
            return values_B
        return [max(0.0, largest_eigenvalue((M.double() @ M.double().T).cpu())) ** 0.5 for M in wide]


class _Sums:
    """||X||_F^2 and ||X C^(1/2)||_F^2 of blocks as they come; `own` is for the same under each expert's own C."""

    def __init__(self, C_II: Tensor | None, device: torch.device | str) -> None:
        self.C_II = None if C_II is None else C_II.to(device, torch.float32)
        self.plain, self.pooled, self.own = 0.0, 0.0, 0.0

    def add(self, X_BOI: Tensor) -> None:
        self.plain += float(X_BOI.square().sum(dtype=torch.float64))
        if self.C_II is not None:
            self.pooled += weighted(X_BOI, self.C_II)


def weighted(X: Tensor, C_II: Tensor) -> float:
    """||X C^(1/2)||_F^2 of one matrix or several."""
    with full_precision():
        return float(((X @ C_II) * X).sum(dtype=torch.float64))


def _ratio(lost: float, whole: float) -> float:
    """0 where nothing was lost, also of nothing; infinite where something was made of nothing."""
    if lost == 0.0:
        return 0.0
    return lost / whole if whole > 0.0 else float("inf")
