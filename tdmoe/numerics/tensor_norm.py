"""A lower bound on the spectral norm of a stack as a tensor, by higher-order power iteration.

    ||T||_sigma = max over unit u, v, w of sum_e u_e v^T W_e w

which no unfolding's norm is below (Friedland & Lim 2018; Rethinking, Proposition 1). Finding it is NP-hard, so this is
a lower bound: the best local maximum of several starts (De Lathauwer et al. 2000b). For a fixed u the best v, w are
the leading singular vectors of sum_e u_e W_e, exact at first, later by a few power steps from the last ones. For
fixed v, w the best u is v^T W_e w normalised. No step can lower the value.

Legend: E experts, O outputs, I inputs, S starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tdmoe.numerics.eigen import eigenvectors
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import expert_blocks, mode_products
from tdmoe.stacks.source import Device, WeightSource

RANDOM_STARTS = 3  # beside the leading directions of the expert mode
LEADING_STARTS = 3
ROUNDS = 30
POWER_STEPS = 8  # towards the leading pair of singular vectors, in a round
SETTLED = 1e-6  # relative gain of a round at which iteration ends


@dataclass(frozen=True)
class TensorNorm:
    """The largest value attained, from so many starts in so many rounds."""

    lower: float
    starts: int
    rounds: int


def tensor_norm(
    reader: WeightSource,
    U_EE: Tensor,
    generator: torch.Generator,
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> TensorNorm:
    """Two passes over the stack a round, for all starts at once; `U_EE` are the directions of the expert mode."""
    experts = len(U_EE)
    random_ES = torch.randn(experts, RANDOM_STARTS, dtype=torch.float64, generator=generator)
    u_ES = torch.cat([U_EE[:, :LEADING_STARTS], random_ES.to(U_EE)], 1)
    u_ES = u_ES / u_ES.norm(dim=0)
    value, rounds = 0.0, 0
    w_IS: Tensor | None = None
    for _ in range(ROUNDS):
        M_SOI = mode_products(reader, u_ES, None, None, dtype=dtype, device=device)
        pairs = [_leading_pair(M_OI, None if w_IS is None else w_IS[:, s]) for s, M_OI in enumerate(M_SOI)]
        v_OS, w_IS = (torch.stack(vectors, 1) for vectors in zip(*pairs, strict=True))
        u_ES = torch.cat([_values(W_BOI.double(), v_OS, w_IS) for _, W_BOI in expert_blocks(reader, dtype, device)]).to(
            u_ES
        )
        values_S = u_ES.norm(dim=0)
        before, value, rounds = value, float(values_S.max()), rounds + 1
        if value - before <= SETTLED * value:
            break
        u_ES = u_ES / values_S.clamp(min=torch.finfo(torch.float64).tiny)
    return TensorNorm(value, u_ES.shape[1], rounds)


def _leading_pair(M_OI: Tensor, w_I: Tensor | None) -> tuple[Tensor, Tensor]:
    """Unit v, w with v^T M w = ||M||_2, in float64; from a `w_I` at least what it attains."""
    M_OI = M_OI.double()
    if w_I is not None:
        for _ in range(POWER_STEPS):
            v_O = _unit(M_OI @ w_I)
            w_I = _unit(M_OI.T @ v_O)
        return v_O, w_I
    tall = M_OI.shape[0] > M_OI.shape[1]
    M_NM = M_OI.T if tall else M_OI
    with full_precision():
        v_N = eigenvectors(M_NM @ M_NM.T)[1][:, 0]
        w_M = M_NM.T @ v_N
    w_M = _unit(w_M)
    return (w_M, v_N) if tall else (v_N, w_M)


def _unit(v_N: Tensor) -> Tensor:
    """Zero stays zero."""
    unit_N: Tensor = v_N / v_N.norm().clamp(min=torch.finfo(torch.float64).tiny)
    return unit_N


def _values(W_BOI: Tensor, v_OS: Tensor, w_IS: Tensor) -> Tensor:
    """v_s^T W_b w_s, (B, S)."""
    return torch.einsum("bos,os->bs", W_BOI @ w_IS, v_OS)
