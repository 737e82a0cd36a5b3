"""The core of a Tucker decomposition solved again under each expert's own metric, its factors as they are.

    minimise sum_e ||(W_e - U_O G(e) U_I^T) C_e^(1/2)||_F^2,   G(e) = sum_r U_E[e, r] G_r

is linear least squares in the core. With the expert mode full every expert has its own solution,

    G_e = U_O^T W_e C_e U_I (U_I^T C_e U_I)^-1,   U_O orthonormal

Otherwise the experts share the core: then the normal equations

    sum_e U_E[e, r] G(e) K_e = sum_e U_E[e, r] U_O^T W_e C_e U_I,   K_e = U_I^T C_e U_I,

are solved by conjugate gradients from the core that is there, preconditioned by their solution for a common K. Both can
only lower the error; a step of rounding that would not is not taken.

Legend: E experts, O outputs, I inputs; R, P, Q their ranks; B experts of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tdmoe.forms.tucker import TuckerWeights
from tdmoe.numerics import lapack
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import expert_blocks, matrix_products
from tdmoe.stacks.source import Device, WeightSource

STEPS = 30
TOLERANCE = 1e-6  # of the residual's norm


def refit_core(
    reader: WeightSource,
    made: TuckerWeights,
    own: Callable[[int], Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
) -> TuckerWeights:
    """`made` with the best core for C_e = own(e), positive semidefinite, and its output factor made orthonormal.

    The output side is not weighted, whatever metric the factors are from. Memory: E (P Q + Q Q) numbers, and blocks.
    """
    core, Q_OP = made.core_RPQ.to(device, dtype), None
    if made.output_OP is not None:  # orthonormal, so that the residual of the core is that of the weights
        Q_OP, R_PP = lapack.qr(made.output_OP.to(device, torch.float64))
        Q_OP, core = Q_OP.to(dtype), R_PP.to(dtype) @ core
    U_IQ = None if made.input_IQ is None else made.input_IQ.to(device, dtype)
    experts = reader.stack.shape[0]
    H_EPQ = core.new_empty(experts, *core.shape[1:])  # U_O^T W_e C_e U_I
    K_EQQ = core.new_empty(experts, core.shape[2], core.shape[2])
    with full_precision():
        for start, W_BOI in expert_blocks(reader, dtype, device):
            for e, W_OI in enumerate(W_BOI, start):
                C_II = own(e).to(device, dtype)
                V_IQ = C_II if U_IQ is None else C_II @ U_IQ
                H_EPQ[e] = matrix_products(W_OI[None], Q_OP, V_IQ)[0]
                K_QQ = V_IQ if U_IQ is None else U_IQ.T @ V_IQ
                K_EQQ[e] = (K_QQ + K_QQ.T) / 2
        problem = _Problem(H_EPQ, K_EQQ, made.expert_ER)
        found = problem.separate() if made.expert_ER is None else problem.joint(core)
        core = found if problem.value(found) < problem.value(core) else core
        return replace(made, core_RPQ=core, output_OP=Q_OP)


class _Problem:
    """The quadratic f(G) = sum_e tr(G(e) K_e G(e)^T) - 2 <G(e), H_e>: the squared error up to a constant."""

    def __init__(self, H_EPQ: Tensor, K_EQQ: Tensor, expert_ER: Tensor | None) -> None:
        self.H_EPQ, self.K_EQQ = H_EPQ, K_EQQ
        self.U_ER = None if expert_ER is None else expert_ER.to(H_EPQ)

    def value(self, core_RPQ: Tensor) -> float:
        G_EPQ = self._spread(core_RPQ)
        return float(((G_EPQ @ self.K_EQQ - 2 * self.H_EPQ) * G_EPQ).sum(dtype=torch.float64))

    def separate(self) -> Tensor:
        """G_e K_e = H_e for every expert, in float64."""
        G_EPQ = torch.empty_like(self.H_EPQ)
        for e, (H_PQ, K_QQ) in enumerate(zip(self.H_EPQ.double(), self.K_EQQ.double(), strict=True)):
            G_EPQ[e] = solve(K_QQ, H_PQ.T).T
        return G_EPQ

    def joint(self, core_RPQ: Tensor) -> Tensor:
        """Preconditioned conjugate gradients (Hestenes & Stiefel 1952) from `core_RPQ`."""
        assert self.U_ER is not None
        mean_QQ = self.K_EQQ.mean(0).double()
        weight_RR = (self.U_ER.T @ self.U_ER).double()

        def precondition(X_RPQ: Tensor) -> Tensor:
            by_rank = solve(weight_RR, X_RPQ.double().flatten(1)).view(X_RPQ.shape)
            return solve(mean_QQ, by_rank.flatten(0, 1).T).T.reshape(X_RPQ.shape).to(X_RPQ)

        def normal(X_RPQ: Tensor) -> Tensor:
            return self._gather(self._spread(X_RPQ) @ self.K_EQQ)

        x = core_RPQ
        target = self._gather(self.H_EPQ)
        r = target - normal(x)
        z = precondition(r)
        p, rz = z, float((r * z).sum(dtype=torch.float64))
        enough = TOLERANCE * float(target.norm())
        for _ in range(STEPS):
            if rz <= 0.0 or float(r.norm()) <= enough:
                break
            q = normal(p)
            step = rz / float((p * q).sum(dtype=torch.float64))
            x, r = x + step * p, r - step * q
            z = precondition(r)
            rz, before = float((r * z).sum(dtype=torch.float64)), rz
            p = z + (rz / before) * p
        return x

    def _spread(self, core_RPQ: Tensor) -> Tensor:
        """G(e) of every expert."""
        return core_RPQ if self.U_ER is None else torch.tensordot(self.U_ER, core_RPQ, 1)

    def _gather(self, X_EPQ: Tensor) -> Tensor:
        """sum_e U_E[e, r] X_e."""
        return X_EPQ if self.U_ER is None else torch.tensordot(self.U_ER.T, X_EPQ, 1)


def solve(K_NN: Tensor, b_NM: Tensor) -> Tensor:
    """K^-1 b of a positive definite K by Cholesky; of a singular one the least-norm solution."""
    L_NN, failed = lapack.cholesky_ex(K_NN)
    if failed:
        values_N, V_NN = lapack.eigh(K_NN)
        kept_N = values_N > len(K_NN) * 2.0**-52 * values_N[-1]
        inverse_N = torch.where(kept_N, 1 / values_N, 0.0)
        least_NM: Tensor = V_NN @ (inverse_N[:, None] * (V_NN.T @ b_NM))
        return least_NM
    return torch.cholesky_solve(b_NM, L_NN)
