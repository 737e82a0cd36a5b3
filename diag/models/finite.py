"""Weights and sums that are NaN or infinite: found, and named by tensor and expert where they can be."""

from __future__ import annotations

import re
from typing import Any

import torch

from tdmoe.checkpoint.encodings import PLAIN
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.problems import InputError, WeightError
from tdmoe.stacks import joint
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.families import PROJECTIONS
from tdmoe.stacks.locate import open_stack

AGAIN = "download the checkpoint again"
WHOLE = "what runs the model needs every layer, but `spectra` and the like can leave this one out (--layers)"
EXPERTS_OF = re.compile(r".*layers\.(\d+)\..*\bexperts\b.*")


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether every entry is; makes no copy of the tensor."""
    return all(bool(end.isfinite()) for end in torch.aminmax(tensor.detach()))


def check_finite(checkpoint: Checkpoint, loaded: Any) -> None:
    """WeightError that names the first tensor of a loaded model with a weight that is NaN or infinite."""
    for name, weight in loaded.named_parameters():
        if weight.dtype not in PLAIN.values() or not weight.numel() or is_finite(weight):
            continue
        if match := EXPERTS_OF.fullmatch(name):
            _name_expert(checkpoint, int(match[1]))
        raise WeightError(f"{name}: holds weights that are NaN or infinite; {AGAIN}")


def _name_expert(checkpoint: Checkpoint, layer: int) -> None:
    """WeightError that names tensor and expert, where the layer's experts are in the checkpoint one by one."""
    try:
        arch = architecture(checkpoint.config)
        stacks = [open_stack(checkpoint, arch, layer, projection) for projection in PROJECTIONS]
    except InputError:  # in factor form
        return
    for stack in stacks:
        joint.refuse_non_finite(stack, f"{AGAIN}; {WHOLE}")
