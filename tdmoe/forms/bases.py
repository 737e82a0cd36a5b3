"""Mixture-of-basis-experts form (MoBE): W^_e = left_e phi(sum_j mixing_ej basis_j), phi entry by entry.

The scale of the weights is in `left`, and `mixing` is what is really multiplied with (of a softmax, its values). With
several groups the experts are cut into as many consecutive parts, each with bases of its own.

Legend: E experts, O outputs, I inputs, M bases of a group, G groups, N = G M bases in all, K rank; S routed tokens
sorted by expert, B experts of a block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tdmoe.forms.grouped import StackLinear, grouped, hit
from tdmoe.forms.weights import Factored
from tdmoe.numerics.precision import full_precision

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "silu": nn.functional.silu,
    "identity": lambda M: M,
}


def mixed(mixing_BM: Tensor, basis_MKI: Tensor, activation: str) -> Tensor:
    """phi(sum_j mixing_bj basis_j), (B, K, I)."""
    with full_precision():
        M_BKI = (mixing_BM @ basis_MKI.flatten(1)).view(-1, *basis_MKI.shape[1:])
    return ACTIVATIONS[activation](M_BKI)


def group_of(experts: list[int], count: int, groups: int) -> list[int]:
    """The group of each expert, of `count` in `groups` consecutive parts that differ by at most one."""
    return [e * groups // count for e in experts]


@dataclass(frozen=True)
class Fit:
    """An iterative fit: `curve` has (evaluations of the loss, seconds, relative error) as it went.

    `stopped` says why it ended: "converged", "steps" where it might have gone on, "no step helps" where rounding hides
    what is left to gain. `decrement` is the gain in the
    squared error that the last quadratic model still promised, relative to that error: a first-order certificate of
    this minimum, none of a global one.
    """

    curve: tuple[tuple[int, float, float], ...]
    stopped: str
    decrement: float | None = None


@dataclass(frozen=True)
class BasisWeights(Factored):
    """W^_e = left_EOK[e] phi(sum_j mixing_EM[e, j] basis_NKI[g M + j]), g the group of e.

    `fit` tells how it was found, where it was just now.
    """

    left_EOK: Tensor
    basis_NKI: Tensor
    mixing_EM: Tensor
    activation: str
    groups: int = 1
    fit: Fit | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.left_EOK.shape[0], self.left_EOK.shape[1], self.basis_NKI.shape[2]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Bases in all, and their rank."""
        return self.basis_NKI.shape[0], self.basis_NKI.shape[1]

    def spec(self) -> dict[str, Any]:
        bases, rank = self.ranks
        return {
            **{"kind": "bases", "bases": bases // self.groups, "rank": rank},
            **{"activation": self.activation, "groups": self.groups},
        }

    def members(self, start: int, stop: int) -> Tensor:
        count = len(self.left_EOK)
        made = [
            self.left_EOK[e] @ _mixed_of([e], self.mixing_EM, self.basis_NKI, self.activation, self.groups)[0]
            for e in range(start, min(stop, count))
        ]
        return torch.stack(made)


def zero(W_EOI: Tensor, bases: int, rank: int, activation: str) -> BasisWeights:
    """W^ = 0, of the shape, dtype and device of `W_EOI`."""
    experts, outputs, inputs = W_EOI.shape
    left_EOK, basis_MKI = W_EOI.new_zeros(experts, outputs, rank), W_EOI.new_zeros(bases, rank, inputs)
    fit = Fit(((0, 0.0, 0.0),), "converged", 0.0)
    return BasisWeights(left_EOK, basis_MKI, W_EOI.new_zeros(experts, bases), activation, fit=fit)


def _mixed_of(experts: list[int], mixing_EM: Tensor, basis_NKI: Tensor, activation: str, groups: int) -> Tensor:
    """(B, K, I) of these experts, one at a time, so that the digits do not depend on which others are asked for."""
    size, of = mixing_EM.shape[1], group_of(experts, len(mixing_EM), groups)
    return torch.cat(
        [
            mixed(mixing_EM[e, None], basis_NKI[g * size : (g + 1) * size], activation)
            for e, g in zip(experts, of, strict=True)
        ]
    )


class BasisLinear(StackLinear):
    """A stack of E linear maps I -> O out of shared bases.

    Bases are mixed only for experts that have tokens, a few at a time. Without gradients as many mixtures as there are
    bases are kept for the next call, those used last: at most the memory of the bases once more. A parameter changed in
    place, moved or loaded anew is noticed; one written to through `.data`, which torch does not count either, is not:
    forget() after it.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        bases: int,
        rank: int,
        activation: str,
        groups: int = 1,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        experts, outputs, inputs = shape
        self.activation, self.groups = activation, groups
        self.left = nn.Parameter(torch.empty(experts, outputs, rank, dtype=dtype))
        self.basis = nn.Parameter(torch.empty(groups * bases, rank, inputs, dtype=dtype))
        self.mixing = nn.Parameter(torch.empty(experts, bases, dtype=dtype))
        self._kept: OrderedDict[int, Tensor] = OrderedDict()
        self._kept_of: tuple[Any, ...] = ()

    def mix(self, z_SI: Tensor, counts: list[int]) -> Tensor:
        pieces = [
            grouped(grouped(x_SI, self.mixtures(some), theirs), self.left[some], theirs)
            for some, theirs, x_SI in hit(z_SI, counts)
        ]
        return torch.cat(pieces) if pieces else z_SI.new_zeros(0, self.left.shape[1])

    def forget(self) -> None:
        """Keep no mixture."""
        self._kept.clear()

    def mixtures(self, experts: list[int]) -> Tensor:
        """phi(sum_j mixing_ej basis_j) of these experts, (B, K, I)."""
        sources = (self.basis, self.mixing)
        if torch.is_grad_enabled() or any(t.is_inference() for t in sources):  # whose changes cannot be told
            return _mixed_of(experts, self.mixing, self.basis, self.activation, self.groups)
        state = tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in sources)
        if state != self._kept_of:
            self.forget()
            self._kept_of = state
        if missing := [e for e in experts if e not in self._kept]:
            made = _mixed_of(missing, self.mixing, self.basis, self.activation, self.groups)
            self._kept |= zip(missing, made, strict=True)
        found = [self._kept[e] for e in experts]
        for expert in experts:
            self._kept.move_to_end(expert)
        while len(self._kept) > len(self.basis):
            self._kept.popitem(last=False)
        return torch.stack(found)
