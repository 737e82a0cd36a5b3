"""Mode products of an expert stack, streamed in expert blocks: the stack is never unfolded and never whitened.

    Y[r, p, q] = sum_{e, o, i} W[e, o, i] A_E[e, r] A_O[o, p] A_I[i, q]

A metric goes into the matrices: (L^T W_e S) projected on U_O and U_I is W_e between L U_O and S U_I. The order of the
three products is the cheapest one.

Legend: E experts, O outputs, I inputs, R, P, Q columns of their matrices, B experts of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tdmoe.numerics.precision import full_precision, full_product
from tdmoe.stacks.source import Device, WeightSource

PANELS = 8  # of a triangular matrix: its zeros are left out of a product but for 1 / PANELS of them


def expert_blocks(
    reader: WeightSource, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> Iterator[tuple[int, Tensor]]:
    """(first expert, W_BOI) of every block, whatever the order on disk; valid until the next one is asked for."""
    for start, W_BRC in reader.blocks([0, reader.stack.shape[0]], dtype, device):
        yield start, W_BRC.transpose(1, 2) if reader.stack.row_mode == "input" else W_BRC


def whole_stack(reader: WeightSource, *, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """W_EOI, all of it in memory."""
    W_EOI = torch.empty(reader.stack.shape, dtype=dtype, device=device)
    for start, W_BOI in expert_blocks(reader, dtype, device):
        W_EOI[start : start + len(W_BOI)] = W_BOI
    return W_EOI


def mode_products(
    reader: WeightSource,
    A_ER: Tensor | None,
    A_OP: Tensor | None,
    A_IQ: Tensor | None,
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> Tensor:
    """Y_RPQ in `dtype` on `device`; None stands for the identity. Memory: the result, and two blocks.

    Where the expert mode is cut so far that it pays, it is done first, and the memory is R O I.
    """
    A_ER, A_OP, A_IQ = (A if A is None else A.to(device, dtype) for A in (A_ER, A_OP, A_IQ))
    experts, outputs, inputs = reader.stack.shape
    with full_precision():
        if A_ER is not None and _experts_first(reader.stack.shape, A_ER, A_OP, A_IQ):
            sum_ROI = torch.zeros(A_ER.shape[1], outputs, inputs, dtype=dtype, device=device)
            for start, W_BOI in expert_blocks(reader, dtype, device):
                _add_experts(sum_ROI, A_ER[start : start + len(W_BOI)], W_BOI)
            return matrix_products(sum_ROI, A_OP, A_IQ)
        sizes = [
            n if A is None else A.shape[1] for n, A in zip((experts, outputs, inputs), (A_ER, A_OP, A_IQ), strict=True)
        ]
        Y_RPQ = torch.zeros(sizes, dtype=dtype, device=device)
        for start, W_BOI in expert_blocks(reader, dtype, device):
            Y_BPQ = matrix_products(W_BOI, A_OP, A_IQ)
            if A_ER is None:
                Y_RPQ[start : start + len(Y_BPQ)] = Y_BPQ
            else:
                _add_experts(Y_RPQ, A_ER[start : start + len(Y_BPQ)], Y_BPQ)
        return Y_RPQ


def matrix_products(W_BOI: Tensor, A_OP: Tensor | None, A_IQ: Tensor | None) -> Tensor:
    """A_O^T W_b A_I of every matrix, the cheaper product first."""
    if A_OP is None or A_IQ is None:
        Y_BPI = W_BOI if A_OP is None else full_product(A_OP.T, W_BOI)
        return Y_BPI if A_IQ is None else full_product(Y_BPI, A_IQ)
    (outputs, P), (inputs, Q) = A_OP.shape, A_IQ.shape
    if P * inputs * (outputs + Q) <= outputs * Q * (inputs + P):
        return A_OP.T @ W_BOI @ A_IQ
    return A_OP.T @ (W_BOI @ A_IQ)


def lower_products(X_BOI: Tensor, L_II: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(columns, those of X L) panel by panel, for little over half of the products; L is lower triangular."""
    width = -(-len(L_II) // PANELS)
    for first in range(0, len(L_II), width):
        columns = slice(first, first + width)
        with full_precision():
            Y_BOP = X_BOI[..., first:] @ L_II[first:, columns]
        yield columns, Y_BOP


def _add_experts(sum_RPQ: Tensor, A_BR: Tensor, Y_BPQ: Tensor) -> None:
    flat_RK = sum_RPQ.view(len(sum_RPQ), -1)
    flat_RK.addmm_(A_BR.T, Y_BPQ.reshape(len(Y_BPQ), -1))


def _experts_first(shape: tuple[int, int, int], A_ER: Tensor, A_OP: Tensor | None, A_IQ: Tensor | None) -> bool:
    experts, outputs, inputs = shape
    R = A_ER.shape[1]
    P, Q = (n if A is None else A.shape[1] for n, A in ((outputs, A_OP), (inputs, A_IQ)))
    matrix = _cost(outputs, inputs, A_OP, A_IQ)
    return R * experts * outputs * inputs + R * matrix < experts * matrix + R * experts * P * Q


def _cost(outputs: int, inputs: int, A_OP: Tensor | None, A_IQ: Tensor | None) -> int:
    """Multiply-adds of `matrix_products` for one matrix."""
    P, Q = (0 if A is None else A.shape[1] for A in (A_OP, A_IQ))
    if A_OP is None or A_IQ is None:
        return outputs * inputs * (P + Q)
    return min(P * inputs * (outputs + Q), outputs * Q * (inputs + P))
