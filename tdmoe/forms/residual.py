"""Norms of what a compressed stack loses, E = W - W^: of every expert's matrix and of the three unfoldings.

The residual exists one block of experts, or one strip of outputs, at a time; what is kept are its Grams in float64:

    E_e E_e^T or E_e^T E_e, the smaller one, of one expert at a time
    sum_e E_e E_e^T     sum_e E_e^T E_e     <E_e, E_f>        of the output, input and expert unfolding

Where the factors of a truncation are known, tdmoe/tucker/truncation.py needs no residual at all.

Legend: E experts, O outputs, I inputs, B experts of a block, S outputs of a strip, N smaller and M larger of O and I.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmoe.forms import Factored
from tdmoe.forms.slices import outputs
from tdmoe.numerics.gram import add_upper, symmetrise
from tdmoe.numerics.operator_norm import Norms, norms_of_grams
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import expert_blocks
from tdmoe.stacks.source import Device, WeightSource

Vector = NDArray[np.float64]

HELD_WEIGHTS = 32 << 20  # of a strip, or of directions of a mode: 128 MiB in float32
GRAM_COLUMNS = 1 << 16  # of an unfolding that are multiplied at once


@dataclass(frozen=True)
class Residual:
    """||E_e||_2 and ||E_e||_F^2 of every expert, ||E_(n)||_2 of unfoldings (by mode; each of one number).

    `weighted` is sum_e ||E_e C^(1/2)||_F^2, where C is given.
    """

    experts: Norms
    squared_E: Vector
    unfoldings: dict[str, Norms]
    weighted: float | None


def residual(
    reader: WeightSource,
    made: Factored,
    C_II: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
    seed: int = 0,
) -> Residual:
    """Residual of any factored stack, whose numbers have the given dtype."""
    experts, rows, columns = reader.stack.shape
    of_outputs, of_inputs = (torch.zeros(n, n, dtype=torch.float64, device=device) for n in (rows, columns))
    norms, squares = [], []
    for start, W_BOI in expert_blocks(reader, dtype, device):
        E_BOI = W_BOI - made.members(start, start + len(W_BOI)).to(W_BOI)
        squares.append(E_BOI.double().square().sum((1, 2)))
        norms += [add_grams(E_OI, of_outputs, of_inputs, seed) for E_OI in E_BOI]
    symmetrise(of_outputs)
    symmetrise(of_inputs)
    grams = {"expert": _expert_gram(reader, made, dtype, device), "output": of_outputs, "input": of_inputs}
    unfoldings = {mode: norms_of_grams(G_NN[None], seed) for mode, G_NN in grams.items()}
    weighted = None if C_II is None else float((of_inputs * C_II.to(of_inputs)).sum())
    return Residual(Norms.joined(norms), torch.cat(squares).cpu().numpy(), unfoldings, weighted)


def add_grams(E_OI: Tensor, of_outputs: Tensor, of_inputs: Tensor, seed: int) -> Norms:
    """Add both Grams of one matrix to the sums (upper triangles); its own norm from the smaller of the two."""
    small, large = (of_outputs, of_inputs) if len(of_outputs) <= len(of_inputs) else (of_inputs, of_outputs)
    E_NM = E_OI if small is of_outputs else E_OI.T
    G_NN = torch.zeros_like(small)
    with full_precision():
        add_upper(G_NN, E_NM)
        add_upper(large, E_NM.T)
    small += G_NN
    symmetrise(G_NN)
    return norms_of_grams(G_NN[None], seed)


def _expert_gram(reader: WeightSource, made: Factored, dtype: torch.dtype, device: Device) -> Tensor:
    """<E_e, E_f>, from strips of outputs of all experts."""
    experts, rows, columns = reader.stack.shape
    G_EE = torch.zeros(experts, experts, dtype=torch.float64, device=device)
    step = max(1, HELD_WEIGHTS // (experts * columns))
    for first in range(0, rows, step):
        some = slice(first, min(first + step, rows))
        E_ESI = -outputs(made, some).members(0, experts).to(device, dtype)
        for start, W_BOI in expert_blocks(reader, dtype, device):
            E_ESI[start : start + len(W_BOI)] += W_BOI[:, some]
        add_unfolding(G_EE, E_ESI, 0)
    symmetrise(G_EE)
    return G_EE


def add_unfolding(G_NN: Tensor, Y_RPQ: Tensor, axis: int) -> None:
    """Add the upper triangle of Y_(n) Y_(n)^T; the unfolding is never made."""
    with full_precision():
        if axis == 0:
            for Y_RK in Y_RPQ.flatten(1).split(GRAM_COLUMNS, dim=1):
                add_upper(G_NN, Y_RK)
            return
        for Y_PQ in Y_RPQ:
            add_upper(G_NN, Y_PQ if axis == 1 else Y_PQ.T)
