"""Stacks that are not on disk: one without some of its experts, for a jackknife, and one that is held in memory.

Nothing is multiplied again for a jackknife's bases: input and output Grams are sums over experts, so those of a group
are subtracted, and the expert Gram of fewer experts is a submatrix.

Legend: E experts, O outputs, I inputs, B experts of a block, R rows and C columns as stored, K weights of a strip per
expert, N size of a mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmoe.checkpoint.encodings import Encoding, Plain
from tdmoe.numerics.gram import ModeGram
from tdmoe.stacks.blocks import BLOCK_WEIGHTS
from tdmoe.stacks.source import Device, Shaped, WeightSource
from tdmoe.tucker.modes import Basis, basis


@dataclass(frozen=True)
class Axes:
    """A WeightSource's description of its stack."""

    shape: tuple[int, int, int]
    stored_shape: tuple[int, int, int]
    row_mode: str
    encoding: Encoding
    matrices: int


class Without:
    """A WeightSource of all experts but `first`..`last` - 1."""

    def __init__(self, reader: WeightSource, first: int, last: int) -> None:
        self._reader, self._first, self._last = reader, first, last
        whole: Shaped = reader.stack
        left = whole.shape[0] - (last - first)
        shape, stored = (left, *whole.shape[1:]), (left, *whole.stored_shape[1:])
        self.stack = Axes(shape, stored, whole.row_mode, whole.encoding, whole.matrices)

    def blocks(
        self, bounds: list[int], dtype: torch.dtype = torch.float32, device: Device = "cpu"
    ) -> Iterator[tuple[int, Tensor]]:
        """(first expert, counted without those left out; W_BRC)."""
        first, last = self._first, self._last
        back = [edge if edge <= first else edge + last - first for edge in bounds]
        for start, W_BRC in self._reader.blocks(sorted({*back, first, last}), dtype, device):
            if start < first:
                yield start, W_BRC
            elif start >= last:
                yield start - (last - first), W_BRC

    def strips(self, dtype: torch.dtype = torch.float32, device: Device = "cpu") -> Iterator[Tensor]:
        """Y_EK of the experts that are left."""
        for Y_EK in self._reader.strips(dtype, device):
            yield torch.cat([Y_EK[: self._first], Y_EK[self._last :]])


class Held:
    """A WeightSource of a stack in memory."""

    def __init__(self, W_EOI: Tensor) -> None:
        experts, outputs, inputs = W_EOI.shape
        shape = (experts, outputs, inputs)
        self._W_EOI, self.stack = W_EOI, Axes(shape, shape, "output", Plain(W_EOI.dtype), 1)

    def blocks(
        self, bounds: list[int], dtype: torch.dtype = torch.float32, device: Device = "cpu"
    ) -> Iterator[tuple[int, Tensor]]:
        """(first expert, W_BOI)."""
        _, outputs, inputs = self.stack.shape
        step = max(1, BLOCK_WEIGHTS // (outputs * inputs))
        for first, last in zip(bounds, bounds[1:], strict=False):
            for start in range(first, last, step):
                yield start, self._W_EOI[start : min(start + step, last)].to(device, dtype)

    def strips(self, dtype: torch.dtype = torch.float32, device: Device = "cpu") -> Iterator[Tensor]:
        """Y_EK: some outputs of every expert."""
        experts, _, inputs = self.stack.shape
        for Y_ERI in self._W_EOI.split(max(1, BLOCK_WEIGHTS // (experts * inputs)), dim=1):
            yield Y_ERI.to(device, dtype).flatten(1)


def groups(experts: int, count: int) -> list[int]:
    """[0, ..., E]: bounds of `count` groups of experts, one expert each where there are fewer; none below two."""
    count = min(count, experts)
    return [round(experts * g / count) for g in range(count + 1)] if count > 1 else [0, experts]


def bases_without(grams: Mapping[str, ModeGram], bounds: list[int], group: int, device: Device) -> dict[str, Basis]:
    """Bases of the stack without one group, from Grams that were summed by group."""
    first, last = bounds[group], bounds[group + 1]
    found = {}
    for mode, gram in grams.items():
        if mode == "expert":
            kept = [*range(first), *range(last, bounds[-1])]
            found[mode] = basis(gram.gram[kept][:, kept].to(device))
        else:
            found[mode] = basis((gram.gram - gram.parts[group]).to(device))
    return found
