"""Sensitivity of a layer's experts, as MoE-SVD ranks layers (Li et al. 2025):

    S = sum_e f_e r_e a_e

f_e the share of routed tokens that expert e had; r_e how many of its singular values are at least THRESHOLD times the
largest, averaged over its matrices; a_e the share of its activations h that exceed twice their token's mean |h|. The
most sensitive layers are left dense, and the others are cut harder for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tdmoe.numerics.eigen import eigenvalues
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import expert_blocks
from tdmoe.stacks.source import WeightSource

THRESHOLD = 0.01


def significant_ranks(reader: WeightSource, *, device: str = "cpu") -> Tensor:
    """r_e of a stack, from the smaller Gram of every expert in float64."""
    found: list[int] = []
    for _, W_BOI in expert_blocks(reader, torch.float32, device):
        for W_OI in W_BOI.double():
            M = W_OI if W_OI.shape[0] <= W_OI.shape[1] else W_OI.T
            with full_precision():
                squared = eigenvalues((M @ M.T).cpu())
            found.append(int((squared >= THRESHOLD**2 * squared[0]).sum()) if squared[0] > 0 else 0)
    return torch.tensor(found, dtype=torch.float64)


def sensitivity(tokens_E: Tensor, ranks_E: Tensor, outlying_E: Tensor) -> float:
    """S; `outlying_E` sums a over the tokens of each expert, so that f a is its share of all tokens."""
    return float((outlying_E * ranks_E).sum() / tokens_E.sum())


def harder(ratio: float, layers: int, dense: int) -> float:
    """The ratio of the others, where `dense` of equally large layers are left whole."""
    return ratio * layers / (layers - dense)
