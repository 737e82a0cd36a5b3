"""One job from names to rows: what a worker needs to know, the work itself, and what comes back of it."""

from __future__ import annotations

import hashlib
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain

from diag.models import Model
from diag.probes import Settings, probe
from diag.results import Arrays, Tables
from diag.run import Job
from tdmoe.architecture import architecture
from tdmoe.checkpoint import Checkpoint
from tdmoe.joint import open_named
from tdmoe.problems import InputError, WeightError


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
    try:
        stack = open_named(checkpoint, architecture(checkpoint.config), task.job.layer, task.job.projection)
        tables, arrays = probe(task.job.probe).run(
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
        return failure(task.job, error)


def failure(job: Job, error: Exception) -> Failed:
    """Of a job that raised."""
    return Failed(job, *said(job.key, error))


def said(key: str, error: Exception) -> tuple[str, str]:
    """A user's mistake in its own words, anything else with its type and where its traceback will be; and that."""
    if isinstance(error, OSError) and error.filename is not None:  # a full disk, a folder that is gone
        message = f"{error.filename}: {error.strerror}"
    elif isinstance(error, InputError | WeightError):
        message = str(error)
    else:
        message = f"{type(error).__name__}: {error} (see errors/{key}.txt)"
    return message, "".join(traceback.format_exception(error))
