"""Probe `quality`: perplexity and zero-shot accuracy of the dense model and of compressed ones, in pairs.

A part of the run is one model on one data set. Every variant is compared with the dense model on the same windows or
documents. `losses` (nats, by window) and `correct` (1 or 0, by document) are kept as the parts' arrays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diag.probes.quality.zero_shot import MACRO, METRIC
from diag.runs.folder import Part, digest
from diag.statistics.evaluation import Mean, mean, paired, perplexity

NAME = "quality"
VERSION = 3
COLUMNS = (
    *(
        "method",
        "ratio",
        "compressed_layers",
        "bits_saved",
        "dataset",
        "metric",
        "value",
        "stderr",
        "samples",
        "status",
    ),
    *("loss_nats", "loss_nats_stderr", "loss_difference_nats", "loss_difference_nats_stderr"),
    *("accuracy_difference", "accuracy_difference_stderr", "tokens", "projections", "checkpoint", "bits_saved_bf16"),
    *("protocol", "calibration", "bits_saved_of"),
)
TABLES = {NAME: COLUMNS}
PERPLEXITY = "perplexity"

Row = dict[str, Any]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """A model of the run, as the table names it. `layers` are those that are compressed, as "1-2,5"."""

    method: str
    ratio: float | None = None
    layers: str = ""
    projections: str = ""
    checkpoint: str = ""

    @property
    def is_dense(self) -> bool:
        return not (self.layers or self.checkpoint)

    @property
    def labels(self) -> Row:
        return {"method": self.method, "ratio": self.ratio, "compressed_layers": self.layers}


DENSE = Subject("dense")


@dataclass(frozen=True)
class DataSet:
    """A text in windows or a task in documents. `protocol` is stated in the table, `identity` in a part's result."""

    name: str
    metric: str
    protocol: str
    identity: str
    tokens: int | None = None  # that are scored


@dataclass(frozen=True)
class Saved:
    """(dense - stored) / dense of what is counted (`bits_saved_of`): against the original's bits, and bf16's."""

    bits: float
    bits_bf16: float


def part_of(subject: Subject, name: str, metric: str) -> Part:
    """The unit of work and of resuming."""
    ratio = "" if subject.ratio is None else f"{subject.ratio:g}"
    layers = subject.layers and f"l{subject.layers}"
    words = [subject.checkpoint or subject.method.partition(":")[0], ratio, layers, name]
    about = {**subject.labels, "dataset": name, "metric": metric}
    short = digest([subject.method, subject.ratio, subject.layers, subject.projections, subject.checkpoint, name])[:8]
    said = re.sub(r"[^a-z0-9.-]+", "-", "-".join(filter(None, words)).lower()).strip("-.")
    return Part(NAME, f"{said[:80] or 'model'}-{short}", tuple(about.items()))


def perplexity_row(subject: Subject, data: DataSet, losses_W: Vector, dense_W: Vector | None, saved: Saved) -> Row:
    """A text's row; `dense_W` are the dense model's losses, None for itself and where it was not measured."""
    found = perplexity(losses_W)
    row = _row(subject, data, saved, len(losses_W)) | {"tokens": data.tokens}
    if not np.isfinite(losses_W).all():
        return row | {"status": "not_finite"}
    row |= {"loss_nats": found.loss.value, "loss_nats_stderr": found.loss.stderr}
    if math.isfinite(found.value):
        row |= {"value": found.value, "stderr": found.stderr}
    else:
        row |= {"status": "overflow"}
    if dense_W is not None:
        difference = paired(losses_W, dense_W)
        row |= {"loss_difference_nats": difference.value, "loss_difference_nats_stderr": difference.stderr}
    return row


def accuracy_row(subject: Subject, data: DataSet, correct_N: Vector, dense_N: Vector | None, saved: Saved) -> Row:
    """A task's row."""
    found = mean(correct_N)
    row = _row(subject, data, saved, found.count) | {"value": found.value, "stderr": found.stderr}
    return row | _difference(None if dense_N is None else paired(correct_N, dense_N))


def macro_row(
    subject: Subject, data: DataSet, correct: Sequence[Vector], dense: Sequence[Vector] | None, saved: Saved
) -> Row:
    """The plain mean over tasks, whose errors are independent: stderr = sqrt(sum stderr^2) / tasks."""
    found = _macro([mean(correct_N) for correct_N in correct])
    row = _row(subject, data, saved, found.count) | {"value": found.value, "stderr": found.stderr}
    if dense is None:
        return row
    return row | _difference(_macro([paired(*pair) for pair in zip(correct, dense, strict=True)]))


def _macro(tasks: Sequence[Mean]) -> Mean:
    stderrs = [task.stderr for task in tasks if task.stderr is not None]
    whole = len(stderrs) == len(tasks)
    stderr = math.sqrt(sum(s**2 for s in stderrs)) / len(tasks) if whole else None
    return Mean(sum(task.value for task in tasks) / len(tasks), stderr, sum(task.count for task in tasks))


def _difference(found: Mean | None) -> Row:
    return {} if found is None else {"accuracy_difference": found.value, "accuracy_difference_stderr": found.stderr}


def _row(subject: Subject, data: DataSet, saved: Saved, samples: int) -> Row:
    empty: Row = dict.fromkeys(COLUMNS)
    return {
        **(empty | subject.labels),
        **{"bits_saved": saved.bits, "bits_saved_bf16": saved.bits_bf16, "dataset": data.name, "metric": data.metric},
        **{"samples": samples, "status": "ok", "projections": subject.projections, "checkpoint": subject.checkpoint},
        "protocol": data.protocol,
    }


def macro(tasks: Sequence[DataSet]) -> DataSet:
    """The data set that stands for the tasks together."""
    names = ", ".join(task.name for task in tasks)
    return DataSet(MACRO, METRIC, f"plain mean over {names}", digest([task.identity for task in tasks]))
