"""The best approximation of one matrix by a low rank in a metric, without an inverse of the metric.

    min over rank K of ||(W - W^) S||_F   is   W^ = U_K U_K^T W,   U_K the leading left singular vectors of W S

which equals the truncated SVD of W S times S^-1 (SVD-LLM, Wang et al. 2024, sec. 3.2) but never divides by a small
singular value of S (COALA, Parkina & Rakhuba 2025). U_K from the smaller Gram of W S, in float64.

Legend: O outputs, I inputs, K rank.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tdmoe.forms.low_rank import LowRankWeights
from tdmoe.numerics import lapack
from tdmoe.numerics.eigen import eigenvectors
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import expert_blocks
from tdmoe.numerics.ranks import Shape, aligned, beyond_budget, budget
from tdmoe.numerics.whitening import Metric
from tdmoe.problems import InputError
from tdmoe.stacks.source import WeightSource

MetricOf = Callable[[int], Metric | None]  # of an expert


def truncated(W_OI: Tensor, rank: int, metric: Metric | None = None) -> tuple[Tensor, Tensor]:
    """(left_OK with orthonormal columns, right_KI) in float64; `metric` is that of the inputs, None for the weights."""
    W_OI = W_OI.double()
    with full_precision():
        T_OI = W_OI if metric is None else W_OI @ metric.S_NN.to(W_OI)
        if T_OI.shape[0] <= T_OI.shape[1]:
            left_OK = eigenvectors(T_OI @ T_OI.T)[1][:, :rank]
        else:
            left_OK = lapack.qr(T_OI @ eigenvectors(T_OI.T @ T_OI)[1][:, :rank])[0]
        return left_OK.contiguous(), left_OK.T @ W_OI


def rank_within(shape: Shape, ratio: float, *, shared: int = 0, alignment: int = 1) -> int:
    """Largest multiple K of `alignment` with `shared` + E K (O + I) within the budget; InputError where none is."""
    experts, outputs, inputs = shape
    allowed = budget(shape, ratio)
    if (rank := aligned(int((allowed - shared) // (experts * (outputs + inputs))), alignment)) < 1:
        least = shared + alignment * experts * (outputs + inputs)
        remedy = f"lower the ratio{' or the alignment' if alignment > 1 else ''}"
        raise beyond_budget(shape, ratio, f"rank {alignment} takes", least, remedy)
    return aligned(min(rank, outputs, inputs), alignment)


def check_rank(name: str, shape: Shape, rank: int, *, shared: int = 0) -> None:
    """InputError where a given rank stores more than the dense stack."""
    experts, outputs, inputs = shape
    stored, dense = shared + experts * rank * (outputs + inputs), experts * outputs * inputs
    if stored >= dense:
        most = (dense - shared - 1) // (experts * (outputs + inputs))
        raise InputError(
            "method",
            name,
            f"rank {rank} stores {experts} x {rank} x ({outputs} + "
            f"{inputs}){f' + {shared:,}' if shared else ''} = {stored:,} parameters, {stored / dense:.2f} "
            f"times the {dense:,} of the dense stack",
            f"give {f'a rank of at most {most}' if most > 0 else 'another method'}",
        )


def decomposed(
    reader: WeightSource, rank: int, metric_of: MetricOf, base_OI: Tensor | None = None, *, device: str
) -> LowRankWeights:
    """Every expert, less the base, truncated to that rank."""
    experts, outputs, inputs = reader.stack.shape
    left_EOK = torch.empty(experts, outputs, rank, device=device)
    right_EKI = torch.empty(experts, rank, inputs, device=device)
    for start, W_BOI in expert_blocks(reader, torch.float32, device):
        for e, W_OI in enumerate(W_BOI, start):
            rest_OI = W_OI.double() if base_OI is None else W_OI.double() - base_OI
            left_EOK[e], right_EKI[e] = truncated(rest_OI, rank, metric_of(e))
    return LowRankWeights(left_EOK, right_EKI, None if base_OI is None else base_OI.float())
