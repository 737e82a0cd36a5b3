"""MoBE as its authors train it (inclusionAI/MoBE train.py; Chen et al. 2025, sec. 3).

    W_e ~ s A_e phi(sum_j softmax(w_e)_j B_j),   s the standard deviation of the stack's weights (of a group's)

Start: experts in M consecutive groups; B_g = V_K^T and A_e the rows of U_K Sigma_K of the SVD of a group's stacked
weights; w one-hot. Loss: the mean square of prediction - W / s. Adam, one learning rate, all experts in every step.
Each 200 steps, the state after the step is kept if the loss before it was the least so far. The weights are float32
where the authors' are rounded to fp16, and M need not divide E.

The start is not the one it looks like: A is not divided by s, a one-hot w is nearly uniform after the softmax, and phi
bends what the SVD gave.

Two things can be set otherwise, to tell what they cost; neither is the authors':

    free mixing   w_e itself in place of softmax(w_e), from the values of the softmax: the same first prediction
    a metric      of the inputs, the mean square of (prediction - W / s) S, S S^T = C; the start is that of the weights

Legend: E experts, O outputs, I inputs, M bases, K rank.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from tdmoe.forms.bases import ACTIVATIONS, BasisWeights, Fit, zero
from tdmoe.mobe.sizes import Sizes
from tdmoe.numerics import lapack
from tdmoe.numerics.precision import full_precision

LEARNING_RATE = 0.07
STEPS = 30_000
SNAPSHOT = 200


def start(W_EOI: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor, Tensor]:
    """(A_EOK, B_MKI, w_EM) of the authors' initialisation; directions that a group does not have are zero."""
    experts, outputs, inputs = W_EOI.shape
    bases, rank = sizes
    A_EOK = W_EOI.new_zeros(experts, outputs, rank)
    B_MKI = W_EOI.new_zeros(bases, rank, inputs)
    w_EM = W_EOI.new_zeros(experts, bases)
    bounds = [-(-experts * g // bases) for g in range(bases + 1)]
    for g, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
        U_NK, s_K, V_KI = lapack.svd(W_EOI[first:last].flatten(0, 1), full_matrices=False)
        kept = min(rank, len(s_K))
        A_EOK[first:last, :, :kept] = (U_NK[:, :kept] * s_K[:kept]).view(last - first, outputs, kept)
        B_MKI[g, :kept] = V_KI[:kept]
        w_EM[first:last, g] = 1.0
    return A_EOK, B_MKI, w_EM


class Training:
    """The authors' loop, a step at a time; `C_II`, positive definite, is the metric of the loss."""

    def __init__(
        self, W_EOI: Tensor, sizes: Sizes, activation: str, *, free: bool = False, C_II: Tensor | None = None
    ) -> None:
        self.scale = float(W_EOI.std())
        self.activation, self.free = activation, free
        self._S_II = None if C_II is None else lapack.cholesky(C_II.double()).to(W_EOI)
        target_EOI = W_EOI / self.scale
        self.target_EOI = target_EOI if self._S_II is None else target_EOI @ self._S_II
        A_EOK, B_MKI, w_EM = start(W_EOI, sizes)
        self.state = [t.requires_grad_() for t in (A_EOK, B_MKI, w_EM.softmax(1) if free else w_EM)]
        self._optimizer = torch.optim.Adam(self.state, lr=LEARNING_RATE)

    def step(self) -> float:
        """One of Adam; returns the loss before it."""
        self._optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(self.predicted(), self.target_EOI)
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def predicted(self) -> Tensor:
        """A phi(softmax(w) B) S, of W S / s."""
        A_EOK, B_MKI, w_EM = self.state
        M_EKI = (self.mixing(w_EM) @ B_MKI.flatten(1)).view(len(w_EM), *B_MKI.shape[1:])
        H_EKI = ACTIVATIONS[self.activation](M_EKI)
        predicted_EOI: Tensor = A_EOK @ (H_EKI if self._S_II is None else H_EKI @ self._S_II)
        return predicted_EOI

    def mixing(self, w_EM: Tensor) -> Tensor:
        """Factors that bases are multiplied with."""
        return w_EM if self.free else w_EM.softmax(1)


def trained(
    W_EOI: Tensor,
    sizes: Sizes,
    activation: str = "silu",
    steps: int = STEPS,
    *,
    free: bool = False,
    C_II: Tensor | None = None,
) -> BasisWeights:
    """The best snapshot after so many steps; the last state where there are less than 200."""
    if float(W_EOI.std()) == 0.0:
        return zero(W_EOI, *sizes, activation)
    with full_precision():
        training = Training(W_EOI, sizes, activation, free=free, C_II=C_II)
        square = float(training.target_EOI.square().mean(dtype=torch.float64))
        best, kept = float("inf"), [tensor.detach() for tensor in training.state]
        began, curve = time.perf_counter(), []
        for done in range(1, steps + 1):
            loss = training.step()
            if done % SNAPSHOT == 0 or done == steps < SNAPSHOT:
                curve.append((done, time.perf_counter() - began, (loss / square) ** 0.5))
            if done % SNAPSHOT == 0 and loss < best:
                best, kept = loss, [tensor.detach().clone() for tensor in training.state]
    A_EOK, B_MKI, w_EM = kept
    made = Fit(tuple(curve), "steps")
    return BasisWeights(A_EOK * training.scale, B_MKI, training.mixing(w_EM), activation, fit=made)
