"""A second-order fit of a mixture of basis experts: L-BFGS on the projected loss, preconditioned by its curvature.

Start: one basis with the leading input directions of all experts (the best for M = 1 and linear phi: the input-mode
Tucker decomposition); the others are the best mixtures of so few for the step that each expert would take from there by
itself; the whole scaled into the linear range of phi. Nothing is random. Every step lowers the loss (Armijo). Numbers
of bases are tried by a short fit each, and the best one is gone on with.

Legend: E experts, O outputs, I inputs, M bases, K rank.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tdmoe.forms.bases import BasisWeights, Fit, zero
from tdmoe.mobe.objective import Curvature, Objective, Point, Value, mix, orthogonal
from tdmoe.mobe.sizes import Sizes
from tdmoe.numerics import lapack
from tdmoe.numerics.eigen import eigenvectors, leading_eigenvectors
from tdmoe.numerics.precision import full_precision

STEPS = 600
SEARCH = 12  # evaluations of the loss that every number of bases is given
GAIN = 0.02  # of the squared error that more bases must gain in it
MEMORY = 10  # pairs that L-BFGS remembers
REFRESH = 5  # steps between two curvatures
SPREAD = 0.3  # of the mixtures before phi
WINDOW, TOLERANCE = 20, 1e-3  # converged where so many evaluations gain less than that of the squared error
EXACT = 1e-7  # a relative squared error that float32 cannot tell from none


class Fitter:
    """A fit that can be gone on with."""

    def __init__(self, objective: Objective, sizes: Sizes, directions_IK: Tensor) -> None:
        """`directions_IK` are the leading input directions, S^-T V."""
        self.objective, self.sizes = objective, sizes
        self._began, self._spent = 0.0, 0.0
        at = start(objective, sizes, directions_IK)
        self.at, self.value = at, objective.value(at)
        self.evaluations = 1
        self.curve = [(1, 0.0, self.value.loss**0.5)]
        self.stopped = "steps"
        self._curvature: Curvature | None = None
        self._pairs: deque[tuple[Point, Point, float]] = deque(maxlen=MEMORY)
        self._steps = 0

    def run(self, evaluations: int) -> None:
        """Go on until the loss was evaluated so often, or nothing more is gained."""
        self._began = time.perf_counter() - self._spent
        while self.evaluations < evaluations and not self._converged():
            if self._curvature is None or self._steps % REFRESH == 0:
                self._curvature = self.objective.curvature(self.at, self.value)
            direction = self._direction(self._curvature)
            slope = direction.dot(self.value.gradient)
            if slope >= 0 or not self._search(direction, slope):
                if not self._pairs:  # the curvature's own step does not help either
                    self.stopped = "no step helps"
                    break
                self._pairs.clear()
                self._curvature = None
        self._spent = time.perf_counter() - self._began

    def spend(self, seconds: float) -> None:
        """Count that much time in all for what was done until now, also elsewhere."""
        self._spent = seconds
        evaluations, _, error = self.curve[-1]
        self.curve[-1] = (evaluations, seconds, error)

    def decrement(self) -> float:
        """Gain that the quadratic model promises, relative to the loss."""
        gradient = self.value.gradient
        promised = gradient.dot(self.objective.curvature(self.at, self.value).solve(gradient)) / 2
        return promised / max(self.value.loss, EXACT)

    def made(self) -> BasisWeights:
        """The bases, mixing and left factors at this point."""
        fit = Fit(tuple(self.curve), self.stopped, self.decrement())
        basis, mixing = self.at
        return BasisWeights(self.value.left_EOK, basis, mixing, self.objective.activation, fit=fit)

    def _direction(self, curvature: Curvature) -> Point:
        """Minus the quasi-Newton step (Nocedal & Wright 2006, algorithm 7.4), the curvature as its first matrix."""
        q, shares = self.value.gradient, []
        for s, y, rho in reversed(self._pairs):
            shares.append(rho * s.dot(q))
            q = q.plus(-shares[-1], y)
        z = curvature.solve(q)
        for (s, y, rho), share in zip(self._pairs, reversed(shares), strict=True):
            z = z.plus(share - rho * y.dot(z), s)
        return Point(*(-t for t in z))

    def _search(self, direction: Point, slope: float) -> bool:
        """Take the first of the steps 1, 1/2, 1/4, ... that lowers the loss by enough."""
        step = 1.0
        while step > 1e-4:
            at = self.at.plus(step, direction)
            value = self.objective.value(at)
            self.evaluations += 1
            if value.loss <= self.value.loss + 1e-4 * step * slope:
                self._accept(at, value)
                return True
            step /= 2
        return False

    def _accept(self, at: Point, value: Value) -> None:
        s, y = at.minus(self.at), value.gradient.minus(self.value.gradient)
        if (curved := s.dot(y)) > 1e-10 * abs(s.dot(self.value.gradient)):
            self._pairs.append((s, y, 1 / curved))
        self.at, self.value = at, value
        self._steps += 1
        self.curve.append((self.evaluations, time.perf_counter() - self._began, value.loss**0.5))

    def _converged(self) -> bool:
        loss = self.value.loss
        before = next((e for n, _, e in reversed(self.curve) if n <= self.evaluations - WINDOW), None)
        if loss > EXACT and (before is None or before**2 - loss > TOLERANCE * loss):
            return False
        self.stopped = "converged"
        return True


def start(objective: Objective, sizes: Sizes, directions_IK: Tensor) -> Point:
    """One basis of the leading directions, and M - 1 others along the gradient there.

    The others are -sum_e u_ej Q^-1 d_e, with d_e the gradient of expert e's mixture at the one basis, Q the curvature
    of all of them, u_j the leading eigenvectors of <d_e, Q^-1 d_f>. The quadratic model gains most by these steps.
    """
    bases, rank = sizes
    first_KI = directions_IK[:, :rank].T
    first_KI = first_KI * (SPREAD / first_KI.square().mean().sqrt())
    experts = objective.shape[0]
    one = Point(first_KI[None], first_KI.new_full((experts, 1), experts**-0.5))  # whose curvature is the mean one
    if bases == 1:
        return Point(one.basis_MKI, torch.ones_like(one.mixing_EM))
    there = objective.of_mixtures(first_KI.expand(experts, -1, -1))
    step_EN = objective.curvature(one, there).solve_bases(there.gradient_EKI).flatten(1)
    gains_EE = (there.gradient_EKI.flatten(1) @ step_EN.T).double()
    u_EM = leading_eigenvectors((gains_EE + gains_EE.T) / 2, bases - 1)[1].to(first_KI)
    others_MKI = -(u_EM.T @ step_EN).view(bases - 1, *first_KI.shape)
    mixing_EM = torch.cat([torch.ones_like(one.mixing_EM), u_EM], 1)
    at = orthogonal(Point(torch.cat([one.basis_MKI, others_MKI]), mixing_EM))
    return Point(at.basis_MKI * (SPREAD / mix(at).square().mean().sqrt()), at.mixing_EM)


def input_directions(objective: Objective, W_EOI: Tensor) -> Tensor:
    """S^-T V, V the eigenvectors of sum_e S^T W_e^T W_e S."""
    M_II = sum((W_OI.T @ W_OI).double() for W_OI in W_EOI)
    assert isinstance(M_II, Tensor)
    if objective.C_II is None:
        return eigenvectors(M_II)[1].to(W_EOI)
    S_II = lapack.cholesky(objective.C_II.double())
    V_II = eigenvectors(S_II.T @ M_II @ S_II)[1]
    directions_II: Tensor = torch.linalg.solve_triangular(S_II.T, V_II, upper=True)
    return directions_II.to(W_EOI)


def fitted(
    W_EOI: Tensor, choices: Sequence[Sizes], activation: str, steps: int = STEPS, C_II: Tensor | None = None
) -> BasisWeights:
    """The best of the sizes, fitted; `C_II` is the metric of the inputs, positive definite.

    `steps` are evaluations of the loss of the sizes that are chosen; those of the search count where its loss is the
    same, without a metric.
    """
    with full_precision():
        began = time.perf_counter()
        scale = float(torch.linalg.vector_norm(W_EOI, dtype=torch.float64)) / W_EOI.numel() ** 0.5
        if scale == 0.0:
            return zero(W_EOI, *choices[0], activation)
        Q_EOI, W_EOI = _shortened(W_EOI / scale)
        plain = Objective(W_EOI, activation)
        chosen = _search(plain, input_directions(plain, W_EOI), choices, min(SEARCH, steps))
        if C_II is not None:
            weighed = Objective(W_EOI, activation, C_II)
            chosen = Fitter(weighed, chosen.sizes, input_directions(weighed, W_EOI))
        chosen.spend(time.perf_counter() - began)
        chosen.run(steps)
        made = chosen.made()
        left_EOK = made.left_EOK if Q_EOI is None else Q_EOI @ made.left_EOK
        return replace(made, left_EOK=left_EOK * scale)


def _shortened(W_EOI: Tensor) -> tuple[Tensor | None, Tensor]:
    """(Q, R) with W_e = Q_e R_e where outputs are more than inputs: A_e takes its Q_e in, the loss stays the same."""
    if W_EOI.shape[1] <= W_EOI.shape[2]:
        return None, W_EOI
    Q_EOI, R_EII = lapack.qr(W_EOI)
    return Q_EOI, R_EII


def _search(objective: Objective, directions_IK: Tensor, choices: Sequence[Sizes], evaluations: int) -> Fitter:
    """A short fit of each, from the middle up as long as the loss falls by GAIN, or else down; only the best is kept.

    More bases fall faster at first, so they must be clearly better early on to be better in the end. By the loss of the
    weights, whatever the metric: in one that falls steeply few bases begin far better than many, and end worse.
    """

    def tried(i: int) -> Fitter:
        found = Fitter(objective, choices[i], directions_IK)
        if len(choices) > 1:
            found.run(evaluations)
        return found

    def better(i: int, than: float) -> Fitter | None:
        """None where it is not, so that no more than two fits take memory."""
        found = tried(i) if 0 <= i < len(choices) else None
        return found if found is not None and found.value.loss < than else None

    at = len(choices) // 2
    best = tried(at)
    for step, enough in ((1, 1 - GAIN), (-1, 1.0)):
        before = at
        while (other := better(at + step, enough * best.value.loss)) is not None:
            at, best = at + step, other
        if at != before:
            break
    return best
