"""Experts of a hollow model, read by our own reader into one buffer for as long as their layer is walked.

Those of a checkpoint in factor form come as its factors.

Legend: E experts, O outputs, I inputs of a projection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from diag.lockstep.walk import Walk
from diag.models.finite import is_finite
from diag.models.hollow import WEIGHTS, nothing
from tdmoe.checkpoint.encodings import PLAIN
from tdmoe.checkpoint.layout import METHOD
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression.unquantised import QUANTIZATION
from tdmoe.forms import Spec
from tdmoe.problems import InputError
from tdmoe.runtime.modules import dense_view, factored_copy
from tdmoe.stacks import joint
from tdmoe.stacks.architecture import Architecture
from tdmoe.stacks.families import JOINT, PROJECTIONS
from tdmoe.stacks.locate import open_stack

STORED = {**PLAIN, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}


class LayerExperts:
    """The `resident` of a walk over a hollow model."""

    def __init__(self, walk: Walk, checkpoint: Checkpoint, arch: Architecture, memory: int) -> None:
        """InputError where a layer's experts are not in the checkpoint, or not as the model has them."""
        self.walk, self.checkpoint, self.arch, self.memory = walk, checkpoint, arch, memory
        self._buffers: dict[str, Tensor] = {}
        self._device = next(walk.model.parameters()).device
        self._factored = factored_layers(checkpoint)
        for layer, module in walk.experts.items():
            for name in WEIGHTS:
                weight = getattr(module, name)
                setattr(module, name, nothing(weight.shape, weight.dtype, self._device))
            if layer not in self._factored:
                self._check(layer, module)

    def resident(self, layer: int) -> AbstractContextManager[None]:
        """The layer's experts, while they are needed."""
        if layer not in self.walk.experts:
            return nullcontext()
        return self._factors(layer) if layer in self._factored else self._dense(layer)

    @contextmanager
    def _dense(self, layer: int) -> Iterator[None]:
        module: Any = self.walk.experts[layer]
        before = {name: getattr(module, name) for name in WEIGHTS}
        try:
            for name, weight in before.items():
                setattr(module, name, self._buffer(name, weight))
            for projection in PROJECTIONS:
                stack = open_stack(self.checkpoint, self.arch, layer, projection)
                reader = joint.reader(stack, self.memory)
                view_EOI = dense_view(module, projection)
                for start, W_BRC in reader.blocks([0, stack.shape[0]], torch.float32, self._device):
                    W_BOI = W_BRC.transpose(1, 2) if stack.row_mode == "input" else W_BRC
                    if not is_finite(W_BOI):
                        joint.refuse_non_finite(stack, "download the checkpoint again")
                    view_EOI[start : start + len(W_BOI)].copy_(W_BOI)
            yield
        finally:
            for name, weight in before.items():
                setattr(module, name, weight)

    @contextmanager
    def _factors(self, layer: int) -> Iterator[None]:
        specs = self._factored[layer]
        found = {
            projection: (
                specs.get(projection, {"kind": "dense"}),
                self._stored(f"{self.walk.names[layer]}.{projection}."),
            )
            for projection in ((JOINT, "down") if JOINT in specs else PROJECTIONS)
        }
        made = factored_copy(self.walk.experts[layer], found)
        with self.walk.replaced({layer: made}):
            yield

    def _stored(self, prefix: str) -> dict[str, Tensor]:
        """Every tensor under that name."""
        names = [name for name in self.checkpoint.names() if name.startswith(prefix)]
        found = {}
        for name, entry in zip(names, self.checkpoint.entries(names), strict=True):
            tensor = torch.empty(entry.shape, dtype=STORED[entry.dtype])
            if tensor.numel():
                data = tensor.view(-1).view(torch.uint8).numpy()
                self.checkpoint.read_into(entry, 0, memoryview(data))  # type: ignore[arg-type]
            found[name.removeprefix(prefix)] = tensor
        return found

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        """The same room for every layer."""
        if name not in self._buffers or self._buffers[name].shape != like.shape:
            self._buffers[name] = torch.empty(like.shape, dtype=like.dtype, device=self._device)
        return self._buffers[name]

    def _check(self, layer: int, module: Any) -> None:
        for projection in PROJECTIONS:
            stack, view_EOI = open_stack(self.checkpoint, self.arch, layer, projection), dense_view(module, projection)
            if tuple(view_EOI.shape) != tuple(stack.shape):
                raise InputError(
                    f"layer {layer} {projection}: {list(stack.shape)} in the checkpoint, {list(view_EOI.shape)} in "
                    "transformers' model; it cannot be walked layer by layer, give --memory that holds it whole"
                )


def factored_layers(checkpoint: Checkpoint) -> Mapping[int, Mapping[str, Spec]]:
    """{layer: {projection: spec}} of a checkpoint in factor form."""
    quantization = checkpoint.config.get(QUANTIZATION)
    if not isinstance(quantization, dict) or quantization.get("quant_method") != METHOD:
        return {}
    return {int(layer): specs for layer, specs in quantization["experts"].items()}
