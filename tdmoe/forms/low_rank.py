"""Low-rank form: W^_e = base_OI + left_e right_e, every expert with factors of its own; the base is shared, or absent.

Legend: E experts, O outputs, I inputs, K rank; T tokens, S routed tokens sorted by expert, B experts of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tdmoe.forms.grouped import StackLinear, grouped
from tdmoe.forms.weights import Factored
from tdmoe.numerics.precision import full_precision


@dataclass(frozen=True)
class LowRankWeights(Factored):
    """W^_e = base_OI + left_EOK[e] right_EKI[e]."""

    left_EOK: Tensor
    right_EKI: Tensor
    base_OI: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.left_EOK.shape[0], self.left_EOK.shape[1], self.right_EKI.shape[2]

    @property
    def ranks(self) -> tuple[int, ...]:
        """Rank of every expert."""
        return (self.left_EOK.shape[2],)

    def spec(self) -> dict[str, Any]:
        return {"kind": "low_rank", "rank": self.ranks[0], "base": self.base_OI is not None}

    def members(self, start: int, stop: int) -> Tensor:
        with full_precision():
            W_BOI = self.left_EOK[start:stop] @ self.right_EKI[start:stop]
        return W_BOI if self.base_OI is None else self.base_OI + W_BOI


class LowRankLinear(StackLinear):
    """A stack of E linear maps I -> O, each of rank K beside a base, which gate and up run once a token."""

    base: nn.Parameter | None

    def __init__(
        self, shape: tuple[int, int, int], rank: int, base: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        experts, outputs, inputs = shape
        self.left = nn.Parameter(torch.empty(experts, outputs, rank, dtype=dtype))
        self.right = nn.Parameter(torch.empty(experts, rank, inputs, dtype=dtype))
        self.base = nn.Parameter(torch.empty(outputs, inputs, dtype=dtype)) if base else None

    def enter(self, x_TI: Tensor) -> Tensor:
        """Inputs, and the base's outputs beside them."""
        return x_TI if self.base is None else torch.cat([x_TI, x_TI @ self.base.T], -1)

    def mix(self, z_SN: Tensor, counts: list[int]) -> Tensor:
        x_SI, shared_SO = z_SN.tensor_split([self.right.shape[2]], dim=-1)
        y_SO = grouped(grouped(x_SI, self.right, counts), self.left, counts)
        return y_SO if self.base is None else y_SO + shared_SO
