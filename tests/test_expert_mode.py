"""Curve, gain and prices of the expert mode: against brute force over factors, and on stacks with a known answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import MODES, open_planted
from tiny import single_thread
from torch import Tensor

import tdmoe.stacks.blocks
from tdmoe.numerics.ranks import Ranks, budget
from tdmoe.numerics.whitening import metric
from tdmoe.stacks.blocks import BlockReader
from tdmoe.tucker.decomposition import finish, hosvd
from tdmoe.tucker.expert_mode import at_ranks, binding, curve, curve_grid, prices
from tdmoe.tucker.leave_out import Without, bases_without, groups
from tdmoe.tucker.modes import Basis, Metrics, mode_bases, whitened_grams
from tdmoe.tucker.rank_search import ErrorTable, Grid, error_table, rank_grid

SHAPE = (7, 24, 40)
DOUBLE = torch.float64
HOW = {"dtype": DOUBLE}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tdmoe.stacks.blocks, "BLOCK_WEIGHTS", 3 * SHAPE[1] * SHAPE[2])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def prototypes(count: int, shape: tuple[int, int, int] = SHAPE, noise: float = 0.0, seed: int = 0) -> Tensor:
    """Every expert a mixture of `count` prototypes with flat spectra: only the expert mode can be cut for free."""
    mixed = torch.tensordot(draw(shape[0], count, seed=seed), draw(count, *shape[1:], seed=seed + 1), 1)
    return mixed + noise * draw(*shape, seed=seed + 2)


def independent(shape: tuple[int, int, int] = SHAPE, rank: int = 12, seed: int = 0) -> Tensor:
    """Experts drawn one by one from one input subspace: only the input mode can be cut for free."""
    return draw(*shape[:2], rank, seed=seed) @ draw(rank, shape[2], seed=seed + 1)


def second_moment(size: int = SHAPE[2]) -> Tensor:
    x_TN = draw(3 * size, size, seed=9) * torch.arange(1, size + 1) ** -0.5
    return x_TN.T @ x_TN / len(x_TN)


def table_of(
    folder: Path, W_EOI: Tensor, metrics: Metrics | None = None, grid: Grid | None = None
) -> tuple[BlockReader, dict[str, Basis], ErrorTable]:
    reader = BlockReader(open_planted(folder, W_EOI), 10**9)
    bases = mode_bases(reader, metrics or {}, **HOW)
    return reader, bases, error_table(reader, metrics or {}, bases, grid or rank_grid(reader.stack.shape), **HOW)


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.8])
def test_the_curve_is_the_best_over_actual_factors(tmp_path: Path, whitened: bool, ratio: float) -> None:
    C_II = second_moment()
    metrics = {"input": metric(C_II, 0.0)} if whitened else {}
    W_EOI = prototypes(3, noise=0.7).float().double()
    reader, bases, table = table_of(tmp_path, W_EOI, metrics)
    S_II = metrics["input"].S_NN if whitened else torch.eye(SHAPE[2], dtype=DOUBLE)
    allowed = budget(SHAPE, ratio)
    best: dict[int, float] = {}
    for triple in itertools.product(*table.grid):
        ranks = Ranks(*map(int, triple))
        if ranks.parameters(SHAPE) <= allowed:
            E_EOI = (W_EOI - finish(reader, metrics, hosvd(bases, ranks), **HOW).members(0, SHAPE[0])) @ S_II
            error = float(E_EOI.norm() / (W_EOI @ S_II).norm())
            best[ranks.expert] = min(error, best.get(ranks.expert, np.inf))
    points = curve(table, allowed)
    assert [point.ranks.expert for point in points] == sorted(best)
    np.testing.assert_allclose([point.error for point in points], [best[p.ranks.expert] for p in points], rtol=1e-9)
    assert all(p.parameters == p.ranks.parameters(SHAPE) <= allowed for p in points)
    if whitened:  # the error of an undamped metric is the functional error itself
        lost = sum(float(((E @ C_II) * E).sum()) for E in E_EOI @ torch.linalg.inv(S_II))
        assert float(E_EOI.square().sum()) == pytest.approx(lost, rel=1e-8)


@pytest.mark.parametrize("ratios", [(0.2,), (0.2, 0.3)])
def test_the_smaller_grid_loses_nothing_of_the_curve(tmp_path: Path, ratios: tuple[float, ...]) -> None:
    W_EOI = draw(*SHAPE)
    _, bases, table = table_of(tmp_path, W_EOI)
    budgets, always = [budget(SHAPE, ratio) for ratio in ratios], Ranks(3, 16, 32)
    small = curve_grid(bases, SHAPE, table.grid, budgets, [always])
    assert len(small[2]) < len(table.grid[2])
    _, _, cut = table_of(tmp_path, W_EOI, grid=small)
    for allowed in budgets:
        both = [[(p.ranks, p.squared) for p in curve(t, allowed)] for t in (cut, table)]
        assert [ranks for ranks, _ in both[0]] == [ranks for ranks, _ in both[1]]
        np.testing.assert_allclose([s for _, s in both[0]], [s for _, s in both[1]], rtol=1e-9, atol=1e-14)
    assert at_ranks(cut, always).squared == pytest.approx(at_ranks(table, always).squared, rel=1e-9)


def test_few_prototypes_mixed_are_compressed_for_nothing(tmp_path: Path) -> None:
    _, _, table = table_of(tmp_path, prototypes(3))
    found, points = binding(table, budget(SHAPE, 0.4)), curve(table, budget(SHAPE, 0.4))
    assert found is not None and found.cut is not None and found.gain is not None
    assert points[2].ranks == (3, SHAPE[1], SHAPE[2]) and points[2].error == pytest.approx(0.0, abs=1e-7)
    assert points[1].error > 0.3
    assert found.gain == pytest.approx(1.0, abs=1e-6)
    assert found.whole.error > 0.3
    assert found.price_share == pytest.approx(0.0, abs=1e-9)
    assert found.best is found.cut


def test_independent_experts_in_one_subspace_are_preserved(tmp_path: Path) -> None:
    found = binding(table_of(tmp_path, independent())[2], budget(SHAPE, 0.4))
    assert found is not None
    assert found.best is found.whole and found.whole.ranks.expert == SHAPE[0]
    assert found.whole.error == pytest.approx(0.0, abs=1e-7)
    assert found.cut is not None and found.cut.error > 0.1
    assert found.gain is None or found.gain < -1e3


def test_noise_everywhere_has_prices_on_either_side_by_hand(tmp_path: Path) -> None:
    """Singular values by mode under control: the price of a cut is its tail over what it frees."""
    W_EOI = torch.zeros(SHAPE, dtype=DOUBLE)
    for n in range(7):  # a diagonal: core entries n alone, with energy 4^-n
        W_EOI[n, n, n] = 0.5**n
    _, _, table = table_of(tmp_path, W_EOI)
    dense, energy = float(np.prod(SHAPE)), float(W_EOI.square().sum())
    whole = Ranks(7, 24, 40)
    freed = [dense - Ranks(r, 24, 40).parameters(SHAPE) for r in range(1, 7)]
    tails = [float(W_EOI.square().sum((1, 2))[r:].sum()) / energy for r in range(1, 7)]
    expected = min(t / (f / dense * 100) for t, f in zip(tails, freed, strict=True) if f > 0)
    found = prices(table, whole)
    assert found["expert"] == pytest.approx(expected, rel=1e-9)
    assert found["output"] == found["input"] == pytest.approx(0.0, abs=1e-12)  # 8 directions of either hold it all
    assert binding(table, 1.0) is None  # nothing fits


@pytest.mark.parametrize(("experts", "count", "expected"), [(7, 3, [0, 2, 5, 7]), (3, 8, [0, 1, 2, 3]), (1, 8, [0, 1])])
def test_groups_of_experts(experts: int, count: int, expected: list[int]) -> None:
    assert groups(experts, count) == expected


@pytest.mark.parametrize("whitened", [False, True])
def test_leaving_experts_out_is_the_stack_without_them(tmp_path: Path, whitened: bool) -> None:
    W_EOI = prototypes(4, noise=0.5).float().double()
    metrics = {"input": metric(second_moment(), 0.0)} if whitened else {}
    reader = BlockReader(open_planted(tmp_path / "all", W_EOI), 10**9)
    bounds = groups(7, 3)
    grams = whitened_grams(reader, metrics, bounds=bounds, **HOW)
    for g, (first, last) in enumerate(itertools.pairwise(bounds)):
        fewer = torch.cat([W_EOI[:first], W_EOI[last:]])
        without = Without(reader, first, last)
        assert without.stack.shape == tuple(fewer.shape)
        rest = BlockReader(open_planted(tmp_path / str(g), fewer), 10**9)
        assert torch.equal(torch.cat([Y.clone() for Y in without.strips(DOUBLE)], 1).sort().values,
                           torch.cat([Y.clone() for Y in rest.strips(DOUBLE)], 1).sort().values)  # fmt: skip
        bases, expected = bases_without(grams, bounds, g, "cpu"), mode_bases(rest, metrics, **HOW)
        for mode in MODES:
            torch.testing.assert_close(bases[mode].energy_N, expected[mode].energy_N, rtol=1e-9, atol=1e-9)
        grid = rank_grid(without.stack.shape)
        tables = [error_table(r, metrics, b, grid, **HOW).squared_abc for r, b in ((without, bases), (rest, expected))]
        np.testing.assert_allclose(*tables, rtol=1e-8, atol=1e-12)
