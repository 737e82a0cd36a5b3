"""Gate and up of a layer as one stack (E, 2O, I), so that a decomposition shares their input factor.

Both read the same input. The outputs of gate come first, whatever the order on disk; nothing is copied: blocks and
strips of the two are put together as they are read.

Legend: E experts, O outputs of one of the two, I inputs, B experts of a block, R rows and C columns as stored, K
weights of a strip per expert.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tdmoe.checkpoint.encodings import Encoding
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.checkpoint.safetensors_header import TensorEntry
from tdmoe.stacks.architecture import Architecture
from tdmoe.stacks.blocks import LEAVE_OUT, BlockPlan, BlockReader, plan_blocks
from tdmoe.stacks.families import JOINT, MEMBERS
from tdmoe.stacks.locate import open_stack
from tdmoe.stacks.source import Device
from tdmoe.stacks.stack import WeightStack

CHECK_BYTES = 256_000_000  # read at once, where a weight that is not finite is looked for


@dataclass(frozen=True)
class JointStack:
    """The gate and the up stack of one layer."""

    gate: WeightStack
    up: WeightStack

    @property
    def projection(self) -> str:
        return JOINT

    @property
    def checkpoint(self) -> Checkpoint:
        return self.gate.checkpoint

    @property
    def layer(self) -> int:
        return self.gate.layer

    @property
    def shape(self) -> tuple[int, int, int]:
        experts, outputs, inputs = self.gate.shape
        return experts, 2 * outputs, inputs

    @property
    def row_mode(self) -> str:
        return self.gate.row_mode

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        experts, outputs, inputs = self.shape
        return (experts, inputs, outputs) if self.row_mode == "input" else self.shape

    @property
    def encoding(self) -> Encoding:
        return self.gate.encoding

    @property
    def matrices(self) -> int:
        return len(MEMBERS[JOINT])

    @property
    def nbytes(self) -> int:
        return self.gate.nbytes + self.up.nbytes

    @property
    def bytes_read(self) -> int:
        return self.gate.bytes_read + self.up.bytes_read

    @property
    def all_entries(self) -> tuple[TensorEntry, ...]:
        """Every tensor that it is read from, each once."""
        return tuple(dict.fromkeys((*self.gate.all_entries, *self.up.all_entries)))

    def plan(self, memory: int) -> BlockPlan:
        """Plan of both, each within half of `memory`."""
        plans = [plan_blocks(part, memory // 2) for part in (self.gate, self.up)]
        squares = 8 * 4 * self.shape[1] ** 2  # the output Gram of both, and the eigensolver's copies
        return replace(plans[0], peak_bytes=sum(plan.peak_bytes for plan in plans) + squares)


class JointReader:
    """A BlockReader of a JointStack."""

    def __init__(self, stack: JointStack, memory: int, on_read: Callable[[int], None] | None = None) -> None:
        self.stack = stack
        self._readers = [BlockReader(part, memory // 2, on_read) for part in (stack.gate, stack.up)]

    def blocks(
        self, bounds: list[int], dtype: torch.dtype = torch.float32, device: Device = "cpu"
    ) -> Iterator[tuple[int, Tensor]]:
        """(first expert, W_BRC), gate and up side by side along the outputs; valid until the next one is asked for."""
        axis = 2 if self.stack.row_mode == "input" else 1
        both = (reader.blocks(bounds, dtype, device) for reader in self._readers)
        room = torch.empty(0, dtype=dtype, device=device)  # fresh pages for every block would cost more than the copy
        for (start, gate_BRC), (_, up_BRC) in zip(*both, strict=True):
            shape = list(gate_BRC.shape)
            shape[axis] *= 2
            if room.numel() < math.prod(shape):
                room = room.new_empty(math.prod(shape))
            yield start, torch.cat([gate_BRC, up_BRC], axis, out=room[: math.prod(shape)].view(shape))

    def strips(self, dtype: torch.dtype = torch.float32, device: Device = "cpu") -> Iterator[Tensor]:
        """Y_EK of gate, then of up."""
        for reader in self._readers:
            yield from reader.strips(dtype, device)


Stack = WeightStack | JointStack
Reader = BlockReader | JointReader


def open_named(checkpoint: Checkpoint, arch: Architecture, layer: int, projection: str) -> Stack:
    """The stack of a projection, or of gate and up together."""
    parts = [open_stack(checkpoint, arch, layer, member) for member in MEMBERS[projection]]
    return parts[0] if len(parts) == 1 else JointStack(*parts)


def plan(stack: Stack, memory: int) -> BlockPlan:
    """A plan to read the stack within `memory` bytes."""
    return stack.plan(memory) if isinstance(stack, JointStack) else plan_blocks(stack, memory)


def refuse_non_finite(stack: Stack, remedy: str = LEAVE_OUT) -> None:
    """WeightError that names tensor and expert, if any weight is NaN or infinite."""
    for part in (stack.gate, stack.up) if isinstance(stack, JointStack) else (stack,):
        BlockReader(part, max(CHECK_BYTES, 2 * part.nbytes // min(part.shape[:2]))).refuse_non_finite(remedy)


def reader(stack: Stack, memory: int, on_read: Callable[[int], None] | None = None) -> Reader:
    """Reader of the stack."""
    if isinstance(stack, JointStack):
        return JointReader(stack, memory, on_read)
    return BlockReader(stack, memory, on_read)
