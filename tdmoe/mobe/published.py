"""MoBE as its authors train it (inclusionAI/MoBE train.py; Chen et al. 2025, sec. 3).

    W_e ~ s A_e phi(sum_j softmax(w_e)_j B_j),   s the standard deviation of the stack's weights (of a group's)

Start: experts in M consecutive groups; B_g = V_K^T and A_e the rows of U_K Sigma_K of the SVD of a group's stacked
weights; w one-hot. Loss: the mean square of prediction - W / s. Adam, one learning rate, all experts in every step.
Each 200 steps, the state after the step is kept if the loss before it was the least so far. The weights are float32
where the authors' are rounded to fp16, and M need not divide E.

The start is not the one it looks like: A is not divided by s, a one-hot w is nearly uniform after the softmax, and phi
bends what the SVD gave.

Legend: E experts, O outputs, I inputs, M bases, K rank.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from tdmoe.forms.bases import ACTIVATIONS, BasisExperts, Fit, zero
from tdmoe.mobe.sizes import Sizes
from tdmoe.precision import full_precision

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
        U_NK, s_K, V_KI = torch.linalg.svd(W_EOI[first:last].flatten(0, 1), full_matrices=False)
        kept = min(rank, len(s_K))
        A_EOK[first:last, :, :kept] = (U_NK[:, :kept] * s_K[:kept]).view(last - first, outputs, kept)
        B_MKI[g, :kept] = V_KI[:kept]
        w_EM[first:last, g] = 1.0
    return A_EOK, B_MKI, w_EM


class Training:
    """The authors' loop, a step at a time."""

    def __init__(self, W_EOI: Tensor, sizes: Sizes, activation: str) -> None:
        self.scale = float(W_EOI.std())
        self.target_EOI = W_EOI / self.scale
        self.activation = activation
        self.state = [tensor.requires_grad_() for tensor in start(W_EOI, sizes)]
        self._optimizer = torch.optim.Adam(self.state, lr=LEARNING_RATE)

    def step(self) -> float:
        """One of Adam; returns the loss before it."""
        self._optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(self.predicted(), self.target_EOI)
        loss.backward()
        self._optimizer.step()
        return float(loss.detach())

    def predicted(self) -> Tensor:
        """A phi(softmax(w) B), of W / s."""
        A_EOK, B_MKI, w_EM = self.state
        M_EKI = (w_EM.softmax(1) @ B_MKI.flatten(1)).view(len(w_EM), *B_MKI.shape[1:])
        predicted_EOI: Tensor = A_EOK @ ACTIVATIONS[self.activation](M_EKI)
        return predicted_EOI


def trained(W_EOI: Tensor, sizes: Sizes, activation: str = "silu", steps: int = STEPS) -> BasisExperts:
    """The best snapshot after so many steps; the last state where there are less than 200."""
    if float(W_EOI.std()) == 0.0:
        return zero(W_EOI, *sizes, activation)
    training = Training(W_EOI, sizes, activation)
    square = float(training.target_EOI.square().mean(dtype=torch.float64))
    best, kept = float("inf"), [tensor.detach() for tensor in training.state]
    began, curve = time.perf_counter(), []
    with full_precision():
        for done in range(1, steps + 1):
            loss = training.step()
            if done % SNAPSHOT == 0 or done == steps < SNAPSHOT:
                curve.append((done, time.perf_counter() - began, (loss / square) ** 0.5))
            if done % SNAPSHOT == 0 and loss < best:
                best, kept = loss, [tensor.detach().clone() for tensor in training.state]
    A_EOK, B_MKI, w_EM = kept
    return BasisExperts(A_EOK * training.scale, B_MKI, w_EM.softmax(1), activation, fit=Fit(tuple(curve), "steps"))
