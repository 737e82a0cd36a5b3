"""Similarity of experts: against scipy, against the definition on explicit activations, and on planted stacks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from tiny import single_thread
from torch import Tensor

import tdmoe.numerics.similarity
from tdmoe.numerics.similarity import (
    Similarity,
    hartley,
    leading_spaces,
    principal_cosines,
    rotated,
    sampled_pairs,
    similarities,
)
from tdmoe.numerics.whitening import metric

SHAPE = (6, 20, 36)
DIRECTIONS = 3
DOUBLE = torch.float64
PERMUTABLE = ["output", "input"]
HIGHER = ("cosine", "aligned_cosine", "input_overlap", "output_overlap", "cka_isotropic")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=DOUBLE)


def measured(W_EOI: Tensor, S_II: Tensor | None = None, units: str = "output", **options: int) -> dict[str, Similarity]:
    asked = {"directions": DIRECTIONS, "draws": 3} | options
    return similarities(W_EOI.clone(), S_II, units=units, generator=generator(7), **asked)


ALL = torch.combinations(torch.arange(SHAPE[0]))


@pytest.mark.parametrize("shape", [SHAPE, (6, 36, 20)], ids=["wide", "tall"])
def test_angles_are_those_of_scipy(shape: tuple[int, int, int]) -> None:
    W_EOI = draw(*shape)
    spaces = leading_spaces(W_EOI, DIRECTIONS, torch.arange(6))
    for mode, side in (("output", 0), ("input", 1)):
        found = principal_cosines(spaces[mode], ALL)
        for (e, f), cosines in zip(ALL.tolist(), found, strict=True):
            pair = []
            for n in (e, f):
                U, _, Vh = np.linalg.svd(W_EOI[n].numpy())
                pair.append((U, Vh.T)[side][:, :DIRECTIONS])
            np.testing.assert_allclose(np.sort(np.arccos(cosines)), np.sort(subspace_angles(*pair)), atol=1e-8)


@pytest.mark.parametrize("whitened", [False, True])
def test_cka_is_that_of_explicit_activations(whitened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        tdmoe.numerics.similarity, "BLOCK_WEIGHTS", 5 * SHAPE[0] * SHAPE[2]
    )  # strips of five rows, the last of one
    W_EOI, x_TI = draw(*SHAPE), draw(200, SHAPE[2], seed=1) * torch.arange(1, SHAPE[2] + 1) ** -0.5
    S_II = metric(x_TI.T @ x_TI / len(x_TI), 0.0).S_NN if whitened else None
    found = measured(W_EOI, S_II)["cka" if whitened else "cka_isotropic"].values_P
    if not whitened:
        x_TI = torch.linalg.qr(x_TI)[0]  # inputs whose second moment is a multiple of the identity
    Y_ETO = x_TI @ W_EOI.transpose(1, 2)
    for (e, f), cka in zip(ALL.tolist(), found, strict=True):
        cross, own = (Y_ETO[e].T @ Y_ETO[f]).square().sum(), [(Y_ETO[n].T @ Y_ETO[n]).norm() for n in (e, f)]
        assert cka == pytest.approx(float(cross / (own[0] * own[1])), rel=1e-10)


@pytest.mark.parametrize("units", PERMUTABLE)
def test_order_of_hidden_units_and_what_depends_on_it(units: str) -> None:
    """One expert, its units shuffled: no measure that is free of their order sees any difference."""
    base = draw(*SHAPE[1:])
    W_EOI = torch.stack([base[torch.randperm(20, generator=generator(e))] for e in range(6)])
    W_EOI = W_EOI if units == "output" else W_EOI.transpose(1, 2).contiguous()
    found = measured(W_EOI, units=units)
    other = "input" if units == "output" else "output"
    same = ["aligned_cosine", f"{other}_overlap", *(["cka_isotropic"] if units == "output" else [])]
    for name in same:
        np.testing.assert_allclose(found[name].values_P, 1.0, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(found[f"{other}_angle"].values_P, 0.0, atol=1e-5)
    for name in ("cosine", f"{units}_overlap"):
        assert found[name].values_P.max() < 0.9, name


def test_experts_that_share_their_spaces_and_nothing_else() -> None:
    U, V = (torch.linalg.qr(draw(n, DIRECTIONS, seed=n))[0] for n in SHAPE[1:])
    W_EOI = U @ draw(SHAPE[0], DIRECTIONS, DIRECTIONS) @ V.T + 1e-3 * draw(*SHAPE, seed=3)
    found = measured(W_EOI)
    for mode in ("output", "input"):
        assert found[f"{mode}_overlap"].values_P.min() > 0.99
        assert found[f"{mode}_overlap"].null_DP.max() < 0.6
    assert abs(found["cosine"].values_P).max() < 0.9  # in the same spaces, by different matrices


def test_independent_experts_are_as_alike_as_the_null() -> None:
    W_EOI = draw(16, 40, 72, seed=5)
    for name, found in measured(W_EOI, draws=6, directions=5).items():
        null = found.null_DP.mean()
        spread = found.null_DP.std() / np.sqrt(found.values_P.size) + found.null_DP.mean(1).std()
        assert abs(found.values_P.mean() - null) < 4 * spread, name
        assert 0.5 < found.values_P.std() / found.null_DP.std() < 2.0, name


def test_copies_are_alike_and_their_null_is_not() -> None:
    W_EOI = draw(*SHAPE[1:]).expand(SHAPE)
    for name, found in measured(W_EOI).items():
        assert found.values_P.shape == (15,) and found.null_DP.shape[0] == 3
        if name in HIGHER:
            np.testing.assert_allclose(found.values_P, 1.0, atol=1e-9, err_msg=name)
            assert found.null_DP.max() < 0.9, name
        else:
            np.testing.assert_allclose(found.values_P, 0.0, atol=1e-5, err_msg=name)
            assert found.null_DP.min() > 1.0, name


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("size", [7, 8])
def test_a_rotation_is_orthogonal_and_every_expert_has_its_own(axis: int, size: int) -> None:
    shape = (3, size, size)
    Q = rotated(torch.eye(size, dtype=DOUBLE).expand(shape).contiguous(), axis, generator())
    torch.testing.assert_close(Q @ Q.transpose(1, 2), torch.eye(size, dtype=DOUBLE).expand(shape))
    assert all(float((Q[e] - Q[f]).norm()) > 1 for e, f in itertools.combinations(range(3), 2))
    W_EOI = draw(3, 5, size) if axis == 2 else draw(3, size, 5)
    singular = [torch.linalg.svdvals(X) for X in (W_EOI, rotated(W_EOI, axis, generator()))]
    torch.testing.assert_close(*singular)
    other = W_EOI.transpose(1, 2) if axis == 1 else W_EOI
    turned = rotated(W_EOI, axis, generator())
    turned = turned.transpose(1, 2) if axis == 1 else turned
    torch.testing.assert_close(turned @ turned.transpose(1, 2), other @ other.transpose(1, 2))  # the other mode's Gram


@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_the_hartley_transform_is_its_definition(size: int) -> None:
    n = torch.arange(size, dtype=DOUBLE)
    angle = 2 * torch.pi * n[:, None] * n / size
    expected = (angle.cos() + angle.sin()) / size**0.5
    torch.testing.assert_close(hartley(torch.eye(size, dtype=DOUBLE), 0), expected)


def test_measures_have_no_scale() -> None:
    W_EOI = draw(*SHAPE).float()
    plain, tiny = measured(W_EOI), measured(W_EOI * 1e-30)
    for name in plain:
        np.testing.assert_allclose(plain[name].values_P, tiny[name].values_P, rtol=1e-4, atol=1e-4, err_msg=name)


def test_zero_experts_are_left_out_and_low_ranks_have_no_spaces() -> None:
    W_EOI = draw(*SHAPE)
    W_EOI[2] = 0.0
    assert measured(W_EOI)["cosine"].values_P.shape == (10,)
    W_EOI[1] = draw(20, 2) @ draw(2, 36)
    found = measured(W_EOI)
    assert not [name for name in found if "overlap" in name or "angle" in name]
    assert "cka_isotropic" in found
    assert measured(torch.zeros(SHAPE)) == measured(draw(1, 20, 36)) == {}


def test_pairs_are_drawn_without_repeats_and_by_the_seed() -> None:
    experts = torch.tensor([4, 0, 2, 9, 7])
    assert sampled_pairs(experts, 10, generator()).tolist() == [
        list(p) for p in itertools.combinations((0, 2, 4, 7, 9), 2)
    ]
    few = sampled_pairs(experts, 4, generator())
    assert len({tuple(pair) for pair in few.tolist()}) == 4 and bool((few[:, 0] < few[:, 1]).all())
    assert torch.equal(few, sampled_pairs(experts, 4, generator()))
    assert not torch.equal(few, sampled_pairs(experts, 4, generator(1)))
