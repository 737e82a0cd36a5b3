"""The loss of a mixture of basis experts with the experts' own factors solved for, and its Gauss-Newton curvature.

    f(B, a) = min over A of sum_e ||(W_e - A_e H_e) S||_F^2 / sum_e ||W_e S||_F^2
    H_e = phi(M_e),   M_e = sum_j a_ej B_j

with S S^T = C (identity without statistics). A_e = W_e C H_e^T (H_e C H_e^T)^-1 in closed form (variable projection,
Golub & Pereyra 1973), so that the gradient is that of the residual with A held:

    df/dM_e = 2 A_e^T (A_e H_e - W_e) C * phi'(M_e)

The mixing a is free: no softmax, whose sum is a scale of A_e anyhow. It is kept orthogonal over the experts (any
invertible mixing of the bases is undone in a), so that the curvature is nearly diagonal in j:

    basis j    sum_e a_ej^2 (A_e^T A_e) * (phi'_e phi'_e^T / I)       a K x K matrix, then C^-1 on the other side
    mixing e   <A_e^T A_e * (phi'_e phi'_e^T / I), B_j C B_l^T>       an M x M matrix

exact for linear phi up to the terms between bases, phi' averaged over the inputs otherwise. Products are in the dtype
of the weights, sums of the loss in float64.

Legend: E experts, O outputs, I inputs, M bases, K rank.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tdmoe.forms.bases import ACTIVATIONS
from tdmoe.numerics import lapack

RIDGE = 1e-6  # of the mean diagonal, in solving for A
LEAST = 1e-12  # of the largest mean diagonal
DAMPING = 1e-3  # the same, of the curvature


class Point(NamedTuple):
    """The point that a fit has reached."""

    basis_MKI: Tensor
    mixing_EM: Tensor

    def plus(self, step: float, direction: Point) -> Point:
        """A step along a direction."""
        return Point(*(torch.add(x, d, alpha=step) for x, d in zip(self, direction, strict=True)))

    def minus(self, other: Point) -> Point:
        """The difference."""
        return Point(*(x - y for x, y in zip(self, other, strict=True)))

    def dot(self, other: Point) -> float:
        """Inner product."""
        return sum(float(torch.dot(x.flatten(), y.flatten())) for x, y in zip(self, other, strict=True))


class Value(NamedTuple):
    """Loss and gradient at a point, and what the curvature is made from."""

    loss: float
    gradient: Point
    left_EOK: Tensor
    slope_EKI: Tensor | None


class Mixtures(NamedTuple):
    """The same of mixtures M_EKI, whatever they are made of."""

    loss: float
    gradient_EKI: Tensor
    left_EOK: Tensor
    slope_EKI: Tensor | None


class Curvature(NamedTuple):
    """Inverses of the diagonal blocks: they serve several steps, and products are faster than solves."""

    basis_MKK: Tensor
    mixing_EMM: Tensor
    inputs_II: Tensor | None

    def solve(self, gradient: Point) -> Point:
        """The Gauss-Newton step for a gradient, block by block."""
        step_EM = (self.mixing_EMM @ gradient.mixing_EM[:, :, None])[:, :, 0]
        return Point(self.solve_bases(gradient.basis_MKI), step_EM)

    def solve_bases(self, gradient_MKI: Tensor) -> Tensor:
        """Solve for its part of the bases, or of any number of them with the block of a single one."""
        step_MKI = self.basis_MKK @ gradient_MKI
        return step_MKI if self.inputs_II is None else step_MKI @ self.inputs_II


class Objective:
    """f of one stack, or of one group of its experts."""

    def __init__(self, W_EOI: Tensor, activation: str, C_II: Tensor | None = None) -> None:
        """`C_II` positive definite, in the dtype of the weights or above."""
        self.activation, self._phi = activation, ACTIVATIONS[activation]
        self.shape = W_EOI.shape
        self.C_II = None if C_II is None else C_II.to(W_EOI)
        self._inputs_II = None if C_II is None else torch.linalg.inv(C_II.double()).to(W_EOI)
        self.W_EOI, self.weighted_EOI = W_EOI, W_EOI if self.C_II is None else W_EOI @ self.C_II  # W C
        self.norm = _dot(self.weighted_EOI, W_EOI)

    def value(self, at: Point) -> Value:
        """Loss, gradient and solved factors."""
        loss, dM_EKI, left_EOK, slope_EKI = self.of_mixtures(mix(at))
        dM_EN, basis_MN = dM_EKI.flatten(1), at.basis_MKI.flatten(1)
        gradient = Point((at.mixing_EM.T @ dM_EN).view_as(at.basis_MKI), dM_EN @ basis_MN.T)
        return Value(loss, gradient, left_EOK, slope_EKI)

    def of_mixtures(self, M_EKI: Tensor) -> Mixtures:
        """The same with mixtures as what is varied."""
        H_EKI = self._phi(M_EKI)
        HC_EKI = H_EKI if self.C_II is None else H_EKI @ self.C_II
        G_EKK = HC_EKI @ H_EKI.transpose(1, 2)
        left_EOK = _solved(self.weighted_EOI @ H_EKI.transpose(1, 2), _factor(G_EKK, RIDGE))
        R_EOI = torch.baddbmm(self.weighted_EOI, left_EOK, HC_EKI, beta=-1)  # (A H - W) C
        rest_EOI = R_EOI if self.C_II is None else torch.baddbmm(self.W_EOI, left_EOK, H_EKI, beta=-1)
        loss = _dot(R_EOI, rest_EOI) / self.norm
        slope_EKI = self._slope(M_EKI, H_EKI)
        dM_EKI = left_EOK.transpose(1, 2) @ R_EOI
        dM_EKI *= 2 / self.norm
        if slope_EKI is not None:
            dM_EKI *= slope_EKI
        return Mixtures(max(0.0, loss) if math.isfinite(loss) else math.inf, dM_EKI, left_EOK, slope_EKI)

    def curvature(self, at: Point, value: Value | Mixtures) -> Curvature:
        """Blocks at a point."""
        bases, rank, inputs = at.basis_MKI.shape
        Q_EKK = value.left_EOK.transpose(1, 2) @ value.left_EOK
        if value.slope_EKI is not None:
            Q_EKK *= value.slope_EKI @ value.slope_EKI.transpose(1, 2) / inputs
        Q_EN = Q_EKK.flatten(1) * (2 / self.norm)
        basis_MKK = (at.mixing_EM.square().T @ Q_EN).view(bases, rank, rank)
        BC_MKI = at.basis_MKI if self.C_II is None else at.basis_MKI @ self.C_II
        pairs_EMM = Q_EN.new_empty(len(Q_EN), bases, bases)
        for j, B_KI in enumerate(at.basis_MKI):  # symmetric: the later ones tell the earlier
            products_KLK = (B_KI @ BC_MKI[j:].flatten(0, 1).T).view(rank, bases - j, rank)
            pairs_EMM[:, j, j:] = pairs_EMM[:, j:, j] = Q_EN @ products_KLK.transpose(0, 1).flatten(1).T
        basis_MKK, pairs_EMM = (torch.cholesky_inverse(_factor(G, DAMPING)) for G in (basis_MKK, pairs_EMM))
        return Curvature(basis_MKK, pairs_EMM, self._inputs_II)

    def _slope(self, M_EKI: Tensor, H_EKI: Tensor) -> Tensor | None:
        """phi'(M)."""
        if self.activation == "identity":
            return None
        if self.activation == "tanh":
            return torch.addcmul(H_EKI.new_ones(()), H_EKI, H_EKI, value=-1)
        s_EKI = torch.sigmoid(M_EKI)
        return s_EKI * (1 + M_EKI * (1 - s_EKI))


def mix(at: Point) -> Tensor:
    """sum_j a_ej B_j, (E, K, I)."""
    return (at.mixing_EM @ at.basis_MKI.flatten(1)).view(-1, *at.basis_MKI.shape[1:])


def orthogonal(at: Point) -> Point:
    """The same mixtures with a^T a = E / M times the identity."""
    Q_EM, R_MM = lapack.qr(at.mixing_EM)
    scale = (len(Q_EM) / Q_EM.shape[1]) ** 0.5
    return Point((R_MM / scale @ at.basis_MKI.flatten(1)).view_as(at.basis_MKI), Q_EM * scale)


def _dot(X_EOI: Tensor, Y_EOI: Tensor) -> float:
    """Sum of products: along the inputs in the dtype of the weights, of these sums in float64."""
    return float((X_EOI * Y_EOI).sum(2).sum(dtype=torch.float64))


def _solved(X_EOK: Tensor, L_EKK: Tensor) -> Tensor:
    """X (L L^T)^-1, by two triangular solves: several times as fast as cholesky_solve on the CPU."""
    Y_EOK = torch.linalg.solve_triangular(L_EKK.transpose(1, 2), X_EOK, upper=True, left=False)
    solved_EOK: Tensor = torch.linalg.solve_triangular(L_EKK, Y_EOK, upper=False, left=False)
    return solved_EOK


def _factor(G_BNN: Tensor, ridge: float) -> Tensor:
    """Cholesky factors of symmetric matrices, after `ridge` times their mean diagonal was added; NaN where none is.

    One that is zero, as of an expert without weights, gets a ridge that is small beside the others'.
    """
    scale_B = G_BNN.diagonal(dim1=1, dim2=2).mean(1)
    scale_B = scale_B.clamp(min=max(LEAST * float(scale_B.max()), torch.finfo(G_BNN.dtype).tiny ** 0.5))
    eye_NN = torch.eye(G_BNN.shape[1], dtype=G_BNN.dtype, device=G_BNN.device)
    for times in (1.0, 1e2, 1e4):
        L_BNN, failed_B = lapack.cholesky_ex(G_BNN + times * ridge * scale_B[:, None, None] * eye_NN)
        if not failed_B.any():
            break
    return torch.where((failed_B > 0)[:, None, None], torch.nan, L_BNN)
