"""Controls: what a table shows when nothing is compressed, or everything is.

identity   the weights as they are, through the whole pipeline: nothing may change (a quantised original is decoded)
cast       rounded to bf16 and nothing else: what any rebuilt checkpoint loses
drop       W^ = 0: the layer's experts give nothing (biases, where a family has them, stay)
mean       every expert replaced by the mean of them all: what keeping them apart is worth
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch

from tdmoe.forms import Factored
from tdmoe.forms.dense import DenseWeights
from tdmoe.forms.tucker import TuckerWeights
from tdmoe.methods.base import Allotment, Method, StackStatistics, whole_stack
from tdmoe.numerics.products import mode_products
from tdmoe.stacks.source import WeightSource


@dataclass(frozen=True)
class Options:
    """None."""


class Control(Method):
    """A method without options, whose storage is what it is."""

    OPTIONS = Options
    LIGHT = True

    def fixes_storage(self, options: Any) -> bool:
        """Always."""
        return True

    def compress(
        self,
        reader: WeightSource,
        options: Any,
        allotment: Allotment,
        statistics: StackStatistics | None,
        *,
        device: str,
    ) -> Factored:
        """Whatever options and statistics are."""
        return self.made(reader, device)

    @abstractmethod
    def made(self, reader: WeightSource, device: str) -> Factored:
        """The control."""


class Identity(Control):
    """W^ = W."""

    NAME, DISPLAY = "identity", "identity"

    def made(self, reader: WeightSource, device: str) -> Factored:
        """The weights, exact in float32."""
        return DenseWeights(whole_stack(reader, device=device))


class Cast(Control):
    """W^ = W in bf16."""

    NAME, DISPLAY = "cast", "bf16 cast"

    def made(self, reader: WeightSource, device: str) -> Factored:
        """Rounded."""
        return DenseWeights(whole_stack(reader, device=device, dtype=torch.bfloat16))


class Drop(Control):
    """W^ = 0."""

    NAME, DISPLAY = "drop", "experts dropped"

    def made(self, reader: WeightSource, device: str) -> Factored:
        """A Tucker form of rank 0 in every mode."""
        return TuckerWeights(torch.zeros(0, 0, 0), *(torch.zeros(n, 0) for n in reader.stack.shape))


class Mean(Control):
    """W^_e = sum_j W_j / E."""

    NAME, DISPLAY = "mean", "mean expert"

    def made(self, reader: WeightSource, device: str) -> Factored:
        """A Tucker form of rank 1 in the expert mode."""
        experts = reader.stack.shape[0]
        one_E1 = torch.ones(experts, 1, dtype=torch.float64)
        core = mode_products(reader, one_E1 / experts, None, None, dtype=torch.float64, device=device)
        return TuckerWeights(core, one_E1.to(device) if experts > 1 else None)


OFFERED = (Identity(), Cast(), Drop(), Mean())
