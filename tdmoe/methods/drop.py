"""Drop, a control: the layer's experts give nothing. Biases, where a family has them, stay."""

from __future__ import annotations

import torch

from tdmoe.forms.tucker import TuckerWeights
from tdmoe.method.contract import Control
from tdmoe.stacks.source import WeightSource


class Drop(Control):
    """W^ = 0."""

    NAME, DISPLAY = "drop", "experts dropped"

    def made(self, reader: WeightSource, device: str) -> TuckerWeights:
        """A Tucker form of rank 0 in every mode."""
        return TuckerWeights(torch.zeros(0, 0, 0), *(torch.zeros(n, 0) for n in reader.stack.shape))


METHOD = Drop()
