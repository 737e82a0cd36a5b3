"""Errors of a compressed model that predict its loss: Spearman's rank correlation over the models of a run.

The interval is Fisher's z with the standard error of Bonett and Wright (2000, Psychometrika 65, eq. 4),

    tanh(artanh(r) -/+ 1.96 sqrt((1 + r^2 / 2) / (R - 3)))

where r counts as no nearer to 1 than one swap of neighbours, 1 - 12 / (R (R^2 - 1)): a perfect order of few models is
no certainty. It is that of independent models, which steps of one ladder are not: the true one is wider. Rows that are
the same model (all errors within one per cent) count once. Dense model and controls that change nothing have no part.

An error is meant over all projections that any row compresses: those that a row leaves alone count as zero. The angle
of the stream is measured on the windows whose loss it orders, and no prediction from weights.

Legend: R models, W windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from diag.statistics.correlation import spearman
from diag.statistics.gap import Interval, Vector
from diag.statistics.intervals import LEVEL

ERRORS = ("weight_error", "functional_error", "functional_error_expert", "operator_error", "angle_deg")
RESPONSE = "loss_difference_nats"
OF_STREAM = "angle_deg"  # of the whole model, whatever projections were compressed
FEWEST = 5
SAME = 0.01  # of an error
NORMAL = float(norm.ppf((1 + LEVEL) / 2))  # standard errors


@dataclass(frozen=True)
class Model:
    """A row of attribution.csv, and by window the difference of its loss to the dense model's."""

    row: Mapping[str, Any]
    difference_W: Vector


def predictors(models: Sequence[Model]) -> list[dict[str, Any]]:
    """A row an error; empty with a status where there are too few models, or all are alike."""
    everything = {name for model in models for name in _projections(model.row)}
    kept: list[Model] = []
    for model in models:
        if model.row["weight_error"] and not any(_same(model.row, other.row) for other in kept):
            kept.append(model)
    return [_predictor(error, kept, len(everything)) for error in ERRORS]


def _predictor(error: str, kept: Sequence[Model], whole: int) -> dict[str, Any]:
    usable = [model for model in kept if model.row[error] is not None]
    found: dict[str, Any] = {"error": error, "response": RESPONSE, "rank_correlation": None, "low": None, "high": None}
    found |= {"runs": len(usable)}
    if len(usable) < FEWEST:
        return found | {"status": "too_few"}
    share_R = np.array([1.0 if error == OF_STREAM else len(_projections(m.row)) / whole for m in usable])
    x_R = share_R * np.array([model.row[error] for model in usable])
    value = spearman(x_R, np.array([model.difference_W.mean() for model in usable]))
    if value is None:
        return found | {"status": "constant"}
    low, high = rank_interval(value, len(usable))
    return found | {"rank_correlation": value, "low": low, "high": high, "status": "ok"}


def rank_interval(value: float, count: int) -> Interval:
    """95 % interval of a rank correlation of `count` > 3 pairs."""
    most = 1 - 12 / (count * (count**2 - 1))
    kept = min(max(value, -most), most)
    reach = NORMAL * math.sqrt((1 + kept**2 / 2) / (count - 3))
    middle = math.atanh(kept)
    return min(value, math.tanh(middle - reach)), max(value, math.tanh(middle + reach))


def _projections(row: Mapping[str, Any]) -> list[str]:
    return [name for name in str(row["projections"] or "").split(",") if name]


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether all errors, and the projections, agree."""
    if _projections(one) != _projections(other):
        return False
    pairs = [(one[error], other[error]) for error in ERRORS]
    return all(a is b or (a is not None and b is not None and abs(a - b) <= SAME * abs(b)) for a, b in pairs)
