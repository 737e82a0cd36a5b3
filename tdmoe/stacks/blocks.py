"""A stack in expert blocks or in strips, read from disk once when it fits the memory given, otherwise at every pass.

Reading runs ahead of the computation: several experts at a time, into the next block while this one is used.

Legend: E experts, R rows and C columns as stored, B experts of a block, X stored items of a row, K weights of a strip
per expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tdmoe.problems import InputError, WeightError
from tdmoe.stacks.source import Device
from tdmoe.stacks.stack import WeightStack

BLOCK_WEIGHTS = 8 << 20  # weights of a block: 32 MiB in float32, enough to keep two cores busy, small beside a stack
LEAVE_OUT = "download the checkpoint again, or leave out the layer (--layers)"
STRIP_WEIGHTS = 4096  # of each expert in one product of the expert mode


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """A plan to read a stack within `memory` bytes. `reads` counts passes over the file for the three mode Grams."""

    resident: bool
    block_experts: int
    strip_rows: int
    buffers: int  # blocks as stored that are held at once: 2 where one is read while the other is used
    reads: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Experts start..stop-1, rows first..last-1 of each."""

    start: int
    stop: int
    first: int
    last: int


def plan_blocks(stack: WeightStack, memory: int, groups: int = 1) -> BlockPlan:
    """Keep the encoded stack if it fits `memory`, else stream it twice. InputError when not even one block fits.

    `peak_bytes` is what one job adds to the process: the stack or its blocks as stored, two decoded blocks, the three
    float64 Grams, and the eigensolver's copies of the largest. Grams of the output and input modes count once more for
    each of several `groups` of experts. `reads` is the least: modes redone in float64 read a streamed stack again.
    """
    experts, rows, columns = stack.stored_shape
    expert_bytes, row_bytes = stack.stored_bytes(1, rows), stack.stored_bytes(experts, 1)
    resident = stack.nbytes <= memory
    if not resident and (least := max(expert_bytes, row_bytes)) > memory:
        raise InputError(
            "memory",
            f"{memory:,} bytes",
            f"the smallest block of layer {stack.layer} {stack.projection} takes {least:,} bytes",
            "give at least that",
        )
    block, strip = BLOCK_WEIGHTS // (rows * columns), BLOCK_WEIGHTS // (experts * columns)
    buffers = 1 if resident or 2 * max(expert_bytes, row_bytes) > memory else 2
    if not resident:
        block, strip = min(block, memory // buffers // expert_bytes), min(strip, memory // buffers // row_bytes)
    block, strip = max(1, min(experts, block)), max(1, min(rows, strip))
    held = stack.nbytes if resident else buffers * max(block * expert_bytes, strip * row_bytes)
    decoded = 2 * max(block * rows * columns, strip * experts * columns) * 8
    parts = groups * (rows**2 + columns**2) if groups > 1 else 0
    grams = 8 * (sum(n * n for n in stack.shape) + parts + 3 * max(stack.shape) ** 2)
    peak = held + stack.scale_bytes + decoded + grams
    return BlockPlan(resident, block, strip, buffers, 1 if resident else 2, peak)


class BlockReader:
    """Hands out a stack's weights as floats; counts the bytes that really came from disk."""

    def __init__(self, stack: WeightStack, memory: int, on_read: Callable[[int], None] | None = None) -> None:
        self.stack = stack
        self.plan = plan_blocks(stack, memory)
        self._on_read = on_read or (lambda count: None)
        self._resident: Tensor | None = None  # the whole stack as stored, once it has been read
        self._floats: Tensor | None = None  # room for a piece: fresh pages would cost more than the conversion

    def blocks(
        self, bounds: list[int], dtype: torch.dtype = torch.float32, device: Device = "cpu"
    ) -> Iterator[tuple[int, Tensor]]:
        """(first expert, W_BRC) for every block; no block crosses one of `bounds` (0, ..., E).

        A block is valid until the next one is asked for.
        """
        rows, size = self.stack.stored_shape[1], self.plan.block_experts
        pieces = [
            _Piece(a, min(a + size, hi), 0, rows)
            for lo, hi in zip(bounds, bounds[1:], strict=False)
            for a in range(lo, hi, size)
        ]
        for piece, stored_BRX in self._stored(pieces, device):
            yield piece.start, self._decode(piece, stored_BRX, dtype, device)

    def strips(self, dtype: torch.dtype = torch.float32, device: Device = "cpu") -> Iterator[Tensor]:
        """Y_EK: the same K weights of every expert, side by side; together they are the whole stack.

        A strip is valid until the next one is asked for.
        """
        experts, rows, _ = self.stack.stored_shape
        step = self.plan.strip_rows
        pieces = [_Piece(0, experts, row, min(row + step, rows)) for row in range(0, rows, step)]
        for piece, stored_ERX in self._stored(pieces, device):
            yield self._decode(piece, stored_ERX, dtype, device).flatten(1)

    def refuse_non_finite(self, remedy: str = LEAVE_OUT) -> None:
        """WeightError that names the tensor, if any weight is NaN or infinite."""
        for start, W_BRC in self.blocks([0, self.stack.shape[0]]):
            bad = (~W_BRC.isfinite()).flatten(1).sum(1)
            if bad.any():
                expert = int(bad.nonzero()[0, 0])
                count = int(bad[expert])
                raise WeightError(
                    f"{self.stack.tensor_name(start + expert)}: {count} weight{'s' * (count > 1)} of expert "
                    f"{start + expert} {'are' if count > 1 else 'is'} NaN or infinite; {remedy}"
                )

    @cached_property
    def _scales(self) -> Tensor | None:
        return self.stack.read_scales()

    def _decode(self, piece: _Piece, stored_BRX: Tensor, dtype: torch.dtype, device: Device) -> Tensor:
        scales = None if self._scales is None else self._scales.to(device)
        W_BRC = self.stack.decode(stored_BRX.to(device, non_blocking=True), scales, piece.start, piece.first)
        if W_BRC.dtype == dtype and W_BRC.is_contiguous():
            return W_BRC
        if self._floats is None or (self._floats.dtype, self._floats.device) != (dtype, W_BRC.device):
            self._floats = torch.empty(0, dtype=dtype, device=W_BRC.device)
        if self._floats.numel() < W_BRC.numel():
            self._floats.resize_(W_BRC.numel())
        return self._floats[: W_BRC.numel()].view(W_BRC.shape).copy_(W_BRC)

    def _stored(self, pieces: list[_Piece], device: Device) -> Iterator[tuple[_Piece, Tensor]]:
        """Every piece as stored. Reads run up to one piece ahead, or through the whole stack when it is kept."""
        if self._resident is not None:
            yield from ((p, self._resident[p.start : p.stop, p.first : p.last]) for p in pieces)
            return
        whole, buffers = self._memory(pieces, pinned=torch.device(device).type == "cuda")
        targets = [
            whole[p.start : p.stop, p.first : p.last]
            if whole is not None
            else buffers[i % len(buffers)][: p.stop - p.start, : p.last - p.first]
            for i, p in enumerate(pieces)
        ]
        ahead = len(buffers) - 1 if buffers else len(pieces)
        reads: list[list[Future[None]]] = []
        pool = ThreadPoolExecutor(self.stack.checkpoint.files.parallel, "tdmoe-read")
        try:
            for i, piece in enumerate(pieces):
                for n in range(len(reads), min(i + ahead + 1, len(pieces))):
                    experts = range(len(targets[n]))
                    reads.append([pool.submit(self._read, pieces[n], e, targets[n][e]) for e in experts])
                for read in reads[i]:
                    read.result()
                self._on_read(self._bytes(piece))
                yield piece, targets[i]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error, reads may be waiting for a network
        self._resident = whole

    def _memory(self, pieces: list[_Piece], *, pinned: bool) -> tuple[Tensor | None, list[Tensor]]:
        """Room for the whole stack where it is kept, otherwise the buffers that pieces use in turn."""
        experts, rows, _ = self.stack.stored_shape
        if self.plan.resident:
            return self.stack.empty(experts, rows, pinned=pinned), []
        experts, rows = max(p.stop - p.start for p in pieces), max(p.last - p.first for p in pieces)
        return None, [self.stack.empty(experts, rows, pinned=pinned) for _ in range(self.plan.buffers)]

    def _read(self, piece: _Piece, expert: int, target_RX: Tensor) -> None:
        self.stack.read(piece.start + expert, piece.first, piece.last, target_RX)

    def _bytes(self, piece: _Piece) -> int:
        experts, rows, _ = self.stack.stored_shape
        return self.stack.bytes_read * (piece.stop - piece.start) * (piece.last - piece.first) // (experts * rows)
