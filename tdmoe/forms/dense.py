"""Dense form: weights as they are, beside projections that are factored.

Legend: E experts, O outputs, I inputs; T tokens, S routed tokens sorted by expert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tdmoe.forms.grouped import StackLinear, grouped
from tdmoe.forms.weights import Factored


@dataclass(frozen=True)
class DenseWeights(Factored):
    """W^_e = weight_EOI[e]."""

    weight_EOI: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        experts, outputs, inputs = self.weight_EOI.shape
        return experts, outputs, inputs

    def spec(self) -> dict[str, Any]:
        return {"kind": "dense"}

    def members(self, start: int, stop: int) -> Tensor:
        return self.weight_EOI[start:stop]


class DenseLinear(StackLinear):
    """A stack of E linear maps I -> O."""

    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*shape, dtype=dtype))

    def mix(self, z_SI: Tensor, counts: list[int]) -> Tensor:
        return grouped(z_SI, self.weight, counts)
