"""MoE-SVD: one right factor for all experts of a layer, and few left ones (Li et al. 2025).

The official code cannot be read; `published` follows the paper as its replications do:

    each W_e S = U_e Sigma_e V_e^T, S S^T = C;   V_s = V_e of the expert with the most tokens;   the U_e Sigma_e of the
    `top` experts with the most tokens are kept, each expert uses the combination of them nearest to its own

which is no projection: U_e Sigma_e belongs to V_e, not to V_s (the signs of V_e, which a SVD leaves open and on which
the outcome depends, are those that are nearest to V_s). `corrected` solves for both instead,

    V_s = leading eigenvectors of sum_e p_e S^T W_e^T W_e S,    W^_e = W_e S V_s V_s^T S^-1

with p_e the share of tokens: the best shared input factor for experts weighed by their use. With p alike it is the
input-mode Tucker decomposition. Stored in Tucker form: core (E, O, K) or (`top`, O, K), input (I, K). Which layers are
compressed at all is `dense_layers`: that many of the most sensitive ones are not (tdmoe/methods/layer_sensitivity.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tdmoe.forms.tucker import TuckerWeights
from tdmoe.method.contract import Allotment, Budgeted, Method, Needs, Statistics, alike
from tdmoe.numerics import lapack
from tdmoe.numerics.eigen import eigenvectors
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import expert_blocks, mode_products
from tdmoe.numerics.ranks import Shape, beyond_budget, budget
from tdmoe.numerics.whitening import DAMPING, Metric, check_damping, metric
from tdmoe.stacks.source import WeightSource


@dataclass(frozen=True)
class Options(Budgeted):
    """`weigh` is for `corrected`; `top` for `published`: 0 keeps as many as the budget allows, 2 as in the paper.

    `dense_layers` of the most sensitive layers are left as they are, and the others cut harder, to the same total.
    """

    preset: Literal["corrected", "published"] = "corrected"
    weigh: Literal["frequency", "alike"] = "frequency"
    top: int = 0
    dense_layers: int = 0
    damping: float = DAMPING


class MoESVD(Method):
    """A shared right factor."""

    NAME, DISPLAY, REFERENCE, FAMILY = "moe_svd", "MoE-SVD", "Li et al. 2025", "matrix"
    OPTIONS = Options
    TIES = ("ratio_of", "dense_layers")

    def needs(self, options: Options) -> Needs:
        """Second moments and the routing."""
        return Needs(True)

    def leaves_dense(self, options: Options) -> int:
        """Number of the most sensitive layers that are left as they are."""
        return options.dense_layers

    def check_options(self, options: Options) -> None:
        """InputError where options are out of range or contradict each other."""
        check_damping(self.NAME, options.damping)
        published = options.preset == "published"
        if options.top and not published:
            raise self.wrong(f"top={options.top} is of preset=published only")
        if published and options.weigh != "frequency":
            raise self.wrong("weigh is of preset=corrected only")
        if options.dense_layers < 0:
            raise self.wrong(f"dense_layers is {options.dense_layers}", "give at least 0")

    def check(self, shape: Shape, options: Options, ratio: float) -> None:
        """InputError where `top` is more than the experts, or the ratio leaves no rank."""
        if not 0 <= options.top <= shape[0]:
            raise self.wrong(f"top is {options.top}", f"the stack has {shape[0]} experts")
        _sizes(shape, options, ratio)

    def memory(self, shape: Shape, options: Options, ratio: float) -> int:
        """The core; as published the left factors of all experts in float64, and what they are combined from."""
        experts, outputs, inputs = shape
        published = options.preset == "published"
        return 24 * experts * outputs * min(outputs, inputs) if published else 8 * experts * outputs * inputs

    def compress(
        self, reader: WeightSource, options: Options, allotment: Allotment, statistics: Statistics, *, device: str
    ) -> TuckerWeights:
        """Shared factor first, then all experts on it."""
        if allotment.ranks == reader.stack.shape:
            return TuckerWeights(mode_products(reader, None, None, None, device=device))
        assert statistics is not None and statistics.tokens_E is not None, "checked before"
        top, rank = _sizes(reader.stack.shape, options, allotment.ratio)
        S = metric(statistics.C_II.to(device), options.damping)
        if options.preset == "published":
            return _published(reader, S, statistics.tokens_E, top, rank, device)
        p_E = statistics.shares("frequency") if options.weigh == "frequency" else alike(reader.stack.shape[0])
        M_II = torch.zeros(S.size, S.size, dtype=torch.float64, device=device)
        with full_precision():
            for start, W_BOI in expert_blocks(reader, torch.float32, device):
                for p, W_OI in zip(p_E[start:].tolist(), W_BOI.double(), strict=False):
                    M_II += p * (W_OI.T @ W_OI)
        if rank == S.size:  # nothing is cut
            return TuckerWeights(mode_products(reader, None, None, None, device=device))
        V_IK = eigenvectors(S.gram(M_II))[1][:, :rank]
        core_EOK = mode_products(reader, None, None, S.project(V_IK), device=device)
        return TuckerWeights(core_EOK, input_IQ=S.undo(V_IK).float())


def _sizes(shape: Shape, options: Options, ratio: float) -> tuple[int, int]:
    """(left factors kept, rank). A V_e has no more columns than W_e has singular values, a solved one up to I."""
    experts, outputs, inputs = shape
    allowed = budget(shape, ratio)
    most = min(outputs, inputs) if options.preset == "published" else inputs
    top = options.top or experts
    mixing = experts * top if top < experts else 0
    rank = min(most, int((allowed - mixing) // (top * outputs + inputs)))
    if options.preset == "published" and not options.top and rank < most:
        shared = inputs * most if most < inputs else 0  # in the core where the mode is not cut
        fewer = int((allowed - shared) // (outputs * most + experts))  # all directions, of fewer experts
        if fewer >= 1:
            return min(fewer, experts), most
    if rank < 1:
        raise beyond_budget(shape, ratio, "rank 1 takes", mixing + top * outputs + inputs)
    return top, rank


def _published(reader: WeightSource, S: Metric, tokens_E: Tensor, top: int, rank: int, device: str) -> TuckerWeights:
    """Factors of every expert's own SVD, put together as if they were of one."""
    order = tokens_E.argsort(descending=True, stable=True).tolist()
    experts, outputs, _ = reader.stack.shape
    left_EOK = torch.empty(experts, outputs, rank, dtype=torch.float64, device=device)
    shared_KI = torch.empty(0)
    for start, W_BOI in expert_blocks(reader, torch.float32, device):
        if start <= order[0] < start + len(W_BOI):
            shared_KI = _svd(W_BOI[order[0] - start], S, rank)[1]
    for start, W_BOI in expert_blocks(reader, torch.float32, device):
        for e, W_OI in enumerate(W_BOI, start):
            left_OK, V_KI = _svd(W_OI, S, rank)
            against_K = (V_KI * shared_KI).sum(1) < 0
            left_EOK[e] = torch.where(against_K, -left_OK, left_OK)
    kept = sorted(order[:top])
    core_ROK, input_IK = left_EOK[kept], S.undo(shared_KI.T.contiguous())
    combination_ER = None
    if top < experts:
        basis_NR = core_ROK.flatten(1).T
        combination_ER = lapack.lstsq(basis_NR, left_EOK.flatten(1).T).solution.T.float().contiguous()
    if len(input_IK) == rank:
        return TuckerWeights((core_ROK @ input_IK.T).float(), combination_ER)
    return TuckerWeights(core_ROK.float(), combination_ER, input_IQ=input_IK.float())


def _svd(W_OI: Tensor, S: Metric, rank: int) -> tuple[Tensor, Tensor]:
    """(U Sigma, V^T) of W S, truncated, in float64."""
    with full_precision():
        U_ON, s_N, V_NI = lapack.svd(W_OI.double() @ S.S_NN, full_matrices=False)
    return U_ON[:, :rank] * s_N[:rank], V_NI[:rank]


METHOD = MoESVD()
