"""The numerics' view of a stack: its weights, block by block or strip by strip, and nothing of files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from tdmoe.checkpoint.encodings import Encoding, Plain

Device = torch.device | str


class Shaped(Protocol):
    """Axes of a stack: (experts, outputs, inputs), and their order and encoding on disk."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def stored_shape(self) -> tuple[int, int, int]: ...

    @property
    def row_mode(self) -> str: ...

    @property
    def encoding(self) -> Encoding: ...

    @property
    def matrices(self) -> int:
        """Number of projections that lie side by side along the outputs."""


class WeightSource(Protocol):
    """A BlockReader, a JointReader, or one that changes the weights on the way."""

    @property
    def stack(self) -> Shaped: ...

    def blocks(
        self, bounds: list[int], dtype: torch.dtype = torch.float32, device: Device = "cpu"
    ) -> Iterator[tuple[int, Tensor]]:
        """(first expert, W_BRC) for every block; no block crosses one of `bounds` (0, ..., E)."""

    def strips(self, dtype: torch.dtype = torch.float32, device: Device = "cpu") -> Iterator[Tensor]:
        """Y_EK: the same K weights of every expert, side by side; together they are the whole stack."""


def stored_dtype(stack: Shaped) -> torch.dtype:
    """Dtype that factors are rounded to: that of the checkpoint, bf16 where it is quantised."""
    return stack.encoding.natural if isinstance(stack.encoding, Plain) else torch.bfloat16
