"""Dense form: weights as they are, beside projections that are factored.

Legend: E experts, O outputs, I inputs; T tokens, S routed tokens sorted by expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tdmoe.forms.grouped import StackLinear, grouped


@dataclass(frozen=True)
class DenseWeights:
    """W^_e = weight_EOI[e]."""

    weight_EOI: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(experts, outputs, inputs)."""
        experts, outputs, inputs = self.weight_EOI.shape
        return experts, outputs, inputs

    @property
    def ranks(self) -> tuple[int, ...]:
        """None to choose."""
        return ()

    def to(self, dtype: torch.dtype) -> DenseWeights:
        """Rounded to `dtype`."""
        return DenseWeights(self.weight_EOI.to(dtype))

    def tensors(self) -> dict[str, Tensor]:
        """Tensors by the names of the parameters of DenseLinear, on the CPU."""
        return {"weight": self.weight_EOI.cpu().contiguous()}

    def spec(self) -> dict[str, Any]:
        """Description from which DenseLinear is made."""
        return {"kind": "dense"}

    @staticmethod
    def restore(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> DenseWeights:
        """The inverse of `tensors` and `spec`."""
        return DenseWeights(tensors["weight"])

    def members(self, start: int, stop: int) -> Tensor:
        """W^_BOI of experts start..stop-1."""
        return self.weight_EOI[start:stop]


class DenseLinear(StackLinear):
    """A stack of E linear maps I -> O."""

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape, dtype=dtype))

    @classmethod
    def from_spec(
        cls, shape: tuple[int, int, int], spec: Mapping[str, Any], dtype: torch.dtype | None = None
    ) -> DenseLinear:
        """An empty module of that shape."""
        return cls(shape, dtype)

    def mix(self, z_SI: Tensor, counts: list[int]) -> Tensor:
        return grouped(z_SI, self.weight, counts)
