"""A stack in expert blocks or in strips, read from disk once when it fits the memory given, otherwise at every pass.

Legend: E experts, O output features, I input features, B experts of a block, K weights of a strip per expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tdmoe.problems import InputError, WeightError
from tdmoe.stack import ExpertStack

BLOCK_WEIGHTS = 8 << 20  # weights of a block: 32 MiB in float32, enough to keep two cores busy, small beside a stack
STRIP_WEIGHTS = 4096  # of each expert in one product of the expert mode


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """How a stack is read within `memory` bytes. `reads` counts passes over the file for the three mode Grams."""

    resident: bool
    block_experts: int
    strip_rows: int
    reads: int
    peak_bytes: int


def plan_blocks(stack: ExpertStack, memory: int, groups: int = 1) -> BlockPlan:
    """Keep the encoded stack if it fits `memory`, else stream it twice. InputError when not even one block fits.

    `peak_bytes` is what one job adds to the process: the stack or its blocks as stored, two decoded blocks, the three
    float64 Grams (those of the output and input modes once more for each of several `groups` of experts), and the
    eigensolver's copies of the largest. `reads` is the least: modes redone in float64 read a streamed stack again.
    """
    experts, outputs, inputs = stack.shape
    item, expert_weights = stack.dtype.itemsize, outputs * inputs
    rows = stack.shape[stack.strip_axis]
    row_weights = experts * expert_weights // rows  # of one strip row, all experts
    resident = stack.nbytes <= memory
    if not resident and (least := max(expert_weights, row_weights) * item) > memory:
        raise InputError(
            f"--memory {memory:,} bytes: the smallest block of layer {stack.layer} {stack.projection} takes "
            f"{least:,} bytes; give at least that"
        )
    block, strip = BLOCK_WEIGHTS // expert_weights, BLOCK_WEIGHTS // row_weights
    if not resident:
        block, strip = min(block, memory // (expert_weights * item)), min(strip, memory // (row_weights * item))
    block, strip = max(1, min(experts, block)), max(1, min(rows, strip))
    held = stack.nbytes if resident else max(block * expert_weights, strip * row_weights) * item
    decoded = 2 * max(block * expert_weights, experts * STRIP_WEIGHTS) * 8
    parts = groups * (outputs**2 + inputs**2) if groups > 1 else 0
    grams = 8 * (sum(n * n for n in stack.shape) + parts + 3 * max(stack.shape) ** 2)
    return BlockPlan(resident, block, strip, 1 if resident else 2, held + decoded + grams)


class BlockReader:
    """Hands out a stack's weights as stored; counts the bytes that really came from disk."""

    def __init__(self, stack: ExpertStack, memory: int, on_read: Callable[[int], None] | None = None) -> None:
        self.stack = stack
        self.plan = plan_blocks(stack, memory)
        self._on_read = on_read or (lambda count: None)
        self._resident: Tensor | None = None

    def blocks(self, bounds: list[int]) -> Iterator[tuple[int, Tensor]]:
        """(first expert, W_BOI) for every block; no block crosses one of `bounds` (0, ..., E)."""
        stack, size = self.stack, self.plan.block_experts
        ranges = [
            (a, min(a + size, hi)) for lo, hi in zip(bounds, bounds[1:], strict=False) for a in range(lo, hi, size)
        ]
        if self._resident is not None:
            yield from ((start, self._resident[start:stop]) for start, stop in ranges)
            return
        whole = torch.empty(stack.shape if self.plan.resident else (size, *stack.shape[1:]), dtype=stack.dtype)
        for start, stop in ranges:
            W_BOI = whole[start:stop] if self.plan.resident else whole[: stop - start]
            stack.read(start, stop, W_BOI)
            self._on_read((stop - start) * stack.bytes_read // stack.shape[0])
            yield start, W_BOI
        if self.plan.resident:
            self._resident = whole

    def strips(self) -> Iterator[Tensor]:
        """Y_EK: the same K weights of every expert, side by side; together they are the whole stack."""
        stack, step = self.stack, self.plan.strip_rows
        if self._resident is not None:
            yield from self._resident.flatten(1).split(STRIP_WEIGHTS * 4, dim=1)
            return
        rows = stack.shape[stack.strip_axis]
        shape = (stack.shape[0], step, stack.shape[3 - stack.strip_axis])
        buffer = torch.empty(shape, dtype=stack.dtype)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            strip = buffer if stop - start == step else torch.empty(shape[0], stop - start, shape[2], dtype=stack.dtype)
            stack.read_strip(start, stop, strip)
            self._on_read((stop - start) * stack.bytes_read // rows)
            yield strip.flatten(1)

    def refuse_non_finite(self) -> None:
        """WeightError that names the tensor, if any weight is NaN or infinite."""
        for start, W_BOI in self.blocks([0, self.stack.shape[0]]):
            bad = (~W_BOI.isfinite()).flatten(1).sum(1)
            if bad.any():
                expert = int(bad.nonzero()[0, 0])
                raise WeightError(
                    f"{self.stack.tensor_name(start + expert)}: {int(bad[expert])} weights of expert {start + expert} "
                    "are NaN or infinite; download the checkpoint again, or leave out the layer (--layers)"
                )
