"""Power-law exponents of a spectrum. Two different exponents bear the same letter in the literature:

* `alpha` (rank exponent): sigma_i ~ i^-alpha, the slope of log sigma on log i (seed paper "Rethinking", Table 1).
* `alpha_density`: the density of eigenvalues lambda = sigma^2 is p(lambda) ~ lambda^-alpha_density above xmin
  (Clauset, Shalizi & Newman 2009; used by Martin & Mahoney 2021). If both hold, alpha_density = 1 + 1 / (2 alpha).

A flat spectrum has a small alpha and a large alpha_density; neither is evidence of heavy tails by itself.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Comparison = tuple[float, float] | tuple[None, None]

MIN_POINTS = 5  # of a rank fit
MIN_TAIL = 50  # of a density fit; below, xmin and exponent are arbitrary (Clauset et al. 2009, section 3.4)
ALPHA_LIMIT = 1e6  # powerlaw 2.0 stops at 3 by itself, which makes any alternative win against a flat spectrum


@dataclass(frozen=True)
class RankFit:
    """Least squares of log sigma_i = c - alpha log i for first <= i <= last (1-based, inclusive).

    `stderr` is the ordinary-least-squares standard error: sorted singular values are strongly correlated, so it is
    far too small as an uncertainty of alpha. All values are None when fewer than MIN_POINTS are in range.
    """

    alpha: float | None
    stderr: float | None
    r2: float | None
    first: int | None
    last: int | None


@dataclass(frozen=True)
class DensityFit:
    """Maximum-likelihood exponent of the eigenvalue density above `xmin`, chosen by least Kolmogorov-Smirnov distance.

    `lognormal` and `truncated` are (log-likelihood ratio, p): positive favours the power law over that alternative;
    (None, None) where powerlaw could not fit the alternative.
    """

    alpha: float
    stderr: float
    xmin: float
    tail: int
    lognormal: Comparison
    truncated: Comparison


def fit_indices(sigma: Vector, noise_floor: float, fit_range: tuple[float, float] = (0.0, 1.0)) -> tuple[int, int]:
    """First and last index (1-based) of the fit: the fraction `fit_range` of the indices, above the noise floor."""
    count = len(sigma)
    low, high = fit_range
    above = int(np.searchsorted(-sigma, -noise_floor, side="left"))  # sigma is descending
    # rounded first: 0.07 * 100 is 7.000000000000001
    return max(1, int(np.ceil(round(low * count, 9)))), min(above, int(np.floor(round(high * count, 9))))


def fit_rank_exponent(sigma: Vector, first: int, last: int) -> RankFit:
    """Fit sigma_i ~ i^-alpha over first..last; see RankFit."""
    if last - first + 1 < MIN_POINTS:
        return RankFit(None, None, None, None, None)
    x = np.log(np.arange(first, last + 1, dtype=np.float64))
    y = np.log(sigma[first - 1 : last])
    x, centred = x - x.mean(), y - y.mean()
    slope = float(x @ centred / (x @ x))
    residual, total = float(((centred - slope * x) ** 2).sum()), float(centred @ centred)
    r2 = 1.0 - residual / total if total > 0 else None  # a constant spectrum has no variance to explain
    return RankFit(-slope, float(np.sqrt(residual / (len(x) - 2) / (x @ x))), r2, first, last)


def jackknife_stderr(estimates: list[float]) -> float | None:
    """Delete-a-group standard error sqrt((g - 1) / g * sum (a_j - mean)^2) of g leave-one-group-out estimates."""
    groups = len(estimates)
    if groups < 2:
        return None
    return float(np.sqrt((groups - 1) / groups * np.square(np.asarray(estimates) - np.mean(estimates)).sum()))


def fit_density_exponent(eigenvalues: Vector) -> DensityFit | None:
    """Scan xmin over all eigenvalues, keep the least Kolmogorov-Smirnov distance; None when the tail is too short.

    Equal to `powerlaw.Fit` with an unbounded exponent (tested), in closed form instead of one optimiser run per xmin.
    The alternatives are fitted and compared by powerlaw itself.
    """
    data = np.sort(eigenvalues[eigenvalues > 0])
    if len(data) < MIN_TAIL:
        return None
    alpha, xmin, _ = scan_xmin(data)
    tail = data[data >= xmin]
    if len(tail) < MIN_TAIL:
        return None
    return DensityFit(alpha, (alpha - 1) / float(np.sqrt(len(tail))), xmin, len(tail), *compare(tail / xmin))


def scan_xmin(data: Vector) -> tuple[float, float, float]:
    """(alpha, xmin, distance) with the least KS distance over all xmin in ascending `data` but the largest.

    alpha(xmin) = 1 + n / sum log(x / xmin) over the n values >= xmin (Clauset et al. 2009, eq. 3.1), from one
    reversed cumulative sum; the empirical CDF at x is the share of the tail below x, as in powerlaw.
    """
    logs = np.log(data / data[-1])  # relative to the largest, so that close values do not cancel
    sums = np.cumsum(logs[::-1])[::-1]
    best = (np.nan, np.nan, np.inf)
    starts = np.flatnonzero(np.diff(logs, prepend=-np.inf) > 0)
    for k in starts[logs[starts] < logs[-1]]:
        count = len(data) - k
        rate = count / (sums[k] - count * logs[k])
        empirical = np.searchsorted(data[k:], data[k:], side="left") / count
        distance = float(np.abs(-np.expm1(-rate * (logs[k:] - logs[k])) - empirical).max())
        if distance < best[2]:
            best = (1.0 + float(rate), float(data[k]), distance)
    return best


def compare(tail: Vector) -> tuple[Comparison, Comparison]:
    """Log-likelihood ratio and p of the power law against lognormal and truncated power law on a tail with xmin = 1.

    The ratios do not depend on the scale of the data, but powerlaw's xmin^(alpha - 1) overflows unless xmin is 1.
    """
    import powerlaw

    def against(alternative: str, nested: bool) -> Comparison:
        try:
            ratio, p = fit.distribution_compare("power_law", alternative, nested=nested)
        except (ValueError, ArithmeticError, RuntimeError):  # its optimiser gave up
            return None, None
        return (float(ratio), float(p)) if np.isfinite(ratio) and np.isfinite(p) else (None, None)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        ranges = {"alpha": [1.0, ALPHA_LIMIT]}
        fit = powerlaw.Fit(tail, xmin=1.0, discrete=False, fit_method="Likelihood", parameter_ranges=ranges, verbose=0)
        return against("lognormal", nested=False), against("truncated_power_law", nested=True)
