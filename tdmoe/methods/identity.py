"""Identity, a control: the weights as they are, through the whole pipeline. A quantised original is decoded."""

from __future__ import annotations

import torch

from tdmoe.forms.dense import DenseWeights
from tdmoe.method.contract import Control
from tdmoe.numerics.products import whole_stack
from tdmoe.stacks.source import WeightSource


class Identity(Control):
    """W^ = W."""

    NAME, DISPLAY = "identity", "identity"
    DTYPE = torch.float32

    def made(self, reader: WeightSource, device: str) -> DenseWeights:
        """The weights, exact in float32."""
        return DenseWeights(whole_stack(reader, device=device, dtype=self.DTYPE))


METHOD = Identity()
