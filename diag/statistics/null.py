"""Spectra without structure: those of an i.i.d. Gaussian stack of the same shape.

The unfolding of mode N of such a stack is an N x M Gaussian matrix, whose squared singular values, divided by M,
follow the Marchenko-Pastur law with ratio c = N / M <= 1:

    p(x) = sqrt((b - x)(x - a)) / (2 pi c x)  on [a, b] = [(1 - sqrt c)^2, (1 + sqrt c)^2].

With x = 1 + c + 2 sqrt(c) cos t this is p(t) = 2 sin^2(t) / (pi x) on [0, pi], smooth for every c, so its
distribution function is summed exactly enough (1e-9) on a regular grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRID = 1 << 16


def marchenko_pastur_quantiles(probabilities: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Quantiles of the Marchenko-Pastur law with 0 < ratio <= 1, unit variance. ValueError outside that range."""
    if not 0.0 < ratio <= 1.0:
        raise ValueError(f"ratio is {ratio}, 0 < ratio <= 1 is needed; pass the smaller side over the larger")
    t = np.linspace(0.0, np.pi, GRID + 1)
    x = 1.0 + ratio + 2.0 * np.sqrt(ratio) * np.cos(t)
    # at ratio 1 and t = pi both sides vanish; sin^2 / x -> (1 - cos) / 2 there
    weight = np.divide(np.sin(t) ** 2, x, out=np.ones_like(t), where=x > 1e-12)
    above = np.concatenate([[0.0], np.cumsum((weight[1:] + weight[:-1]) / 2)])  # probability above x(t)
    quantiles: NDArray[np.float64] = np.interp(1.0 - probabilities, above / above[-1], x)
    return quantiles


def gaussian_singular_values(mode_size: int, total_weights: int) -> NDArray[np.float64]:
    """Expected singular values, descending, of the unfolding of a stack of unit-variance Gaussian weights.

    sigma_i = sqrt(M * quantile(1 - (i - 1/2) / n)) with n = min(N, M), M = max(N, M), N = `mode_size`.
    """
    other = total_weights // mode_size
    count, larger = min(mode_size, other), max(mode_size, other)
    probabilities = 1.0 - (np.arange(1, count + 1) - 0.5) / count
    return np.sqrt(larger * marchenko_pastur_quantiles(probabilities, count / larger))
