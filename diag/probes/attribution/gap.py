"""How much of the gap between TD-MoE as published and MoBE a step closes, with an interval by paired bootstrap.

    gap_closed = (L_published - L_step) / (L_published - L_MoBE),    L_MoBE = min over MoBE's presets

L are means over the same windows. A bootstrap sample draws windows with replacement, the same ones for all models, and
computes everything anew, the better preset too. Windows follow one another in a text and are not independent, so they
are drawn in blocks of neighbours, about W^(1/3) long (circular block bootstrap: Politis and Romano 1992). Intervals are
percentiles (95 %). Where that of the denominator holds 0 there is no gap, and no share of it.

Legend: W windows, B bootstrap samples, M presets, C combinations, K orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diag.probes.injection.intervals import interval

SAMPLES = 2000

Vector = NDArray[np.float64]
Interval = tuple[float | None, float | None]


def resamples(seed: int, windows: int, samples: int = SAMPLES) -> Vector:
    """(B, W): how often each window was drawn, over W; in blocks on the circle of windows, the last one cut."""
    length = round(windows ** (1 / 3))
    random = np.random.default_rng([seed, windows])
    starts_BN = random.integers(0, windows, (samples, -(-windows // length)))
    picks_BW = (starts_BN[:, :, None] + np.arange(length)).reshape(samples, -1)[:, :windows] % windows
    counts_BW = np.zeros((samples, windows))
    np.add.at(counts_BW, (np.arange(samples)[:, None], picks_BW), 1.0)
    return counts_BW / windows


def resampled_orders(seed: int, orders: int, samples: int = SAMPLES) -> Vector:
    """(B, K): how often each order was drawn, over K."""
    random = np.random.default_rng([seed, orders, 1])  # no stream of the windows'
    return random.multinomial(orders, np.full(orders, 1 / orders), samples) / orders


@dataclass(frozen=True)
class Gap:
    """L_published - L_MoBE, in nats: of all windows, and of every bootstrap sample."""

    published_W: Vector
    value: float
    value_B: Vector
    weights_BW: Vector

    @staticmethod
    def of(published_W: Vector, presets_MW: Sequence[Vector], weights_BW: Vector) -> Gap:
        """Between the published run and the better of the presets."""
        mobe_MW = np.stack(presets_MW)
        value = float(published_W.mean() - mobe_MW.mean(1).min())
        value_B = weights_BW @ published_W - (mobe_MW @ weights_BW.T).min(0)
        return Gap(published_W, value, value_B, weights_BW)

    @property
    def clear(self) -> bool:
        """Whether its interval leaves out 0."""
        low, high = interval(self.value_B.tolist())
        return low is not None and high is not None and not low <= 0.0 <= high

    def share(self, gained: float, gained_B: Vector) -> tuple[float, Interval]:
        """Of the gap, that so many nats make up, in each sample too (positive is gained); ask `clear` first."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share_B = gained_B / self.value_B
        return gained / self.value, interval(share_B.tolist())

    def closed(self, step_W: Vector) -> tuple[float, Interval]:
        """By a model with these losses. The better preset itself is at 1 by definition, the published run at 0."""
        return self.closed_by_best([step_W])

    def closed_by_best(self, losses_CW: Sequence[Vector]) -> tuple[float, Interval]:
        """By the best of several models, which is chosen anew in each sample: the choice is part of the error."""
        gained_CW = self.published_W - np.stack(losses_CW)
        return self.share(float(gained_CW.mean(1).max()), (gained_CW @ self.weights_BW.T).max(0))
