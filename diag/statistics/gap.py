"""Share of the gap between TD-MoE as published and MoBE that a step closes, with an interval by paired bootstrap.

    gap_closed = (L_published - L_step) / (L_published - L_MoBE),    L_MoBE = min over MoBE's presets

L are means over the same windows. A bootstrap sample draws windows with replacement, the same ones for all models, and
computes everything anew, the better preset too. Windows follow one another in a text and are not independent, so they
are drawn in blocks of neighbours, about W^(1/3) long (circular block bootstrap: Politis and Romano 1992). Intervals are
percentiles (95 %), further out the fewer blocks there are, as Student's quantiles are (expanded percentiles: Hesterberg
2015, The American Statistician 69). Where that of the denominator holds 0 there is no gap, and no share of it.

Legend: W windows, B bootstrap samples, N blocks, M presets, C models to choose from, K orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from diag.statistics.intervals import LEVEL
from diag.statistics.intervals import interval as percentiles

SAMPLES = 10_000

Vector = NDArray[np.float64]
Interval = tuple[float | None, float | None]


def resamples(seed: int, windows: int, samples: int = SAMPLES) -> Vector:
    """(B, W): how often each window was drawn, over W; in blocks on the circle of windows, the last one cut."""
    length = _block(windows)
    random = np.random.default_rng([seed, windows])
    starts_BN = random.integers(0, windows, (samples, -(-windows // length)))
    picks_BW = (starts_BN[:, :, None] + np.arange(length)).reshape(samples, -1)[:, :windows] % windows
    places_BW = picks_BW + windows * np.arange(samples)[:, None]
    counts_BW = np.bincount(places_BW.ravel(), minlength=samples * windows).reshape(samples, windows)
    return counts_BW / windows


def _block(windows: int) -> int:
    return int(np.rint(windows ** (1 / 3)))


def interval(values_B: Vector, windows: int) -> Interval:
    """Expanded percentiles of what was computed from `resamples` of so many windows; None as of percentiles."""
    blocks = windows / _block(windows)
    reach = (blocks / (blocks - 1)) ** 0.5 * student.ppf((1 + LEVEL) / 2, blocks - 1)
    return percentiles(values_B, float(norm.cdf(-reach)))


def resampled_orders(seed: int, orders: int, samples: int = SAMPLES) -> Vector:
    """(B, K): how often each order was drawn, over K."""
    random = np.random.default_rng([seed, orders, 1])  # no stream of the windows'
    return random.multinomial(orders, np.full(orders, 1 / orders), samples) / orders


@dataclass(frozen=True)
class Gap:
    """L_published - L_MoBE, in nats: of all windows, and of every bootstrap sample."""

    published_W: Vector
    mobe_W: Vector
    value: float
    value_B: Vector
    weights_BW: Vector

    @staticmethod
    def of(published_W: Vector, presets_MW: Sequence[Vector], weights_BW: Vector) -> Gap:
        """The gap between the published run and the better of the presets."""
        mobe_MW = np.stack(presets_MW)
        value = float(published_W.mean() - mobe_MW.mean(1).min())
        value_B = weights_BW @ published_W - (mobe_MW @ weights_BW.T).min(0)
        return Gap(published_W, mobe_MW[mobe_MW.mean(1).argmin()], value, value_B, weights_BW)

    @property
    def interval(self) -> Interval:
        """Interval of its value, in nats."""
        return self._interval(self.value_B)

    @property
    def clear(self) -> bool:
        """Tell whether its interval leaves out 0."""
        low, high = self.interval
        return low is not None and high is not None and not low <= 0.0 <= high

    def share(self, gained: float, gained_B: Vector) -> tuple[float, Interval]:
        """Share of the gap that so many nats make up, in each sample too (positive is gained); ask `clear` first."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share_B = gained_B / self.value_B
        return gained / self.value, self._interval(share_B)

    def closed(self, step_W: Vector) -> tuple[float, Interval]:
        """Share closed by a model with these losses. The better preset is 1 by definition, the published run 0."""
        gained_W = self.published_W - step_W
        return self.share(float(gained_W.mean()), self.weights_BW @ gained_W)

    def over_mobe(self, step_W: Vector) -> tuple[float, Interval]:
        """L_step - L_MoBE in nats, paired by window; MoBE the preset that is better over all windows."""
        more_W = step_W - self.mobe_W
        return float(more_W.mean()), self._interval(self.weights_BW @ more_W)

    def _interval(self, values_B: Vector) -> Interval:
        return interval(values_B, len(self.published_W))


def chosen(losses_CW: Sequence[Vector]) -> tuple[int, int]:
    """The least of several models, once for each half of the windows, by its mean over the other half."""
    found_CW = np.stack(losses_CW)
    half = found_CW.shape[1] // 2
    return int(found_CW[:, half:].mean(1).argmin()), int(found_CW[:, :half].mean(1).argmin())


def spliced(first_W: Vector, second_W: Vector) -> Vector:
    """(W,) the first half of the windows from one model, the second from another."""
    half = len(first_W) // 2
    return np.concatenate([first_W[:half], second_W[half:]])


def crossed(losses_CW: Sequence[Vector]) -> Vector:
    """(W,) losses of the best of several models, chosen on the one half of the windows and told on the other.

    The least mean of many is too low a mean of the model that has it; so chosen it is not.
    """
    first, second = chosen(losses_CW)
    return spliced(losses_CW[first], losses_CW[second])
