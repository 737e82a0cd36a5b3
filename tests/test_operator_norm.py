"""Norms of residuals against dense SVD, and against answers that were planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import MODES, open_planted, orthonormal, planted
from tiny import single_thread
from torch import Tensor

import tdmoe.forms.residual
import tdmoe.numerics.operator_norm
import tdmoe.stacks.blocks
import tdmoe.tucker.truncation
from tdmoe import methods
from tdmoe.forms.residual import residual
from tdmoe.forms.slices import outputs
from tdmoe.methods import Allotment
from tdmoe.numerics.gram import mode_grams
from tdmoe.numerics.operator_norm import TIGHT, norms_of_grams
from tdmoe.numerics.tensor_norm import tensor_norm
from tdmoe.stacks.blocks import BlockReader
from tdmoe.tucker.modes import basis, mode_bases
from tdmoe.tucker.truncation import expert_components, expert_truncation, mode_truncations

SHAPES = {"wide": (6, 9, 14), "tall": (5, 15, 8), "many": (21, 4, 7)}
HOW: dict[str, Any] = {"dtype": torch.float64}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, strips and chunks, so that their bounds are crossed."""
    monkeypatch.setattr(tdmoe.stacks.blocks, "BLOCK_WEIGHTS", 300)
    for module in (tdmoe.forms.residual, tdmoe.tucker.truncation):
        monkeypatch.setattr(module, "HELD_WEIGHTS", 400)


@pytest.fixture
def iterated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Krylov spaces also for small matrices."""
    monkeypatch.setattr(tdmoe.numerics.operator_norm, "SMALL", 0)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Numbers that float32 holds exactly, in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def moment(inputs: int) -> Tensor:
    x_TI = draw(40, inputs, seed=9) * torch.arange(1, inputs + 1) ** -0.5
    return x_TI.T @ x_TI / 40


def unfolded(X_EOI: Tensor, mode: str) -> Tensor:
    return X_EOI.movedim(MODES.index(mode), 0).flatten(1)


def norm2(X: Tensor) -> Tensor:
    return torch.linalg.svdvals(X)[..., 0]


def check(found: Any, E_EOI: Tensor, C_II: Tensor, unfoldings: bool = True) -> None:
    """Every number of a Residual against the dense residual."""
    exact = norm2(E_EOI).numpy()
    scale = float(exact.max())
    assert (found.experts.lower_B <= exact + 1e-9 * scale).all() and (
        found.experts.upper_B >= exact - 1e-9 * scale
    ).all()
    np.testing.assert_allclose(found.experts.lower_B, exact, rtol=TIGHT, atol=1e-9 * scale)
    np.testing.assert_allclose(found.squared_E, E_EOI.square().sum((1, 2)).numpy(), rtol=1e-9)
    assert found.weighted == pytest.approx(float(((E_EOI @ C_II) * E_EOI).sum()), rel=1e-8)
    assert set(found.unfoldings) == (set(MODES) if unfoldings else set())
    for mode, norms in found.unfoldings.items():
        exact_n = float(norm2(unfolded(E_EOI, mode)))
        assert norms.lower_B[0] * (1 - 1e-9) <= exact_n <= norms.upper_B[0] * (1 + 1e-9)
        assert norms.lower_B[0] == pytest.approx(exact_n, rel=TIGHT)


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("rank", [1, 2, 40])
def test_an_interval_holds_the_norm(iterated: None, size: int, rank: int) -> None:
    X = draw(4, size, rank) @ draw(4, rank, 60, seed=1)
    found, exact = norms_of_grams(X @ X.mT), norm2(X).numpy()
    assert (found.lower_B <= exact * (1 + 1e-12)).all() and (exact <= found.upper_B * (1 + 1e-12)).all()
    np.testing.assert_allclose(found.lower_B, exact, rtol=TIGHT)
    assert found.upper_end == "cholesky"


@pytest.mark.parametrize("scale", [0.0, 1e-150, 1e140])
def test_norms_of_any_scale(iterated: None, scale: float) -> None:
    X = scale * draw(1, 30, 40)
    np.testing.assert_allclose(norms_of_grams(X @ X.mT).lower_B, norm2(X).numpy(), rtol=TIGHT)


def test_where_the_iteration_misses_the_norm_it_is_computed(iterated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    X = draw(2, 30, 40)
    monkeypatch.setattr(
        tdmoe.numerics.operator_norm, "largest_ritz_value", lambda G_NN, seed: 0.9 * float(G_NN.diagonal().max())
    )
    found = norms_of_grams(X @ X.mT)
    np.testing.assert_allclose(found.lower_B, norm2(X).numpy(), rtol=1e-12)
    assert found.upper_end == "eigenvalue" and (found.lower_B == found.upper_B).all()


def test_a_ritz_value_is_never_above_the_eigenvalue() -> None:
    values = torch.cat([torch.ones(20), torch.linspace(0.999, 0.0, 180)]).double()  # a flat top
    Q = orthonormal(200, 200, seed=3)
    found = tdmoe.numerics.operator_norm.largest_ritz_value(Q.T * values @ Q, seed=1)
    assert 1 - 2e-4 <= found <= 1 + 1e-12


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("mode", MODES)
def test_truncations_of_a_mode_at_all_ranks_equal_dense_residuals(
    tmp_path: Path, small_pieces: None, shape: tuple[int, int, int], mode: str
) -> None:
    W, C = draw(*shape), moment(shape[2])
    reader = BlockReader(open_planted(tmp_path, W), 10**9)
    size = shape[MODES.index(mode)]
    ranks = sorted({1, size // 3, size // 2, size - 1, size})
    grams = mode_grams(reader, **HOW)
    found = mode_truncations(reader, mode, basis(grams[mode].gram), ranks, C, **HOW)
    assert list(found) == ranks
    for rank, made in found.items():
        U, sigma, Vh = torch.linalg.svd(unfolded(W, mode), full_matrices=False)
        kept = (U[:, :rank] * sigma[:rank] @ Vh[:rank]).unflatten(
            1, [n for m, n in zip(MODES, shape, strict=True) if m != mode]
        )
        E = W - kept.movedim(0, MODES.index(mode))
        if rank == size:
            assert made.experts.lower_B.max() < 1e-7 and made.squared_E.max() < 1e-14
            assert made.unfoldings[mode].lower_B[0] == 0.0
        else:
            check(made, E, C)
            assert made.unfoldings[mode].lower_B[0] == pytest.approx(float(sigma[rank]), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_an_svd_of_every_expert_leaves_what_eckart_and_young_say(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    W, C = draw(*shape), moment(shape[2])
    reader = BlockReader(open_planted(tmp_path, W), 10**9)
    sigma_EK, weighted_EK = expert_components(reader, C)
    np.testing.assert_allclose(sigma_EK, torch.linalg.svdvals(W).numpy(), rtol=1e-8)
    np.testing.assert_allclose(expert_components(reader)[0], sigma_EK, rtol=1e-8)
    for rank in (0, 1, 3):
        U, sigma, Vh = torch.linalg.svd(W, full_matrices=False)
        E = W - (U[:, :, :rank] * sigma[:, None, :rank]) @ Vh[:, :rank]
        check(expert_truncation(sigma_EK, weighted_EK, rank), E, C, unfoldings=False)
    nothing = expert_truncation(sigma_EK, weighted_EK, min(shape[1:]))
    assert nothing.experts.upper_B.max() == nothing.squared_E.max() == nothing.weighted == 0.0


SPECS = (
    *("tdmoe:whitening=none,alignment=1", "tdmoe:whitening=none,expert_mode=compress,alignment=1", "svd", "d2_moe"),
    *("rtn:bits=3,group=4", "rtn:bits=3,scale=tensor", "mobe:whitening=none,steps=5", "identity", "drop", "mean"),
)


@pytest.mark.parametrize("spec", SPECS)
def test_residuals_of_every_form_equal_dense_ones(
    tmp_path: Path, small_pieces: None, iterated: None, spec: str
) -> None:
    shape = (6, 9, 14)
    W, C = draw(*shape), moment(shape[2])
    reader = BlockReader(open_planted(tmp_path, W), 10**9)
    method, options = methods.parse(spec)
    made = method.compress(
        reader, options, Allotment(0.3), methods.StackStatistics(C, tokens_E=torch.arange(1, 7)), device="cpu"
    ).to(torch.float64)
    for some in (slice(0, 1), slice(2, 9)):
        torch.testing.assert_close(outputs(made, some).members(1, 5), made.members(1, 5)[:, some])
    E = W - made.members(0, shape[0]).double()
    if spec == "identity":
        found = residual(reader, made, C, **HOW)
        assert found.experts.upper_B.max() < 1e-6 and found.weighted == pytest.approx(0.0, abs=1e-9)
    else:
        check(residual(reader, made, C, **HOW), E, C)


def test_the_planted_residual_of_a_truncation_is_found(tmp_path: Path) -> None:
    shape, sigma = (12, 20, 31), np.array([9.0, 7.0, 4.0, 2.5, 2.0, 0.5])
    for mode in MODES:
        reader = BlockReader(open_planted(tmp_path / mode, planted(shape, mode, sigma)), 10**9)
        found = mode_truncations(reader, mode, mode_bases(reader, {}, **HOW)[mode], [2, 5], **HOW)
        for rank, expected in ((2, 4.0), (5, 0.5)):
            norms = found[rank].unfoldings[mode]
            assert (norms.lower_B[0], norms.upper_end) == (pytest.approx(expected, rel=1e-7), "closed_form")
            assert found[rank].squared_E.sum() == pytest.approx((sigma[rank:] ** 2).sum(), rel=1e-7)


def test_float32_products_are_exact_enough(tmp_path: Path, small_pieces: None) -> None:
    W = draw(6, 9, 14)
    reader = BlockReader(open_planted(tmp_path, W), 10**9)
    for mode in MODES:
        first = mode_bases(reader, {}, dtype=torch.float64)[mode]
        single, double = (
            mode_truncations(reader, mode, first, [3], dtype=d)[3] for d in (torch.float32, torch.float64)
        )
        np.testing.assert_allclose(single.experts.lower_B, double.experts.lower_B, rtol=1e-5)
        for other in MODES:
            np.testing.assert_allclose(single.unfoldings[other].lower_B, double.unfoldings[other].lower_B, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda: 5.0, lambda: 0.0], ids=["plain", "zero"])
def test_the_tensor_norm_of_a_rank_one_tensor_is_its_size(tmp_path: Path, make: Callable[[], float]) -> None:
    u, v, w = (orthonormal(1, n, seed=n)[0] for n in (5, 7, 11))
    W = make() * torch.einsum("e,o,i->eoi", u, v, w)
    reader = BlockReader(open_planted(tmp_path, W), 10**9)
    U = mode_bases(reader, {}, **HOW)["expert"].U_NN
    found = tensor_norm(reader, U, torch.Generator().manual_seed(0), **HOW)
    assert found.lower == pytest.approx(make(), rel=1e-6, abs=1e-12)


def test_the_tensor_norm_is_attained_and_below_every_unfoldings(tmp_path: Path) -> None:
    W = draw(6, 9, 14)
    W[range(6), range(6), range(6)] += 4.0
    reader = BlockReader(open_planted(tmp_path, W), 10**9)
    found = tensor_norm(reader, mode_bases(reader, {}, **HOW)["expert"].U_NN, torch.Generator().manual_seed(0), **HOW)
    best = 0.0
    for seed in range(60):  # plain alternating maximisation from other starts
        u, v, w = (draw(n, seed=seed * 7 + n) for n in W.shape)
        for _ in range(60):
            u = torch.einsum("eoi,o,i->e", W, v / v.norm(), w / w.norm())
            v = torch.einsum("eoi,e,i->o", W, u / u.norm(), w / w.norm())
            w = torch.einsum("eoi,e,o->i", W, u / u.norm(), v / v.norm())
        best = max(best, float(w.norm()))
    assert 0.9 * best <= found.lower <= best * (1 + 1e-6)
    assert all(found.lower <= float(norm2(unfolded(W, mode))) for mode in MODES)
