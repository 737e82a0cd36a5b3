"""The rows of attribution.csv, from what was measured of every step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diag.probes.attribution.columns import COLUMNS
from diag.probes.attribution.floors import Tails, mode_errors
from diag.probes.attribution.ladder import BESIDE, Step
from diag.statistics.evaluation import mean, paired, perplexity
from diag.statistics.gap import Gap, Vector
from tdmoe.stacks.families import MEMBERS

POOLED = ("weight_error", "functional_error", "functional_error_expert", "operator_error")
ERRORS_BY_MODE = {mode: f"mode_error_{mode}" for mode in ("expert", "output", "input")}
NOT_MEASURED, NOT_FINITE, OVERFLOW, NO_GAP = "not_measured", "not_finite", "overflow", "no_gap"

Row = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """Of a model: `row` as `of_factors` gives it, the rest by window."""

    row: Mapping[str, Any]
    losses_W: Vector
    angles_W: Vector
    norm_ratios_W: Vector

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.losses_W).all())


def of_factors(rows: Sequence[Mapping[str, Any]], bits_saved: float, calibration: str = "") -> Row:
    """What compression.csv says of all stacks together; nothing for the dense model, which has no rows.

    Errors are means over stacks in which every projection of a layer counts once, so gate and up as one stack twice.
    """
    found: Row = {"bits_saved": bits_saved, "seconds": None, "ranks": "", "stacks": []}
    found["calibration"] = calibration
    found |= dict.fromkeys(POOLED)
    if rows:
        found |= {error: _pooled(rows, error) for error in POOLED}
        found["seconds"] = round(sum(float(row["seconds"]) for row in rows), 3)
        found["ranks"] = " ".join(dict.fromkeys(f"{row['projection']}:{row['ranks']}" for row in rows if row["ranks"]))
        found["stacks"] = [[row["layer"], row["projection"], row["ranks"]] for row in rows]
    return found


def _pooled(rows: Sequence[Mapping[str, Any]], error: str) -> float | None:
    values = [row[error] for row in rows]
    if any(value is None for value in values):
        return None
    counts = np.array([len(MEMBERS[row["projection"]]) for row in rows], dtype=np.float64)
    return float(counts @ np.array(values, dtype=np.float64) / counts.sum())


def attribution_rows(
    steps: Sequence[Step],
    measured: Mapping[Step, Measurement],
    failed: Mapping[Step, str],
    dense: Measurement | None,
    gap: Gap | None,
    tails: Mapping[tuple[int, str], Tails],
    common: Row,
) -> list[Row]:
    """One a step; `failed` has the state of those that were not measured, `common` text, windows and tokens."""
    found = []
    before: dict[str, Measurement | None] = {}
    for step in steps:
        row: Row = dict.fromkeys(COLUMNS) | common
        ratio = None if step.recipe is None else step.recipe.ratio
        method = "dense" if step.recipe is None else step.recipe.method
        row |= {"step": step.phrase, "method": method, "ratio": ratio, "ladder": step.ladder}
        row |= {"projections": step.projections, "status": failed.get(step)}
        this = measured.get(step)
        if this is not None:
            row |= _losses(this, dense, None if step.ladder == BESIDE or step.apart else before.get(step.ladder))
            row |= _geometry(this, tails)
            if gap is not None and this.finite:
                row |= _over_mobe(this, gap)
            if row["status"] is None:
                row |= _closed(this, gap)
        before[step.ladder] = this
        found.append({column: row[column] for column in COLUMNS})
    return found


def _losses(this: Measurement, dense: Measurement | None, before: Measurement | None) -> Row:
    """Loss, perplexity, and differences in pairs."""
    if not this.finite:
        return {"status": NOT_FINITE}
    found = perplexity(this.losses_W)
    row: Row = {"loss_nats": found.loss.value, "loss_nats_stderr": found.loss.stderr}
    if math.isfinite(found.value):
        row |= {"perplexity": found.value, "perplexity_stderr": found.stderr}
    else:
        row |= {"status": OVERFLOW}
    for name, other in (("loss_difference_nats", dense), ("change_nats", before)):
        if other is not None and other.finite:
            difference = paired(this.losses_W, other.losses_W)
            row |= {name: difference.value, f"{name}_stderr": difference.stderr}
    return row


def _geometry(this: Measurement, tails: Mapping[tuple[int, str], Tails]) -> Row:
    """Errors, what the modes' ranks cost at the least, and where the stream ends."""
    row = {name: this.row[name] for name in ("bits_saved", "seconds", "ranks", "calibration", *POOLED)}
    for name, values_W in (("angle_deg", this.angles_W), ("norm_ratio", this.norm_ratios_W)):
        row[name] = mean(values_W).value if np.isfinite(values_W).all() else None
    stacks = this.row["stacks"]
    known = [(tails.get((layer, projection)), projection, ranks) for layer, projection, ranks in stacks]
    if this.row.get("tucker") and known and all(tail is not None for tail, _, _ in known):
        errors = mode_errors([(tail, projection, ranks) for tail, projection, ranks in known if tail is not None])
        row |= {ERRORS_BY_MODE[mode]: error for mode, error in errors.items()}
        row["floor"] = max(errors.values())
    return row


def _over_mobe(this: Measurement, gap: Gap) -> Row:
    value, (low, high) = gap.over_mobe(this.losses_W)
    return {"mobe_difference_nats": value, "mobe_difference_low": low, "mobe_difference_high": high}


def _closed(this: Measurement, gap: Gap | None) -> Row:
    if gap is None:
        return {"status": NOT_MEASURED}
    if not gap.clear:
        return {"status": NO_GAP}
    value, (low, high) = gap.closed(this.losses_W)
    return {"gap_closed": value, "gap_low": low, "gap_high": high, "status": "ok"}
