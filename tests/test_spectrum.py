"""Grams and singular values against planted answers, float64 SVD and tensorly's unfoldings."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tensorly
import torch
from planted import MODES, open_planted, planted

import tdmoe.numerics.spectrum
from diag.statistics.powerlaw import fit_indices, fit_rank_exponent
from tdmoe.numerics.gram import mode_grams
from tdmoe.numerics.precision import full_precision, full_product
from tdmoe.numerics.spectrum import mode_spectra
from tdmoe.problems import WeightError
from tdmoe.stacks.blocks import BlockReader

SHAPE = (12, 40, 72)
AMPLE = 10**9


def gaussian(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def svd_of_unfoldings(W_EOI: torch.Tensor) -> dict[str, np.ndarray]:
    with tensorly.backend_context("numpy", local_threadsafe=True):
        return {
            m: np.linalg.svd(tensorly.unfold(W_EOI.double().numpy(), i), compute_uv=False) for i, m in enumerate(MODES)
        }


@pytest.mark.parametrize("products", ["float64", "float32"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("alpha", [0.03, 0.2, 0.5, 1.0])
def test_a_planted_exponent_is_recovered_in_each_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, alpha: float, products: str
) -> None:
    if products == "float32":
        monkeypatch.setattr(tdmoe.numerics.spectrum, "BLOCK_WEIGHTS", 0)
    sigma = 3.0 * np.arange(1, SHAPE[MODES.index(mode)] + 1.0) ** -alpha
    stack = open_planted(tmp_path, planted(SHAPE, mode, sigma))
    spectrum = mode_spectra(BlockReader(stack, AMPLE)).modes[mode]
    first, last = fit_indices(spectrum.sigma, spectrum.noise_floor)
    fit = fit_rank_exponent(spectrum.sigma, first, last)
    assert (first, last) == (1, len(sigma))
    assert fit.alpha == pytest.approx(alpha, abs=0.002)
    assert fit.r2 is not None
    assert fit.r2 > 0.999


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("memory", [AMPLE, 40 * 72 * 4])
@pytest.mark.parametrize("blocks", [1, 8 << 20])
def test_singular_values_equal_svd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, memory: int, blocks: int
) -> None:
    monkeypatch.setattr(tdmoe.numerics.spectrum, "BLOCK_WEIGHTS", 0)
    monkeypatch.setattr("tdmoe.stacks.blocks.BLOCK_WEIGHTS", blocks)
    W_EOI = (0.02 * gaussian(SHAPE)).to(dtype)
    reader = BlockReader(open_planted(tmp_path, W_EOI, dtype), memory)
    spectra = mode_spectra(reader).modes
    for mode, exact in svd_of_unfoldings(W_EOI).items():
        np.testing.assert_allclose(spectra[mode].sigma, exact, rtol=0, atol=1e-6 * exact[0])


def test_float32_products_keep_their_promise_on_a_stack_of_many_blocks(tmp_path: Path) -> None:
    shape = (20, 640, 704)
    decay = torch.arange(1, 705, dtype=torch.float64) ** -0.3
    W_EOI = (gaussian(shape) * decay).to(torch.bfloat16)
    reader = BlockReader(open_planted(tmp_path, W_EOI, torch.bfloat16), AMPLE)
    assert math.prod(shape) > tdmoe.numerics.spectrum.BLOCK_WEIGHTS
    single, double = mode_grams(reader), mode_grams(reader, dtype=torch.float64)
    spectra = mode_spectra(reader).modes
    for mode in MODES:
        error = torch.linalg.matrix_norm(single[mode].gram - double[mode].gram, 2)
        assert 0 < error <= single[mode].product_error
        assert single[mode].product_error < 100 * error  # a bound so loose would always send us to float64
        exact = torch.linalg.eigvalsh(double[mode].gram).flip(0).sqrt().numpy()
        np.testing.assert_allclose(spectra[mode].sigma, exact, rtol=0, atol=1e-6 * exact[0])
    assert spectra["output"].precision == "float32"  # it does get used


@pytest.mark.parametrize("zeros", [1, 3])
def test_experts_of_zeros_do_not_hide_the_rounding_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zeros: int
) -> None:
    monkeypatch.setattr("tdmoe.stacks.blocks.BLOCK_WEIGHTS", 1)  # one expert a block
    W_EOI = gaussian(SHAPE).to(torch.bfloat16)
    W_EOI[:zeros] = 0
    reader = BlockReader(open_planted(tmp_path, W_EOI, torch.bfloat16), AMPLE)
    single, double = mode_grams(reader), mode_grams(reader, dtype=torch.float64)
    for mode in MODES:
        error = torch.linalg.matrix_norm(single[mode].gram - double[mode].gram, 2)
        assert 0 < error <= single[mode].product_error


def test_values_that_float32_would_drown_are_redone_in_float64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tdmoe.numerics.spectrum, "BLOCK_WEIGHTS", 0)
    sigma = np.geomspace(1.0, 1e-5, SHAPE[2])
    stack = open_planted(tmp_path, planted(SHAPE, "input", sigma))
    spectrum = mode_spectra(BlockReader(stack, AMPLE)).modes["input"]
    assert spectrum.precision == "float64"
    assert spectrum.noise_floor < 1e-5
    np.testing.assert_allclose(spectrum.sigma, sigma, rtol=0.02, atol=1e-6 * 1e-2)
    monkeypatch.setattr(tdmoe.numerics.spectrum, "_keeps_promise", lambda *_: True)
    drowned = mode_spectra(BlockReader(stack, AMPLE)).modes["input"]
    assert drowned.precision == "float32"
    assert drowned.sigma[-1] < drowned.noise_floor  # and the floor says so


def test_a_rank_deficient_stack_is_fitted_above_its_noise_floor_only(tmp_path: Path) -> None:
    sigma = 2.0 * np.arange(1, 21.0) ** -0.4
    W_EOI = planted(SHAPE, "input", sigma)
    spectrum = mode_spectra(BlockReader(open_planted(tmp_path, W_EOI), AMPLE)).modes["input"]
    first, last = fit_indices(spectrum.sigma, max(spectrum.noise_floor, 1e-6))  # float32 storage rounds at 1e-7
    assert (first, last) == (1, 20)
    assert fit_rank_exponent(spectrum.sigma, first, last).alpha == pytest.approx(0.4, abs=0.002)


def test_an_unfolding_wider_in_its_mode_has_only_as_many_values_as_columns(tmp_path: Path) -> None:
    W_EOI = gaussian((2, 3, 50))
    spectra = mode_spectra(BlockReader(open_planted(tmp_path, W_EOI), AMPLE)).modes
    assert [len(spectra[m].sigma) for m in MODES] == [2, 3, 6]
    np.testing.assert_allclose(spectra["input"].sigma, svd_of_unfoldings(W_EOI.float())["input"], rtol=1e-6)


def test_permuting_experts_changes_nothing(tmp_path: Path) -> None:
    W_EOI = gaussian(SHAPE)
    order = torch.randperm(SHAPE[0], generator=torch.Generator().manual_seed(1))
    one = mode_spectra(BlockReader(open_planted(tmp_path / "a", W_EOI), AMPLE)).modes
    two = mode_spectra(BlockReader(open_planted(tmp_path / "b", W_EOI[order]), AMPLE)).modes
    for mode in MODES:
        np.testing.assert_allclose(one[mode].sigma, two[mode].sigma, rtol=1e-12)


@pytest.mark.parametrize("groups", [2, 5, 12])
def test_leaving_out_a_group_equals_measuring_the_rest(tmp_path: Path, groups: int) -> None:
    W_EOI = gaussian(SHAPE).float()
    spectra = mode_spectra(BlockReader(open_planted(tmp_path, W_EOI), AMPLE), groups=groups)
    bounds = [round(SHAPE[0] * g / groups) for g in range(groups + 1)]
    for g, (lo, hi) in enumerate(zip(bounds, bounds[1:], strict=False)):
        rest = torch.cat([W_EOI[:lo], W_EOI[hi:]])
        for mode, exact in svd_of_unfoldings(rest).items():
            np.testing.assert_allclose(spectra.leave_out[mode][g], exact, rtol=0, atol=1e-6 * exact[0])


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_weights_whose_squares_leave_float32_are_still_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    monkeypatch.setattr(tdmoe.numerics.spectrum, "BLOCK_WEIGHTS", 0)
    W_EOI = (scale * gaussian(SHAPE)).float()
    spectra = mode_spectra(BlockReader(open_planted(tmp_path, W_EOI), AMPLE)).modes
    for mode, exact in svd_of_unfoldings(W_EOI).items():
        np.testing.assert_allclose(spectra[mode].sigma, exact, rtol=0, atol=1e-6 * exact[0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_is_named(tmp_path: Path, value: float) -> None:
    W_EOI = gaussian(SHAPE)
    W_EOI[7, 3, 5] = value
    with pytest.raises(WeightError, match=r"experts\.7\.gate_proj\.weight: 1 weight of expert 7 is NaN or infinite"):
        mode_spectra(BlockReader(open_planted(tmp_path, W_EOI), AMPLE))


def test_a_stack_of_zeros_has_a_spectrum_of_zeros(tmp_path: Path) -> None:
    spectra = mode_spectra(BlockReader(open_planted(tmp_path, torch.zeros(SHAPE)), AMPLE)).modes
    assert all((s.sigma == 0).all() for s in spectra.values())


@pytest.mark.parametrize("memory", [AMPLE, 40 * 72 * 4, 3 * 40 * 72 * 4])
def test_bytes_read_are_as_planned(tmp_path: Path, memory: int) -> None:
    counted: list[int] = []
    stack = open_planted(tmp_path, gaussian(SHAPE))
    reader = BlockReader(stack, memory, counted.append)
    mode_spectra(reader)
    assert sum(counted) == reader.plan.reads * stack.bytes_read
    assert reader.plan.reads == (1 if memory == AMPLE else 2)


@pytest.mark.parametrize("added", [0.0, 2.0**-30], ids=["bf16 alone", "not bf16 alone"])
def test_a_product_is_in_full_float32_whatever_multiplies_it(added: float) -> None:
    generator = torch.Generator().manual_seed(3)
    X, Y = (torch.randn(shape, generator=generator).bfloat16().float() for shape in ((3, 50, 300), (300, 70)))
    X = X + added
    exact = X.double() @ Y.double()
    found = full_product(X, Y)
    assert float((found - exact).norm() / exact.norm()) < 1e-6, "2^-9 where numbers were rounded to bf16"
    assert torch.equal(full_product(X[..., :0], Y[:0]), torch.zeros(3, 50, 70)), "ranks may be zero"


def test_full_precision_holds_inside_and_restores_outside() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(KeyError), full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            raise KeyError
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
