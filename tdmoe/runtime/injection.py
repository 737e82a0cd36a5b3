"""Residuals of prescribed properties, put onto the experts of a model: which error of an expert is it that hurts?

For every expert a residual X_e is drawn, of one of the families

    isotropic   Gaussian entries
    flat        all min(O, I) singular values equal, random directions: least operator norm at its Frobenius norm
    rank_one    u v^T, random directions: largest operator norm at its Frobenius norm
    along       K equal singular values, inputs' side in the top K eigenvectors of the inputs' second moment C
    against     the same in the bottom K eigenvectors: the same singular values, another functional error

or taken from what a method leaves, and scaled by one number an expert so that, with s the size,

    frobenius    ||s E_e||_F = s ||W_e||_F
    operator     ||s E_e||_2 = s ||W_e||_2
    functional   ||s E_e C^(1/2)||_F = s ||W_e C^(1/2)||_F

holds to rounding: norms are computed, not expected. All errors of s E (tdmoe/numerics/errors.py) follow in closed form
from the norms of X and W, for every design and size, without touching a weight again.

Legend: E experts, O outputs, I inputs, K directions of a subspace, N the smaller of O and I.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tdmoe.numerics import lapack
from tdmoe.numerics.eigen import eigenvectors
from tdmoe.numerics.errors import weighted
from tdmoe.numerics.operator_norm import norms_of_matrices
from tdmoe.problems import InputError, WeightError
from tdmoe.runtime.calibration import experts_modules
from tdmoe.runtime.modules import dense_view

FAMILIES = ("isotropic", "flat", "rank_one", "along", "against")
DESIGNS = ("frobenius", "operator", "functional")
SHARE = 1 / 8  # of the input directions that `along` and `against` use
UNSEEN = 1e-6  # of what the weights' own norm is to their Frobenius norm: below, float32 holds no such residual

Place = tuple[int, str]  # layer, projection


@dataclass(frozen=True)
class Norms:
    """Norms of every expert's matrix, in float64; `own_E` under the second moment of its own inputs, where known."""

    frobenius_E: Tensor
    operator_E: Tensor
    functional_E: Tensor
    own_E: Tensor | None

    @staticmethod
    def of(X_EOI: Tensor, C_II: Tensor, own: Callable[[int], Tensor] | None = None) -> Norms:
        """||X||_F, ||X||_2, ||X C^(1/2)||_F, ||X C_e^(1/2)||_F; `own(e)` is C_e."""
        C_II = C_II.to(X_EOI.device, torch.float64)
        plain, pooled, owned = [], [], []
        for e, X_OI in enumerate(X_EOI):
            X_OI = X_OI.double()
            plain.append(float(X_OI.square().sum()))
            pooled.append(weighted(X_OI, C_II))
            if own is not None:
                owned.append(weighted(X_OI, own(e).to(X_OI)))
        operator_E = torch.from_numpy(norms_of_matrices(X_EOI).lower_B)
        return Norms(_root(plain), operator_E, _root(pooled), None if own is None else _root(owned))

    def of_design(self, design: str) -> Tensor:
        """(E,): the norm that a design holds equal."""
        found: Tensor = getattr(self, f"{design}_E")
        return found

    def scale(self, whole: Norms, design: str) -> Tensor:
        """(E,): what makes residuals of these norms as large as the weights. Nothing is left nothing.

        WeightError where a residual is there that the design's norm does not see.
        """
        ours_E, theirs_E = self.of_design(design), whole.of_design(design)
        unseen = (ours_E * whole.frobenius_E <= UNSEEN * self.frobenius_E * theirs_E) & (
            self.frobenius_E * theirs_E > 0
        )
        if unseen.any():
            raise WeightError(
                f"expert {int(unseen.nonzero()[0])}: its inputs never point where the residual lies, so no size of it "
                f"has the asked {design} norm; leave design {design} or this family out"
            )
        return torch.where(ours_E > 0, theirs_E / ours_E.clamp(min=torch.finfo(torch.float64).tiny), 0.0)


@dataclass(frozen=True)
class Errors:
    """Relative errors of what was injected, over all its stacks; None where statistics of each expert are missing."""

    weight: float
    functional: float
    functional_expert: float | None
    operator: float

    def times(self, size: float) -> Errors:
        """Norms of a residual `size` times as large: they are homogeneous."""
        own = self.functional_expert
        return Errors(
            size * self.weight, size * self.functional, None if own is None else size * own, size * self.operator
        )


def errors(scales: Mapping[Place, Tensor], residuals: Mapping[Place, Norms], whole: Mapping[Place, Norms]) -> Errors:
    """Errors of E_e = scale_e X_e, as in tdmoe/numerics/errors.py, of every stack.

    Over stacks: the root of the mean square of weight and functional errors, the mean of operator errors.
    """
    found: list[tuple[float, float, float | None, float]] = []
    for place, scale_E in scales.items():
        X, W = residuals[place], whole[place]
        own = None if X.own_E is None or W.own_E is None else _relative(scale_E * X.own_E, W.own_E)
        there = W.operator_E > 0
        operator = float((scale_E * X.operator_E)[there].div(W.operator_E[there]).mean()) if there.any() else 0.0
        plain = _relative(scale_E * X.frobenius_E, W.frobenius_E)
        found.append((plain, _relative(scale_E * X.functional_E, W.functional_E), own, operator))
    weight, functional, owned, operators = zip(*found, strict=True)
    known = [error for error in owned if error is not None]
    return Errors(
        _rms(weight), _rms(functional), _rms(known) if len(known) == len(owned) else None, sum(operators) / len(found)
    )


def directions(C_II: Tensor) -> Tensor:
    """Eigenvectors of C as columns, the largest eigenvalue first."""
    return eigenvectors(C_II.double())[1].float()


def draw(
    family: str, shape: tuple[int, int, int], V_II: Tensor, generator: torch.Generator, share: float = SHARE
) -> Tensor:
    """X_EOI of a family, on the generator's device, of no particular size. `V_II`: the inputs' `directions`."""
    experts, outputs, inputs = shape
    if family == "isotropic":
        return _gaussian(shape, generator)
    if family == "rank_one":
        u_EO1, v_E1I = _gaussian((experts, outputs, 1), generator), _gaussian((experts, 1, inputs), generator)
        return u_EO1 * v_E1I
    if family == "flat":
        Q_ELN = _orthonormal((experts, max(outputs, inputs), min(outputs, inputs)), generator)
        return Q_ELN if outputs >= inputs else Q_ELN.transpose(1, 2).contiguous()
    rank = subspace(outputs, inputs, share)
    chosen_IK = {"along": V_II[:, :rank], "against": V_II[:, -rank:]}[family]
    X_EOI: Tensor = _orthonormal((experts, outputs, rank), generator) @ chosen_IK.T.to(V_II)
    return X_EOI


def subspace(outputs: int, inputs: int, share: float = SHARE) -> int:
    """K: directions that `along` and `against` use."""
    return max(1, min(outputs, round(share * inputs)))


class Injector:
    """Adds residuals to the dense experts of a loaded transformers model, and takes them back bit for bit."""

    def __init__(self, model: Any, places: list[Place]) -> None:
        """Keeps a copy of the weights at these places. InputError where a layer has no experts."""
        modules = experts_modules(model)
        if missing := sorted({layer for layer, _ in places} - set(modules)):
            raise InputError(
                f"layer {missing[0]}", why="has no experts in this model", remedy=f"it has {sorted(modules)}"
            )
        self._views = {place: dense_view(modules[place[0]], place[1]) for place in places}
        self.weights = {place: view.clone() for place, view in self._views.items()}

    @contextmanager
    def injected(
        self, residuals: Mapping[Place, Tensor], scales: Mapping[Place, Tensor], size: float
    ) -> Iterator[None]:
        """W_e + size scale_e X_e inside the block, W_e again after it, whatever happens."""
        try:
            for place, X_EOI in residuals.items():
                factor_E = (size * scales[place]).to(X_EOI)
                self._views[place].copy_(self.weights[place] + factor_E[:, None, None] * X_EOI)
            yield
        finally:
            for place in residuals:
                self._views[place].copy_(self.weights[place])


def _gaussian(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _orthonormal(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Orthonormal columns, uniformly distributed."""
    Q, R = lapack.qr(_gaussian(shape, generator))
    oriented: Tensor = Q * R.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    return oriented


def _relative(part_E: Tensor, whole_E: Tensor) -> float:
    lost, whole = float(part_E.norm()), float(whole_E.norm())
    return lost / whole if whole > 0 else 0.0


def _rms(values: Any) -> float:
    return float((sum(value**2 for value in values) / len(values)) ** 0.5)


def _double(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _root(squares: list[float]) -> Tensor:
    return _double([max(0.0, square) for square in squares]).sqrt()
