"""Engines that run jobs. `inline`: one after the other in this process; `ray`: diag/jobs/on_ray.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from diag.jobs.work import Result, Task, perform
from diag.models.device import here
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.joint import open_named


class Engine(Protocol):
    """Runs tasks; a failed one does not stop the others."""

    def device(self, text: str) -> str:
        """--device as a torch device name; InputError where there is none such."""

    def threads(self, device: str) -> int:
        """Threads that a job computes with; results agree to the last digit only where these do."""

    def check(self, tasks: Sequence[Task]) -> None:
        """InputError where a task could never run for want of processors, GPUs or memory."""

    def run(
        self,
        tasks: Sequence[Task],
        checkpoint: Checkpoint,
        on_read: Callable[[int], None],
        on_note: Callable[[str], None],
    ) -> Iterator[Result]:
        """Results of tasks, as they end."""


def engine(name: str) -> Engine:
    """The engine of that name; InputError when it is not installed."""
    if name == "inline":
        return Inline()
    from diag.jobs.on_ray import RayEngine

    return RayEngine()


class Inline:
    """One task after the other; while one is computed the next one's weights are already asked of the disk."""

    def device(self, text: str) -> str:
        return here(text)

    def threads(self, device: str) -> int:
        return torch.get_num_threads()

    def check(self, tasks: Sequence[Task]) -> None:
        pass

    def run(
        self,
        tasks: Sequence[Task],
        checkpoint: Checkpoint,
        on_read: Callable[[int], None],
        on_note: Callable[[str], None],
    ) -> Iterator[Result]:
        with ThreadPoolExecutor(1, "tdmoe-ahead") as ahead:
            for i, task in enumerate(tasks):
                following = tasks[i + 1] if i + 1 < len(tasks) else None
                left = task.read_bytes

                def reading(count: int, following: Task | None = following) -> None:
                    nonlocal left
                    left -= count
                    if following is not None and left <= 0 < left + count:  # the disk is idle from here on
                        ahead.submit(_ask_for, following, checkpoint)
                    on_read(count)

                yield perform(task, checkpoint, reading)


def _ask_for(task: Task, checkpoint: Checkpoint) -> None:
    stack = open_named(checkpoint, architecture(checkpoint.config), task.job.layer, task.job.projection)
    checkpoint.will_need(stack.all_entries)
