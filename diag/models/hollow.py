"""A transformers model without its experts, for models that no memory holds.

Everything but the experts is loaded by transformers itself, with its own renaming, converting and tying: the model's
class is given experts modules whose weights are no parameters before it looks for weights, so that it never reads
theirs. `diag.lockstep.layer_experts` puts them in, a layer at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tdmoe.checkpoint.layout import METHOD
from tdmoe.compression.unquantised import QUANTIZATION
from tdmoe.problems import InputError
from tdmoe.runtime.calibration import experts_modules

WEIGHTS = ("gate_up_proj", "down_proj")
UNEXPECTED = "_keys_to_ignore_on_load_unexpected"
READABLE = (METHOD, "mxfp4")  # quantisations of experts alone: all the rest is stored as it is used


def hollow_class(kind: Any) -> Any:
    """A model class whose experts have their shapes, and no memory."""

    def initialise(self: Any, *arguments: Any, **named: Any) -> None:
        kind.__init__(self, *arguments, **named)
        for module in experts_modules(self).values():
            for name in WEIGHTS:
                weight = getattr(module, name)
                delattr(module, name)
                setattr(module, name, nothing(weight.shape, weight.dtype, weight.device))

    told = [*(getattr(kind, UNEXPECTED, None) or []), r"\.experts\."]  # theirs are in the files, and not wanted
    return type(kind.__name__, (kind,), {"__init__": initialise, "__module__": kind.__module__, UNEXPECTED: told})


def without_quantization(config: Any) -> Any:
    """The config of a checkpoint whose experts alone are quantised; InputError where other weights are too."""
    quantization = getattr(config, QUANTIZATION, None)
    if quantization is None:
        return config
    kind = quantization.get("quant_method") if isinstance(quantization, dict) else quantization.quant_method
    if str(getattr(kind, "value", kind)) not in READABLE:
        raise InputError(
            f"config.json: quantization_config.quant_method is {kind}; such a model is not walked layer by layer, give "
            "--memory that holds it whole, or a bf16 version"
        )
    delattr(config, QUANTIZATION)
    return config


def nothing(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of that shape that takes no memory."""
    return torch.empty((), dtype=dtype, device=device).expand(shape)
