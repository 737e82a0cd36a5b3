"""WeightStack: the experts of one (layer, projection), axes (expert, output, input) whatever the file's own order.

Blocks are read and decoded in the file's own order, (expert, row, column): rows are output features, or input
features where a family is input-major (`row_mode` says which), so that nothing is transposed on the way.

Legend: E experts, O output features, I input features, B experts of a block, R rows and C columns of an expert as
stored, X stored items of a row (see tdmoe/checkpoint/encodings.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tdmoe.checkpoint.encodings import PLAIN, SCALES, Encoding, scales_to_float
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.checkpoint.safetensors_header import TensorEntry
from tdmoe.stacks.families import Source

PIECE_BYTES = 4 << 20  # read at once where the other projection's weights lie in between


@dataclass(frozen=True)
class WeightStack:
    """W_EOI on disk. `entries` holds one tensor per expert, or the single fused one. Nothing is read until asked."""

    checkpoint: Checkpoint
    layer: int
    projection: str
    source: Source
    entries: tuple[TensorEntry, ...]
    scale_entries: tuple[TensorEntry, ...]  # as many as `entries`, or none where weights have no scales
    bias_entry: TensorEntry | None
    shape: tuple[int, int, int]
    encoding: Encoding

    @property
    def all_entries(self) -> tuple[TensorEntry, ...]:
        """Every tensor that the stack is read from."""
        return (*self.entries, *self.scale_entries, *([self.bias_entry] if self.bias_entry else []))

    @property
    def row_mode(self) -> str:
        """The mode that runs down the rows of an expert as stored."""
        return "input" if self.source.axes == "EIO" else "output"

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(E, R, C): the shape in the file's own order, this projection's part only."""
        experts, outputs, inputs = self.shape
        return (experts, inputs, outputs) if self.row_mode == "input" else self.shape

    @property
    def matrices(self) -> int:
        """One projection."""
        return 1

    @property
    def nbytes(self) -> int:
        """Bytes of the stack as stored, without scales."""
        return self.stored_bytes(self.shape[0], self.stored_shape[1])

    @property
    def bytes_read(self) -> int:
        """Bytes that one pass takes from the disk: twice the stack's own where two projections are interleaved."""
        return self.nbytes * (1 if self._contiguous else 2)

    @property
    def scale_bytes(self) -> int:
        """Bytes of all scales in memory (float32)."""
        return sum(4 * entry.nbytes // _item(entry) for entry in self.scale_entries)

    @property
    def stored_scale_bytes(self) -> int:
        """Bytes of all scales as stored: this projection's part, where one tensor holds two."""
        return sum(entry.nbytes for entry in self.scale_entries) // parts(self.source)

    def stored_bytes(self, experts: int, rows: int) -> int:
        """Bytes of so many rows of so many experts as stored."""
        return experts * rows * self.encoding.items(self.stored_shape[2]) * self.encoding.stored.itemsize

    def tensor_name(self, expert: int) -> str:
        """Name of the tensor that holds `expert`, for messages."""
        return self.entries[expert if len(self.entries) > 1 else 0].name

    def empty(self, experts: int, rows: int, *, pinned: bool = False) -> Tensor:
        """An uninitialised buffer (experts, rows, X) for `read`; `pinned` where it will be copied to a GPU."""
        items = self.encoding.items(self.stored_shape[2])
        return torch.empty(experts, rows, items, dtype=self.encoding.stored, pin_memory=pinned)

    def read(self, expert: int, start: int, stop: int, out_RX: Tensor) -> None:
        """Rows start..stop-1 of one expert as stored into `out_RX` (contiguous). May run in several threads."""
        entry = self.entries[expert if len(self.entries) > 1 else 0]
        rows, columns = self._rows(start, stop), self._columns
        width = self.encoding.items(self._disk_columns) * self.encoding.stored.itemsize
        base = expert * self._disk_rows * width if len(self.entries) < self.shape[0] else 0
        if self._contiguous:
            self.checkpoint.read_into(entry, base + rows.start * width, _bytes(out_RX))
            return
        step = max(1, PIECE_BYTES // (width * rows.step))
        for first in range(0, len(rows), step):
            piece = rows[first : first + step]
            stored = torch.empty(len(piece) * rows.step, width, dtype=torch.uint8)
            at = piece.start - piece.start % rows.step  # an odd row is read with the even one before it
            self.checkpoint.read_into(entry, base + at * width, _bytes(stored))
            items = stored.view(self.encoding.stored).view(len(piece), rows.step, -1)[:, piece.start % rows.step]
            out_RX[first : first + len(piece)] = items[:, columns.start : columns.stop : columns.step]

    def read_scales(self) -> Tensor | None:
        """Scales of all experts in float32, (E, S, T) as on disk, or None where weights have none."""
        if not self.scale_entries:
            return None
        tensors = []
        for entry in self.scale_entries:
            stored = torch.empty(entry.shape, dtype=SCALES[entry.dtype])
            self.checkpoint.read_into(entry, 0, _bytes(stored))
            tensors.append(scales_to_float(stored))
        return tensors[0] if tensors[0].ndim == 3 else torch.stack(tensors)

    def decode(self, stored_BRX: Tensor, scales_EST: Tensor | None, start: int, first_row: int = 0) -> Tensor:
        """W_BRC of experts from `start` and rows from `first_row` on; `scales_EST` on the same device."""
        scales = None if scales_EST is None else scales_EST[start : start + stored_BRX.shape[0]]
        rows = self._rows(first_row, first_row + stored_BRX.shape[1])
        return self.encoding.decode(stored_BRX, scales, rows, self._columns)

    def weights(self, start: int, stop: int) -> Tensor:
        """W_BOI of experts start..stop-1 in the smallest dtype that holds every weight (`encoding.natural`)."""
        rows = self.stored_shape[1]
        stored_BRX = self.empty(stop - start, rows)
        for b in range(stop - start):
            self.read(start + b, 0, rows, stored_BRX[b])
        W_BRC = self.decode(stored_BRX, self.read_scales(), start).to(self.encoding.natural)
        return W_BRC.transpose(1, 2).contiguous() if self.row_mode == "input" else W_BRC

    def view_in(self, whole: Tensor) -> Tensor:
        """The projection's part of a tensor as stored, with axes (E, O, I), or (O, I) where an expert is a tensor."""
        part = _cut(self.source.part, self.shape[1])
        if self.source.axes == "OI":
            return whole
        if self.source.axes == "EIO":
            return whole[:, :, part.start : part.stop : part.step].transpose(1, 2)
        return whole[:, part.start : part.stop : part.step]

    def bias(self) -> Tensor | None:
        """(E, O), or None where the family has no biases."""
        if self.bias_entry is None:
            return None
        full = torch.empty(self.bias_entry.shape, dtype=PLAIN[self.bias_entry.dtype])
        self.checkpoint.read_into(self.bias_entry, 0, _bytes(full))
        part = _cut(self.source.part, self.shape[1])
        return full[:, part.start : part.stop : part.step]

    @property
    def _contiguous(self) -> bool:
        """Tell whether rows of this projection follow each other on disk, with nothing in between."""
        return len(self._columns) == self._disk_columns and self._rows(0, 1).step == 1

    def _rows(self, start: int, stop: int) -> range:
        """Range of rows start..stop-1 of this projection in the matrix on disk."""
        if self.row_mode == "input":
            return range(start, stop)
        return _cut(self.source.part, self.shape[1])[start:stop]

    @property
    def _columns(self) -> range:
        """Range of the columns of this projection in a row on disk."""
        return _cut(self.source.part, self.shape[1]) if self.row_mode == "input" else range(self.shape[2])

    @property
    def _disk_rows(self) -> int:
        return self.shape[2] if self.row_mode == "input" else self.shape[1] * parts(self.source)

    @property
    def _disk_columns(self) -> int:
        return self.shape[1] * parts(self.source) if self.row_mode == "input" else self.shape[2]


def parts(source: Source) -> int:
    """Number of projections that share the O axis of the tensor."""
    return 1 if source.part == "whole" else 2


def _cut(part: str, outputs: int) -> range:
    """Range of the outputs of a projection along the O axis on disk."""
    starts = {"second": (outputs, 1), "even": (0, 2), "odd": (1, 2)}
    start, step = starts.get(part, (0, 1))
    return range(start, start + outputs * step, step)


def _item(entry: TensorEntry) -> int:
    return SCALES[entry.dtype].itemsize


def _bytes(tensor: Tensor) -> memoryview:
    assert tensor.is_contiguous()
    return memoryview(tensor.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
