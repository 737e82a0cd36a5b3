"""Which error of a compressed model predicts its loss: Spearman's rank correlation over the models of a run.

The interval is a bootstrap's (percentiles, 95 %): models are drawn with replacement within each ladder, so that every
sample holds as many steps of TD-MoE, of MoBE and of what stands beside as there are; windows are drawn too. Rows that
are the same model (same errors, same losses) count once. Dense model and controls that change nothing have no part.

An error is meant over all projections that any row compresses: those that a row leaves alone count as zero.

Legend: R models, W windows, B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from diag.probes.attribution.gap import Vector
from diag.probes.injection.contrasts import spearman
from diag.probes.injection.intervals import interval

ERRORS = ("weight_error", "functional_error", "functional_error_expert", "operator_error", "angle_deg")
RESPONSE = "loss_difference_nats"
OF_STREAM = "angle_deg"  # of the whole model, whatever projections were compressed
FEWEST = 3


@dataclass(frozen=True)
class Model:
    """A row of attribution.csv, and by window the difference of its loss to the dense model's."""

    row: Mapping[str, Any]
    difference_W: Vector


def predictors(models: Sequence[Model], weights_BW: Vector, seed: int) -> list[dict[str, Any]]:
    """A row an error; empty with a status where there are too few models, or all are alike."""
    everything = {name for model in models for name in _projections(model.row)}
    distinct: dict[tuple[Any, ...], Model] = {}
    for model in models:
        if model.row["weight_error"]:
            distinct.setdefault(_what(model), model)
    kept = list(distinct.values())
    return [_predictor(error, kept, len(everything), weights_BW, seed) for error in ERRORS]


def _predictor(error: str, kept: Sequence[Model], whole: int, weights_BW: Vector, seed: int) -> dict[str, Any]:
    usable = [model for model in kept if model.row[error] is not None]
    found: dict[str, Any] = {"error": error, "response": RESPONSE, "rank_correlation": None, "low": None, "high": None}
    found |= {"runs": len(usable)}
    if len(usable) < FEWEST:
        return found | {"status": "too_few"}
    share_R = np.array([1.0 if error == OF_STREAM else len(_projections(m.row)) / whole for m in usable])
    x_R = share_R * np.array([model.row[error] for model in usable])
    difference_RW = np.stack([model.difference_W for model in usable])
    value = spearman(x_R, difference_RW.mean(1))
    if value is None:
        return found | {"status": "constant"}
    strata = [model.row["ladder"] for model in usable]
    random = np.random.default_rng([seed, ERRORS.index(error)])
    picks_BR = _picks(strata, len(weights_BW), random)
    responses_BR = np.take_along_axis(weights_BW @ difference_RW.T, picks_BR, 1)
    low, high = interval(_spearmans(x_R[picks_BR], responses_BR).tolist())
    return found | {"rank_correlation": value, "low": low, "high": high, "status": "ok"}


def _spearmans(x_BR: Vector, y_BR: Vector) -> Vector:
    """(B,) rank correlation of every sample; NaN where either is constant."""
    a_BR, b_BR = (rankdata(values_BR, axis=1) - (values_BR.shape[1] + 1) / 2 for values_BR in (x_BR, y_BR))
    with np.errstate(invalid="ignore"):
        found_B: Vector = (a_BR * b_BR).sum(1) / np.sqrt((a_BR**2).sum(1) * (b_BR**2).sum(1))
    return found_B


def _picks(strata: Sequence[str], samples: int, random: np.random.Generator) -> Any:
    """(B, R): as many of every stratum as it has, with replacement."""
    parts = []
    for stratum in dict.fromkeys(strata):
        members = np.flatnonzero([each == stratum for each in strata])
        parts.append(members[random.integers(0, len(members), (samples, len(members)))])
    return np.concatenate(parts, 1)


def _projections(row: Mapping[str, Any]) -> list[str]:
    return [name for name in str(row["projections"] or "").split(",") if name]


def _what(model: Model) -> tuple[Any, ...]:
    return *(model.row[error] for error in ERRORS), *model.difference_W.tolist()
