"""Probe `quality`: perplexity and zero-shot accuracy of the dense model and of compressed ones, in pairs.

A part of the run is one model on one data set. Every variant is compared with the dense model on the same windows or
documents. `losses` (nats, by window) and `correct` (1 or 0, by document) are kept as the parts' arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diag.compression.compressing import Saved
from diag.lockstep.variant import Variant
from diag.probes.quality.columns import MACRO, METRIC, TABLES
from diag.runs.folder import Part, digest
from diag.statistics.evaluation import Mean, mean, paired, perplexity

NAME = "quality"
VERSION = 3
Row = dict[str, Any]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class DataSet:
    """A text in windows or a task in documents. `protocol` is stated in the table, `identity` in a part's result."""

    name: str
    metric: str
    protocol: str
    identity: str
    tokens: int | None = None  # that are scored


def part_of(variant: Variant, name: str, metric: str) -> Part:
    """The unit of work and of resuming."""
    about = {**variant.labels, "dataset": name, "metric": metric, "variant": variant.id}
    return Part(NAME, variant.part_name(name), tuple(about.items()))


def perplexity_row(variant: Variant, data: DataSet, losses_W: Vector, dense_W: Vector | None, saved: Saved) -> Row:
    """A text's row; `dense_W` are the dense model's losses, None for itself and where it was not measured."""
    found = perplexity(losses_W)
    row = _row(variant, data, saved, len(losses_W)) | {"tokens": data.tokens}
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


def accuracy_row(variant: Variant, data: DataSet, correct_N: Vector, dense_N: Vector | None, saved: Saved) -> Row:
    """A task's row."""
    found = mean(correct_N)
    row = _row(variant, data, saved, found.count) | {"value": found.value, "stderr": found.stderr}
    return row | _difference(None if dense_N is None else paired(correct_N, dense_N))


def macro_row(
    variant: Variant, data: DataSet, correct: Sequence[Vector], dense: Sequence[Vector] | None, saved: Saved
) -> Row:
    """The plain mean over tasks, whose errors are independent: stderr = sqrt(sum stderr^2) / tasks."""
    found = _macro([mean(correct_N) for correct_N in correct])
    row = _row(variant, data, saved, found.count) | {"value": found.value, "stderr": found.stderr}
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


def _row(variant: Variant, data: DataSet, saved: Saved, samples: int) -> Row:
    empty: Row = dict.fromkeys(TABLES[NAME])
    return {
        **(empty | variant.labels),
        **{"dataset": data.name, "metric": data.metric, **asdict(saved)},
        **{"samples": samples, "status": "ok", "projections": variant.projections, "checkpoint": variant.checkpoint},
        **{"protocol": data.protocol, "variant": variant.id},
    }


def macro(tasks: Sequence[DataSet]) -> DataSet:
    """The data set that stands for the tasks together."""
    names = ", ".join(task.name for task in tasks)
    return DataSet(MACRO, METRIC, f"plain mean over {names}", digest([task.identity for task in tasks]))
