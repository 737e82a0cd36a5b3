"""ExpertStack: the experts of one (layer, projection), axes (expert, output, input) whatever the file's own order.

Legend: E experts, O output features, I input features, B experts of a block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmoe.checkpoint import Checkpoint
from tdmoe.families import LAYER_PREFIX, Architecture, Layout, Part, Source
from tdmoe.problems import InputError
from tdmoe.safetensors_header import TensorEntry

SAME_MODEL = "check that config.json and the weights are of the same model"
STORED = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@dataclass(frozen=True)
class ExpertStack:
    """W_EOI on disk. `entries` holds one tensor per expert, or the single fused one. Nothing is read until asked."""

    checkpoint: Checkpoint
    layer: int
    projection: str
    source: Source
    entries: tuple[TensorEntry, ...]
    shape: tuple[int, int, int]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the stack as stored; what is read when gate and up are interleaved is twice that."""
        experts, outputs, inputs = self.shape
        return experts * outputs * inputs * self.dtype.itemsize

    @property
    def bytes_read(self) -> int:
        """Bytes that one pass over the stack takes from the disk."""
        return self.nbytes * (2 if self.source.part in ("even", "odd") else 1)

    @property
    def strip_axis(self) -> int:
        """The axis of W_EOI along which a strip is contiguous on disk: 1 (output), or 2 when stored input-major."""
        return 2 if self.source.axes == "EIO" else 1

    def tensor_name(self, expert: int) -> str:
        """Name of the tensor that holds `expert`, for messages."""
        return self.entries[expert if len(self.entries) > 1 else 0].name

    def read(self, start: int, stop: int, out_BOI: Tensor) -> None:
        """Experts start..stop-1 into `out_BOI` (contiguous, this stack's dtype)."""
        for b, expert in enumerate(range(start, stop)):
            if self.strip_axis == 1:
                self._read_rows(expert, 0, self.shape[1], out_BOI[b])
            else:
                rows_IO = torch.empty(self.shape[2], self.shape[1], dtype=self.dtype)
                self._read_rows(expert, 0, self.shape[2], rows_IO)
                out_BOI[b].copy_(rows_IO.T)

    def read_strip(self, start: int, stop: int, out: Tensor) -> None:
        """Rows start..stop-1 of the strip axis of every expert: `out` is (E, rows, other axis), contiguous."""
        for expert in range(self.shape[0]):
            self._read_rows(expert, start, stop, out[expert])

    def bias(self) -> Tensor | None:
        """(E, O), or None where the family has no biases."""
        if self.source.bias is None:
            return None
        entry = self.checkpoint.entry(LAYER_PREFIX.format(layer=self.layer) + self.source.bias)
        experts, outputs, _ = self.shape
        full = torch.empty(experts, outputs * _parts(self.source.part), dtype=STORED[entry.dtype])
        if tuple(full.shape) != entry.shape:
            raise InputError(f"{entry.name}: shape is {list(entry.shape)}, expected {list(full.shape)}")
        self.checkpoint.read_into(entry, 0, _bytes(full))
        return _cut(full, self.source.part)

    def _read_rows(self, expert: int, start: int, stop: int, out: Tensor) -> None:
        """Rows start..stop-1 of one expert's matrix as stored (OI or IO), the asked part of the O axis only."""
        fused = len(self.entries) == 1 and self.source.axes != "OI"
        entry, part = self.entries[0 if fused else expert], self.source.part
        height, width = entry.shape[-2:]
        item = self.dtype.itemsize
        base = expert * height * width * item if fused else 0
        if self.strip_axis == 1:  # O runs down the rows: halves and wholes are contiguous
            first = start + (height // 2 if part == "second" else 0)
            self.checkpoint.read_into(entry, base + first * width * item, _bytes(out))
        elif part == "whole":
            self.checkpoint.read_into(entry, base + start * width * item, _bytes(out))
        else:  # O runs along the row and is shared with the other projection
            rows = torch.empty(stop - start, width, dtype=self.dtype)
            self.checkpoint.read_into(entry, base + start * width * item, _bytes(rows))
            out.copy_(_cut(rows, part))


def open_stack(checkpoint: Checkpoint, arch: Architecture, layer: int, projection: str) -> ExpertStack:
    """Find and check every tensor of a stack from headers alone; InputError names the tensor that is wrong."""
    shape = arch.shape(projection)
    source = _layout(checkpoint, arch, layer)[projection]
    template = LAYER_PREFIX.format(layer=layer) + source.template
    experts = range(arch.experts if source.axes == "OI" else 1)  # a fused name has no {expert} to fill
    entries = tuple(checkpoint.entry(template.format(expert=e)) for e in experts)
    expected = _disk_shape(source, shape)
    for entry in entries:
        if entry.shape != expected:
            raise InputError(
                f"{entry.name}: shape is {list(entry.shape)}, but config.json implies {list(expected)} "
                f"(experts {arch.experts}, hidden_size {arch.hidden}, expert width {arch.width})"
            )
        if entry.dtype not in STORED:
            raise InputError(f"{entry.name}: stored as {entry.dtype}; readable are {', '.join(STORED)}")
        if entry.dtype != entries[0].dtype:
            raise InputError(
                f"{entry.name}: stored as {entry.dtype}, but {entries[0].name} as {entries[0].dtype}; "
                "the experts of one layer must share a dtype"
            )
    return ExpertStack(checkpoint, layer, projection, source, entries, shape, STORED[entries[0].dtype])


def check_layers(checkpoint: Checkpoint, arch: Architecture) -> None:
    """Hold the layers and expert counts of config.json against the tensor names; InputError where they disagree."""
    found: dict[int, set[int]] = {}
    for layer, expert in _numbered(checkpoint, arch):
        found.setdefault(layer, set()).add(expert)
    for layer, experts in sorted(found.items()):
        if layer >= arch.depth + arch.extra_layers:
            raise InputError(
                f"config.json: num_hidden_layers is {arch.depth}, but layer {layer} holds experts too; {SAME_MODEL}"
            )
        if layer < arch.depth and layer not in arch.layers:
            raise InputError(
                f"config.json: layer {layer} should be dense, but the checkpoint holds experts for it; {SAME_MODEL}"
            )
        if (most := max(experts)) >= arch.experts:
            raise InputError(
                f"config.json: {arch.experts} experts, but layer {layer} holds expert {most} too; {SAME_MODEL}"
            )
    for layer in arch.layers:
        if layer not in found:
            _layout(checkpoint, arch, layer)  # raises, naming what was looked for


def _numbered(checkpoint: Checkpoint, arch: Architecture) -> list[tuple[int, int]]:
    """(layer, expert) of every expert weight by name; a fused tensor counts as its expert 0."""
    templates = {LAYER_PREFIX + source.template for layout in arch.family.layouts for source in layout.values()}
    number = r"(\d{1,6})"
    pattern = "|".join(
        re.escape(t).replace(r"\{layer\}", number).replace(r"\{expert\}", number) + "$" for t in sorted(templates)
    )
    matches = (re.match(pattern, name) for name in checkpoint.names())
    numbers = ([int(g) for g in m.groups() if g is not None] for m in matches if m)
    return [(n[0], n[1] if len(n) > 1 else 0) for n in numbers]


def _layout(checkpoint: Checkpoint, arch: Architecture, layer: int) -> Layout:
    """The family's layout that this layer uses: the first one any of whose tensors is there."""
    prefix = LAYER_PREFIX.format(layer=layer)
    for layout in arch.family.layouts:
        for source in layout.values():
            names = (prefix + source.template.format(expert=e) for e in range(arch.experts))
            if any(name in checkpoint for name in names):
                return layout
    packed = next((n for n in checkpoint.names() if n.startswith(prefix) and n.endswith("_blocks")), None)
    if packed is not None:
        raise InputError(f"{packed!r}: MXFP4-packed experts are not readable; convert to bf16 with transformers first")
    looked_for = " or ".join(repr(prefix + layout["down"].template.format(expert=0)) for layout in arch.family.layouts)
    raise InputError(
        f"layer {layer}: no expert weights of {arch.family.name} in the checkpoint, looked for {looked_for}; "
        f"{checkpoint.remedy()}"
    )


def _disk_shape(source: Source, shape: tuple[int, int, int]) -> tuple[int, ...]:
    experts, outputs, inputs = shape
    outputs *= _parts(source.part)
    return {"OI": (outputs, inputs), "EOI": (experts, outputs, inputs), "EIO": (experts, inputs, outputs)}[source.axes]


def _parts(part: Part) -> int:
    return 1 if part == "whole" else 2


def _cut(values: Tensor, part: Part) -> Tensor:
    """The asked part along the last axis."""
    half = values.shape[-1] // 2
    cuts = {"whole": slice(None), "first": slice(half), "second": slice(half, None)}
    return values[..., cuts.get(part, slice(part == "odd", None, 2))]


def _bytes(tensor: Tensor) -> memoryview:
    assert tensor.is_contiguous()
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
