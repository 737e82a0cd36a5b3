"""Mean, a control: every expert replaced by the mean of all, which shows what keeping them apart is worth."""

from __future__ import annotations

import torch

from tdmoe.forms.tucker import TuckerWeights
from tdmoe.method.contract import Control
from tdmoe.numerics.products import mode_products
from tdmoe.stacks.source import WeightSource


class Mean(Control):
    """W^_e = sum_j W_j / E."""

    NAME, DISPLAY = "mean", "mean expert"

    def made(self, reader: WeightSource, device: str) -> TuckerWeights:
        """A Tucker form of rank 1 in the expert mode."""
        experts = reader.stack.shape[0]
        one_E1 = torch.ones(experts, 1, dtype=torch.float64)
        core = mode_products(reader, one_E1 / experts, None, None, dtype=torch.float64, device=device)
        return TuckerWeights(core, one_E1.to(device) if experts > 1 else None)


METHOD = Mean()
