"""Forms in which a compressed stack is stored. One file a form: the factors themselves, and the module that runs them.

    tucker     core and a factor for every mode that is cut                      TD-MoE, MoE-SVD, the mean expert
    low_rank   W_e = left_e right_e, on a base that all share or on none         SVD, SVD-LLM, D2-MoE
    bases      W_e = left_e phi(sum_j mixing_ej basis_j)                         MoBE
    integers   W_e = scale * codes, packed                                       RTN
    dense      W_e                                                               what was left as it was

A form depends on nothing but torch: whoever loads a checkpoint needs no method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from tdmoe.forms.bases import BasisLinear, BasisWeights
from tdmoe.forms.dense import DenseLinear, DenseWeights
from tdmoe.forms.integers import IntegerLinear, IntegerWeights
from tdmoe.forms.low_rank import LowRankLinear, LowRankWeights
from tdmoe.forms.tucker import TuckerLinear, TuckerWeights
from tdmoe.problems import InputError

Shape = tuple[int, int, int]
Spec = Mapping[str, Any]  # of a projection: {"kind": "tucker", "ranks": [R, P, Q]}, {"kind": "dense"}, ...
Linear = TuckerLinear | LowRankLinear | BasisLinear | IntegerLinear | DenseLinear


class Factored(Protocol):
    """A compressed stack in one of the forms."""

    @property
    def shape(self) -> Shape:
        """(experts, outputs, inputs)."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks or sizes that tell how large it is; nothing where it has no choice of one."""

    def members(self, start: int, stop: int) -> Tensor:
        """W^_BOI of experts start..stop-1."""

    def to(self, dtype: torch.dtype) -> Factored:
        """The same with factors rounded to `dtype`."""

    def tensors(self) -> dict[str, Tensor]:
        """Tensors that are stored, by the names of its module's parameters, on the CPU."""

    def spec(self) -> dict[str, Any]:
        """Description from which `linear` makes the module, and `restore` the factors."""


EXPERTS: dict[str, Any] = {
    "tucker": TuckerWeights,
    "low_rank": LowRankWeights,
    "bases": BasisWeights,
    "integers": IntegerWeights,
    "dense": DenseWeights,
}
LINEARS: dict[str, Any] = {
    "tucker": TuckerLinear,
    "low_rank": LowRankLinear,
    "bases": BasisLinear,
    "integers": IntegerLinear,
    "dense": DenseLinear,
}


def linear(shape: Shape, spec: Spec, dtype: torch.dtype | None = None) -> Linear:
    """The module of a projection, uninitialised. InputError for a form that is not known."""
    made: Linear = LINEARS[_kind(spec)].from_spec(shape, spec, dtype)
    return made


def restore(spec: Spec, tensors: Mapping[str, Tensor]) -> Factored:
    """The factored stack that `tensors()` and `spec()` were taken from."""
    made: Factored = EXPERTS[_kind(spec)].restore(spec, tensors)
    return made


def parameters(made: Factored) -> int:
    """Stored numbers; codes of integers count one each, whatever their bits."""
    counted = getattr(made, "parameters", None)
    return counted if isinstance(counted, int) else sum(tensor.numel() for tensor in made.tensors().values())


def stored_bits(made: Factored) -> int:
    """Number of bits of the tensors that are saved."""
    return sum(8 * tensor.nbytes for tensor in made.tensors().values())


def _kind(spec: Spec) -> str:
    if (kind := spec.get("kind")) not in EXPERTS:
        raise InputError(
            "quantization_config",
            why=f"kind is {kind!r}, this tdmoe knows {', '.join(EXPERTS)}",
            remedy="install a newer one",
        )
    return str(kind)
