"""One job from names to rows: what a worker needs to know, the work itself, and what comes back of it."""

from __future__ import annotations

import hashlib
import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from diag.declare.probe import StackSettings as Settings
from diag.declare.probe import stack_probe
from diag.models.model import Model
from diag.runs.folder import Job, RunFolder
from diag.runs.results import Arrays, Tables
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.problems import InputError, WeightError, out_of_memory
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.joint import Stack, open_named, refuse_non_finite


@dataclass(frozen=True)
class Task:
    """A job with everything that it depends on, as names, numbers and paths: weights are read where it is done."""

    job: Job
    model: Model
    settings: Settings
    device: str
    seed: int
    weights: str  # fingerprint of the weights that the run was planned on
    versions: Mapping[str, str]  # of the packages that it was planned with
    peak_bytes: int
    read_bytes: int


@dataclass(frozen=True)
class Done:
    job: Job
    tables: Tables
    arrays: Arrays
    seconds: float


@dataclass(frozen=True)
class Failed:
    job: Job
    message: str
    trace: str


Result = Done | Failed


def perform(task: Task, checkpoint: Checkpoint, on_read: Callable[[int], None] | None = None) -> Result:
    """Do a job. Whatever it raises becomes a Failed with its traceback, so that the others go on."""
    started = time.perf_counter()
    stack: Stack | None = None
    try:
        stack = open_named(checkpoint, architecture(checkpoint.config), task.job.layer, task.job.projection)
        tables, arrays = stack_probe(task.job.probe).run(
            stack,
            task.settings,
            device=task.device,
            seed=int.from_bytes(hashlib.sha256(f"{task.seed} {task.job.key}".encode()).digest()[:4]),
            model=task.model.name,
            on_read=on_read,
        )
        for row in chain(*tables.values()):
            for column, value in row.items():
                if isinstance(value, float) and not math.isfinite(value):
                    raise WeightError(
                        f"{task.job.key}: {column} came out as {value}; look at the weights of this stack"
                    )
        return Done(task.job, tables, arrays, time.perf_counter() - started)
    except Exception as error:
        return failure(task.job, error if stack is None else _cause(stack, error))


def _cause(stack: Stack, error: Exception) -> Exception:
    """Weights that are NaN or infinite, where those made a job fail: numerics say so in words of their own."""
    if isinstance(error, InputError | OSError) or out_of_memory(error):
        return error
    try:
        refuse_non_finite(stack)
    except Exception as found:
        return found if isinstance(found, WeightError) else error
    return error


@contextmanager
def failing(folder: RunFolder[Any], jobs: Iterable[Any]) -> Iterator[None]:
    """Let what is raised inside fail those of the jobs that are still to be done; a user's mistake ends the run."""
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        for job in jobs:
            if folder.outcomes[job.key].state == "pending":
                folder.fail(job, *said(job.key, error))


def measure(folder: RunFolder[Any], job: Any, work: Callable[[], tuple[Tables, Arrays]]) -> None:
    """Do a job and save what it gives; what it raises makes it a failed one, so that the others go on."""
    started = time.perf_counter()
    try:
        folder.finish(job, *work(), time.perf_counter() - started)
    except Exception as error:
        folder.fail(job, *said(job.key, error))


def failure(job: Job, error: Exception) -> Failed:
    """The failure of a job that raised."""
    return Failed(job, *said(job.key, error))


def said(key: str, error: Exception) -> tuple[str, str]:
    """A user's mistake in its own words, anything else with its type and where its traceback will be; and that."""
    message = out_of_memory(error)
    if message is None and isinstance(error, OSError) and error.filename is not None:  # a full disk, a folder gone
        message = f"{error.filename}: {error.strerror}"
    if message is None:
        known = isinstance(error, InputError | WeightError)
        message = str(error) if known else f"{type(error).__name__}: {error} (see errors/{key}.txt)"
    return message, "".join(traceback.format_exception(error))
