"""The metric of the activation-aware loss: S with S S^T = C, applied, undone and damped in float64.

    loss = sum_e ||(W_e - W^_e) C^(1/2)||_F^2 = sum_e ||W_e S - W^_e S||_F^2        for any S with S S^T = C

so one decomposes W S and multiplies the factor by S^-T afterwards (SVD-LLM, sec. 3.2; D2-MoE). Both public
re-implementations of TD-MoE decompose W C^(-1/2) instead, which gives the rank to the directions that inputs use least:
`inverse_metric`, for comparison only. The same on the output side with the second moments of the loss' gradient.

Legend: N features of the mode, R rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmoe.numerics import lapack
from tdmoe.problems import InputError

DAMPING = 1e-3  # of mean(diag C)
INVERSE_FLOOR = 1e-3  # below which TT-LLM clamps eigenvalues, whatever their scale


def check_damping(name: str, damping: float) -> None:
    """InputError where it is no number of at least 0; `name` is the method's."""
    if not (math.isfinite(damping) and damping >= 0):
        raise InputError("method", name, f"damping is {damping}", "a number of at least 0 is needed")


@dataclass(frozen=True)
class Metric:
    """S as a float64 matrix, lower triangular or V diag(s); `damping` is what was added to the diagonal of C."""

    S_NN: Tensor
    inverse_T_NN: Tensor | None  # S^-T where S is not triangular
    damping: float
    name: str  # correct | inverse

    @property
    def size(self) -> int:
        return self.S_NN.shape[0]

    def project(self, U_NR: Tensor) -> Tensor:
        """S U: what the untouched weights are multiplied with instead of whitening them first."""
        return self.S_NN @ U_NR

    def undo(self, U_NR: Tensor) -> Tensor:
        """S^-T U, the factor of the weights themselves; by a triangular solve, never through an inverse of S."""
        if self.inverse_T_NN is not None:
            return self.inverse_T_NN @ U_NR
        undone_NR: Tensor = torch.linalg.solve_triangular(self.S_NN.T, U_NR, upper=True)
        return undone_NR

    def gram(self, M_NN: Tensor) -> Tensor:
        """S^T M S: the Gram of the whitened unfolding from that of the raw one."""
        G_NN = self.S_NN.T @ M_NN @ self.S_NN
        return (G_NN + G_NN.T) / 2


@dataclass(frozen=True)
class DampedNorm:
    """`squared` = sum_e ||W_e C^(1/2)||_F^2 + `added` ||W_e||_F^2: ||W S||_F^2 under the metric of the inputs."""

    squared: float
    added: float


def metric(C_NN: Tensor, damping: float = DAMPING) -> Metric:
    """The metric of a second moment C (symmetric, positive semidefinite), plus `damping` * mean(diag C) * I.

    Cholesky; where C is not positive definite even so (`damping` 0, or too few tokens), its eigenvectors, with those
    eigenvalues that float64 cannot tell from zero raised to that limit: N * 2^-52 * the largest.
    InputError where C is no second moment: not square, not finite, not symmetric, or zero.
    """
    C_NN = _checked(C_NN)
    if damping < 0:
        raise InputError("damping", damping, remedy="a fraction of mean(diag C) of at least 0 is needed")
    added = damping * float(C_NN.diagonal().mean())
    damped_NN = C_NN + added * torch.eye(len(C_NN), dtype=torch.float64, device=C_NN.device)
    L_NN, failed = lapack.cholesky_ex(damped_NN)
    limit = len(C_NN) * 2.0**-52
    if not failed and float(L_NN.diagonal().min()) ** 2 > limit * float(L_NN.diagonal().max()) ** 2:
        return Metric(L_NN, None, added, "correct")
    values_N, V_NN = lapack.eigh(damped_NN)
    scale_N = values_N.clamp(min=limit * float(values_N[-1])).sqrt()
    return Metric(V_NN * scale_N, V_NN / scale_N, added, "correct")


def inverse_metric(C_NN: Tensor, floor: float = INVERSE_FLOOR) -> Metric:
    """S = C^(-1/2) with eigenvalues clamped below at the absolute `floor`, as in the public TD-MoE code (TT-LLM).

    Not the metric of any loss on activations: it is kept to measure what this direction costs.
    """
    values_N, V_NN = lapack.eigh(_checked(C_NN))
    scale_N = values_N.clamp(min=floor).rsqrt()
    return Metric(V_NN * scale_N @ V_NN.T, V_NN / scale_N @ V_NN.T, 0.0, "inverse")


def _checked(C_NN: Tensor) -> Tensor:
    if C_NN.ndim != 2 or C_NN.shape[0] != C_NN.shape[1]:
        raise InputError("second moment", why=f"shape is {list(C_NN.shape)}, a square matrix is needed")
    C_NN = C_NN.double()
    if not torch.isfinite(C_NN).all():
        raise InputError("second moment", why="holds NaN or infinity", remedy="calibrate again")
    scale = float(C_NN.abs().max())
    if float((C_NN - C_NN.T).abs().max()) > 1e-6 * scale:
        raise InputError("second moment", why="is not symmetric", remedy="it must be a sum of x x^T")
    if scale == 0.0 or float(C_NN.diagonal().min()) < 0.0:
        raise InputError("second moment", why="is zero or has a negative diagonal", remedy="calibrate with more tokens")
    return (C_NN + C_NN.T) / 2
