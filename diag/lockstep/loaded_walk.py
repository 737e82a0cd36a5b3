"""A model loaded to be walked: whole in memory, or with its experts read layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch

from diag.lockstep.layer_experts import LayerExperts
from diag.lockstep.walk import Walk, Watch
from diag.models.model import Model
from diag.models.transformer import load_model
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.architecture import architecture


def load_walk(
    model: Model,
    checkpoint: Checkpoint,
    device: str,
    dtype: str,
    *,
    layer_memory: int | None = None,
    watching: Callable[[Any], Watch] | None = None,
) -> Walk:
    """The model's walk; within `layer_memory` its experts are read layer by layer, None for the whole model."""
    loaded = load_model(model, checkpoint.files, device, dtype, hollow=layer_memory is not None)
    walk = Walk(loaded) if watching is None else Walk(loaded, watch=watching(loaded))
    if layer_memory is not None:
        walk.resident = LayerExperts(walk, checkpoint, architecture(checkpoint.config), layer_memory).resident
    return walk


def weight_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """Bytes of all tensors in memory, from headers; those of packed four-bit weights count twice."""
    itemsize = int(getattr(torch, dtype).itemsize)
    entries = map(checkpoint.entry, checkpoint.names())
    return sum(max(entry.nbytes, prod(entry.shape) * itemsize * (1 + (entry.dtype == "U8"))) for entry in entries)
