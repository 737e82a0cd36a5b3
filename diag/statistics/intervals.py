"""Intervals from few windows and seeds: Student's from what is left out in turn, percentiles of resamples.

Legend: J left out in turn, B bootstrap samples, N that are drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

LEVEL = 0.95

Vector = NDArray[np.float64]


def students_interval(
    estimate: float, left_out_J: Vector, groups_J: NDArray[np.int64]
) -> tuple[float | None, float | None]:
    """estimate -/+ Student's quantile times the jackknife standard error; `groups_J` says of what one was left out.

    None where nothing could be left out, or what was leaves no value.
    """
    if len(left_out_J) == 0 or not np.isfinite(left_out_J).all():
        return None, None
    counts_G = np.array([int((groups_J == group).sum()) for group in np.unique(groups_J)])
    parts_G = np.array([left_out_J[groups_J == group].var() for group in np.unique(groups_J)]) * (counts_G - 1)
    whole = float(parts_G.sum())
    if whole <= 0.0:
        return estimate, estimate
    freedom = whole**2 / float((parts_G**2 / (counts_G - 1)).sum())
    reach = float(student.ppf((1 + LEVEL) / 2, freedom)) * whole**0.5
    return estimate - reach, estimate + reach


def interval(samples: Sequence[float] | Vector, tail: float = (1 - LEVEL) / 2) -> tuple[float | None, float | None]:
    """Percentile interval, `tail` beyond each end; none where a twentieth or more of the samples have no value."""
    values = np.array(samples, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0 or len(values) <= LEVEL * len(samples):
        return None, None
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def picks(random: np.random.Generator, samples: int, count: int) -> NDArray[np.int64]:
    """(B, N): which of N were drawn with replacement."""
    return random.integers(0, count, (samples, count))


def weights(random: np.random.Generator, samples: int, count: int) -> Vector:
    """(B, N): how often each was drawn, N - 1 times of N with replacement, over N - 1."""
    drawn = max(1, count - 1)
    return random.multinomial(drawn, np.full(count, 1 / count), samples) / drawn


def around(estimate: float, error: float | None, freedom: int) -> tuple[float | None, float | None]:
    """estimate -/+ Student's quantile times its standard error; None where that is not known."""
    if error is None or freedom < 1:
        return None, None
    reach = float(student.ppf((1 + LEVEL) / 2, freedom)) * error
    return estimate - reach, estimate + reach
