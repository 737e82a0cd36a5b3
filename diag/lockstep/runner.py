"""One pass over token windows for the dense model and any number of variants; sums are saved now and then.

A chunk of windows goes through a layer before the next layer, in batches, so that a layer's weights are needed once a
chunk and only the chunk's residual streams are held. What is made of the streams is an accumulator's business: it
observes every layer of every batch, keeps sums, and gives them as arrays and takes them back. A pass that was stopped
goes on with the first window that is not in its sums.

Legend: W windows, B windows of a batch, T tokens of a window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from diag.lockstep.walk import Replaced, Stream, Walk
from diag.runs import partial

SAVE_SECONDS = 20.0
SAVE_SPACING = 20.0  # times what a save takes, before the next one

OnCount = Callable[[int], None]


class Sums(Protocol):
    """Sums over windows."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The sums as they are saved."""

    def restore(self, arrays: Mapping[str, NDArray[Any]], windows: int) -> None:
        """Take back what `arrays` gave, of so many windows."""


@dataclass(frozen=True)
class Step:
    """A batch of windows after a decoder layer: the streams, the dense model's first, with the models' numbers."""

    layer: int
    is_last: bool
    first: int  # window of the batch
    ids_BT: Tensor
    streams: Sequence[Stream]
    walk: Walk

    @property
    def windows(self) -> slice:
        """Places of the batch among all windows."""
        return slice(self.first, self.first + len(self.ids_BT))


class Accumulator(Sums, Protocol):
    """Sums over what a lockstep pass shows."""

    def observe(self, step: Step) -> None:
        """Add a batch after a layer."""


@dataclass(frozen=True)
class Lockstep:
    """The dense model's walk, and models beside it: experts put into it, or walks of models of their own."""

    walk: Walk
    models: Sequence[Replaced | Walk]
    batch: int  # windows

    def observe(self, chunk_WT: Tensor, first: int, accumulator: Accumulator, on_step: Callable[[Step], None]) -> None:
        """Walk a chunk of windows, the first of which is number `first`; `on_step` is told what was observed."""
        others = {number: model for number, model in enumerate(self.models) if isinstance(model, Walk)}
        inside = {number: model for number, model in enumerate(self.models) if not isinstance(model, Walk)}
        numbers, last = list(inside), len(self.walk.layers) - 1
        batches = list(chunk_WT.split(self.batch))
        steps = [self.walk.steps(batches, list(inside.values())), *(walk.steps(batches) for walk in others.values())]
        for (layer, batch, streams), *rest in zip(*steps, strict=True):
            found = [Stream(s.h_BTH, [numbers[m] for m in s.members if m >= 0], s.seen) for s in streams]
            for number, (_, _, (stream, *_)) in zip(others, rest, strict=True):
                found.append(Stream(stream.h_BTH, [number], stream.seen))
            step = Step(layer, layer == last, first + batch * self.batch, batches[batch], found, self.walk)
            accumulator.observe(step)
            on_step(step)


@dataclass(frozen=True)
class Resumed:
    """A pass over windows whose sums are saved in a run folder. `identity` is what saved sums must be of."""

    folder: Path
    identity: Any
    fresh: bool = False

    def run(
        self, windows_WT: Tensor, sums: Sums, observe: Callable[[Tensor, int], None], *, chunk: int, on_resume: OnCount
    ) -> None:
        """Observe what is left of the windows, `chunk` at a time; `on_resume` is told how many are in the sums."""
        identity = {"windows of": self.identity}
        found = None if self.fresh else partial.load(self.folder, identity)
        if found is not None:
            sums.restore(*found)
        done = 0 if found is None else found[1]
        on_resume(done)
        saved, pause = time.monotonic(), SAVE_SECONDS
        for start in range(done, len(windows_WT), chunk):
            chunk_WT = windows_WT[start : start + chunk]
            observe(chunk_WT, start)
            if time.monotonic() - saved > pause:
                started = time.monotonic()
                partial.save(self.folder, identity, start + len(chunk_WT), sums.arrays())
                saved = time.monotonic()
                pause = max(SAVE_SECONDS, SAVE_SPACING * (saved - started))


def lockstep(
    windows_WT: Tensor,
    together: Lockstep,
    accumulator: Accumulator,
    resumed: Resumed,
    *,
    chunk: int,
    on_step: Callable[[Step], None],
    on_resume: OnCount,
) -> None:
    """Walk all windows that `accumulator` has not seen."""
    device = next(together.walk.model.parameters()).device

    def observe(chunk_WT: Tensor, first: int) -> None:
        together.observe(chunk_WT.to(device), first, accumulator, on_step)

    resumed.run(windows_WT, accumulator, observe, chunk=chunk, on_resume=on_resume)


def batch_windows(tokens: int, window: int) -> int:
    """Windows of so many tokens together, at least one."""
    return max(1, tokens // window)


def chunk_windows(batch: int, window: int, hidden: int, dtype: str, streams: int, memory: int) -> int:
    """Windows of a chunk: as many whole batches as have their residual streams in a quarter of the memory."""
    held = stream_bytes(window, hidden, dtype, streams) * batch
    return max(1, memory // 4 // held) * batch


def stream_bytes(window: int, hidden: int, dtype: str, streams: int) -> int:
    """Bytes of a window in so many residual streams."""
    return int(streams * window * hidden * getattr(torch, dtype).itemsize)
