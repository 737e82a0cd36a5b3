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

import torch
from torch import Tensor

from tdmoe.forms.bases import BasisLinear, BasisWeights
from tdmoe.forms.dense import DenseLinear, DenseWeights
from tdmoe.forms.integers import IntegerLinear, IntegerWeights
from tdmoe.forms.low_rank import LowRankLinear, LowRankWeights
from tdmoe.forms.tucker import TuckerLinear, TuckerWeights
from tdmoe.forms.weights import Factored, Shape, Spec
from tdmoe.problems import InputError

__all__ = ["FORMS", "Factored", "Linear", "Shape", "Spec", "linear", "restore", "stored_bits"]
Linear = TuckerLinear | LowRankLinear | BasisLinear | IntegerLinear | DenseLinear


FORMS: dict[str, tuple[type[Factored], type[Linear]]] = {
    "tucker": (TuckerWeights, TuckerLinear),
    "low_rank": (LowRankWeights, LowRankLinear),
    "bases": (BasisWeights, BasisLinear),
    "integers": (IntegerWeights, IntegerLinear),
    "dense": (DenseWeights, DenseLinear),
}


def linear(shape: Shape, spec: Spec, dtype: torch.dtype | None = None) -> Linear:
    """The module of a projection, uninitialised. InputError for a form that is not known."""
    made: Linear = _form(spec)[1].from_spec(shape, spec, dtype)
    return made


def restore(spec: Spec, tensors: Mapping[str, Tensor]) -> Factored:
    """The factored stack that `tensors()` and `spec()` were taken from."""
    return _form(spec)[0].restore(spec, tensors)


def stored_bits(made: Factored) -> int:
    """Number of bits of the tensors that are saved."""
    return sum(8 * tensor.nbytes for tensor in made.tensors().values())


def _form(spec: Spec) -> tuple[type[Factored], type[Linear]]:
    if (kind := spec.get("kind")) not in FORMS:
        why = f"kind is {kind!r}, this tdmoe knows {', '.join(FORMS)}"
        raise InputError("quantization_config", None, why, "install a newer one")
    return FORMS[kind]
