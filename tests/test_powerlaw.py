"""Exponents against closed forms, the powerlaw package, scipy's least squares and Gaussian samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from diag.statistics.null import gaussian_singular_values, marchenko_pastur_quantiles
from diag.statistics.powerlaw import (
    ALPHA_LIMIT,
    MIN_POINTS,
    MIN_TAIL,
    compare,
    fit_density_exponent,
    fit_indices,
    fit_rank_exponent,
    jackknife_stderr,
    scan_xmin,
)

powerlaw = pytest.importorskip("powerlaw")


def pareto(size: int, alpha: float, seed: int = 0) -> np.ndarray:
    """Draws from p(x) ~ x^-alpha, x >= 1."""
    return np.random.default_rng(seed).random(size) ** (-1 / (alpha - 1))


def test_rank_fit_equals_scipys_regression() -> None:
    sigma = np.sort(pareto(60, 3.0))[::-1]
    fit = fit_rank_exponent(sigma, 3, 50)
    oracle = stats.linregress(np.log(np.arange(3, 51)), np.log(sigma[2:50]))
    assert fit.alpha == pytest.approx(-oracle.slope, rel=1e-12)
    assert fit.stderr == pytest.approx(oracle.stderr, rel=1e-10)
    assert fit.r2 == pytest.approx(oracle.rvalue**2, rel=1e-10)


@pytest.mark.parametrize(
    ("fit_range", "noise_floor", "expected"),
    [
        ((0.0, 1.0), 0.0, (1, 100)),
        ((0.1, 0.9), 0.0, (10, 90)),
        ((0.0, 1.0), 0.025, (1, 39)),  # sigma_40 = 1/40 is at the floor, not above it
        ((0.5, 1.0), 0.1, (50, 9)),  # nothing left
        ((0.07, 0.29), 0.0, (7, 29)),  # 0.07 * 100 is 7.000000000000001
    ],
)
def test_fit_range_is_a_fraction_of_the_indices_above_the_floor(
    fit_range: tuple[float, float], noise_floor: float, expected: tuple[int, int]
) -> None:
    assert fit_indices(1.0 / np.arange(1, 101), noise_floor, fit_range) == expected


def test_too_few_points_give_no_exponent() -> None:
    sigma = np.geomspace(1, 0.1, MIN_POINTS - 1)
    fit = fit_rank_exponent(sigma, 1, len(sigma))
    assert (fit.alpha, fit.stderr, fit.r2, fit.first, fit.last) == (None,) * 5


def test_a_constant_spectrum_has_slope_zero_and_no_r2() -> None:
    fit = fit_rank_exponent(np.full(20, 2.0), 1, 20)
    assert fit.alpha == pytest.approx(0.0, abs=1e-14)
    assert fit.r2 is None


def test_jackknife_of_means_is_the_standard_error_of_the_mean() -> None:
    data = np.random.default_rng(0).normal(size=15)
    leave_one_out = [float(np.delete(data, i).mean()) for i in range(15)]
    assert jackknife_stderr(leave_one_out) == pytest.approx(stats.sem(data), rel=1e-12)
    assert jackknife_stderr([1.0]) is None


@pytest.mark.parametrize("size", [60, 200, 700])
@pytest.mark.parametrize("alpha", [1.7, 2.6, 4.0, 12.0])
def test_scan_equals_powerlaw(size: int, alpha: float) -> None:
    data = np.sort(pareto(size, alpha, seed=size))
    ours = scan_xmin(data)
    fit = powerlaw.Fit(data, verbose=0, parameter_ranges={"alpha": [1.0, ALPHA_LIMIT]})
    assert ours == pytest.approx((fit.power_law.alpha, fit.xmin, fit.power_law.D), rel=1e-6)


def test_scan_equals_powerlaw_with_ties() -> None:
    data = np.sort(np.round(pareto(300, 3.5), 1))
    fit = powerlaw.Fit(data, verbose=0, parameter_ranges={"alpha": [1.0, ALPHA_LIMIT]})
    assert scan_xmin(data) == pytest.approx((fit.power_law.alpha, fit.xmin, fit.power_law.D), rel=1e-6)


def test_density_fit_recovers_a_steep_exponent_and_does_not_prefer_the_lognormal() -> None:
    fit = fit_density_exponent(pareto(4000, 9.0))
    assert fit is not None
    assert fit.alpha == pytest.approx(9.0, abs=3 * fit.stderr)
    assert fit.stderr == pytest.approx((fit.alpha - 1) / np.sqrt(fit.tail))
    # powerlaw's default range stops at alpha = 3, and its lognormal then wins with p = 0
    assert fit.lognormal[0] is not None
    assert fit.lognormal[1] is not None
    assert fit.lognormal[0] > -3 or fit.lognormal[1] > 0.05
    assert fit.truncated[0] == pytest.approx(0, abs=3)


def test_lognormal_data_are_recognised() -> None:
    data = np.random.default_rng(0).lognormal(sigma=0.5, size=3000)
    tail = np.sort(data)[-2000:]
    fit = fit_density_exponent(tail)
    assert fit is not None
    ratio, p = compare(tail / tail[0])[0]
    assert ratio is not None
    assert ratio < 0
    assert p is not None
    assert p < 1e-3


@pytest.mark.parametrize("shape", [(512, 1_572_864), (256, 14_680_064)])
def test_a_flat_spectrum_of_large_values_is_compared_in_finite_numbers(shape: tuple[int, int]) -> None:
    """The expert mode of a large random stack: alpha_density in the hundreds, where xmin^(alpha - 1) overflows."""
    null = gaussian_singular_values(shape[0], shape[0] * shape[1])
    fit = fit_density_exponent(null**2)
    assert fit is not None
    assert fit.alpha > 50
    for ratio, p in (fit.lognormal, fit.truncated):
        assert (ratio is None) == (p is None)
        assert ratio is None or np.isfinite([ratio, p]).all()
    assert fit.lognormal[0] is not None


@pytest.mark.parametrize("size", [0, 1, MIN_TAIL - 1])
def test_a_short_tail_gives_no_density_exponent(size: int) -> None:
    assert fit_density_exponent(pareto(size, 2.5)) is None


def test_zeros_are_no_tail() -> None:
    assert fit_density_exponent(np.zeros(200)) is None


@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_the_two_exponents_of_an_exact_power_law_belong_together(alpha: float) -> None:
    sigma = np.arange(1, 20001.0) ** -alpha
    measured, _, _ = scan_xmin(np.sort(sigma**2)[-3000:])
    assert measured == pytest.approx(1 + 1 / (2 * alpha), rel=0.01)


@pytest.mark.parametrize(
    ("shape", "fit_range", "published"),
    [
        ((128, 768, 2048), (0.0, 1.0), (0.004, 0.024, 0.064)),
        ((128, 768, 2048), (0.1, 0.9), (0.006, 0.035, 0.094)),
        ((32, 2880, 2880), (0.0, 1.0), (0.001, 0.078, 0.078)),
    ],
)
def test_null_exponents_of_known_shapes(
    shape: tuple[int, int, int], fit_range: tuple[float, float], published: tuple[float, float, float]
) -> None:
    for size, expected in zip(shape, published, strict=True):
        sigma = gaussian_singular_values(size, int(np.prod(shape)))
        fit = fit_rank_exponent(sigma, *fit_indices(sigma, 0.0, fit_range))
        assert fit.alpha == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize(("size", "other"), [(30, 4000), (60, 240), (150, 150), (240, 60)])
def test_null_equals_the_mean_of_gaussian_samples(size: int, other: int) -> None:
    rng = np.random.default_rng(0)
    samples = np.mean([np.linalg.svd(rng.standard_normal((size, other)), compute_uv=False) for _ in range(30)], axis=0)
    null = gaussian_singular_values(size, size * other)
    assert null.shape == samples.shape
    np.testing.assert_allclose(null, samples, rtol=0, atol=0.012 * samples[0])
    assert np.sum(null**2) == pytest.approx(size * other, rel=0.01)
    if size != other:  # the smallest values of a square Gaussian fluctuate too much for a log fit
        ours, theirs = (fit_rank_exponent(s, 1, len(s)).alpha for s in (null, samples))
        assert ours == pytest.approx(theirs, abs=0.004)


@pytest.mark.parametrize("ratio", [1e-5, 0.1, 0.7, 1.0])
def test_quantiles_invert_the_law(ratio: float) -> None:
    from scipy.integrate import quad

    a, b = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    for p in (0.05, 0.5, 0.95):
        x = float(marchenko_pastur_quantiles(np.array([p]), ratio)[0])

        def density(t: float) -> float:  # x = 1 + c + 2 sqrt(c) cos t, integrated from x to b
            value = 1 + ratio + 2 * ratio**0.5 * np.cos(t)
            return 2 * np.sin(t) ** 2 / (np.pi * value) if value > 1e-300 else 0.0

        edge = np.arccos(np.clip((x - 1 - ratio) / (2 * ratio**0.5), -1, 1))
        assert a <= x <= b
        assert quad(density, 0, edge)[0] == pytest.approx(1 - p, abs=1e-6)


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5])
def test_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"ratio is {ratio}"):
        marchenko_pastur_quantiles(np.array([0.5]), ratio)
