"""Base of all forms: a compressed stack as a frozen dataclass, whose fields that are tensors are what is stored.

A field `left_EOK` is stored as `left`, the name of the parameter of the module that runs it; what else there is to
know comes from `spec`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Self

import torch
from torch import Tensor

Shape = tuple[int, int, int]
Spec = Mapping[str, Any]  # of a projection: {"kind": "tucker", "ranks": [R, P, Q]}, {"kind": "dense"}, ...


class Factored(ABC):
    """A compressed stack in one of the forms."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """(experts, outputs, inputs)."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks or sizes that tell how large it is; nothing where it has no choice of one."""
        return ()

    @property
    def parameters(self) -> int:
        """Stored numbers; codes of integers count one each, whatever their bits."""
        return sum(tensor.numel() for tensor in self._held().values())

    @abstractmethod
    def members(self, start: int, stop: int) -> Tensor:
        """W^_BOI of experts start..stop-1."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Description from which `linear` makes the module, and `restore` the factors."""

    def to(self, dtype: torch.dtype) -> Self:
        """The same with factors rounded to `dtype`."""
        return replace(self, **{name: tensor.to(dtype) for name, tensor in self._held().items()})  # type: ignore[type-var]

    def tensors(self) -> dict[str, Tensor]:
        """Tensors that are stored, by the names of its module's parameters, on the CPU."""
        return {_bare(name): tensor.cpu().contiguous() for name, tensor in self._held().items()}

    @classmethod
    def restore(cls, spec: Spec, tensors: Mapping[str, Tensor]) -> Self:
        """The inverse of `tensors` and `spec`."""
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
        stored = {name: tensors[_bare(name)] for name in names if _bare(name) in tensors}
        return cls(**stored, **{name: spec[name] for name in names if name in spec})

    def _held(self) -> dict[str, Tensor]:
        found = ((field.name, getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]
        return {name: value for name, value in found if isinstance(value, Tensor)}


def _bare(name: str) -> str:
    """A field's name without its dimensions."""
    return name.rpartition("_")[0]
