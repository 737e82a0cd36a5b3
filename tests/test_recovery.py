"""Recovery of entries by truncated SVD: every rank against the explicit truncation, in either orientation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diag.probes.superweights import entry_groups
from diag.probes.superweights.entry_recovery import Estimate, method_rows, rank_grid, svd_rows, track
from tdmoe.numerics.recovery import Curves, recovery_curves
from tdmoe.problems import InputError

TALL, WIDE = (37, 21), (19, 43)
pytestmark = pytest.mark.usefixtures("one_thread")


def matrix(shape: tuple[int, int], seed: int = 0, *, spike: bool = True) -> Tensor:
    """Heavy columns, a decaying spectrum, and one entry that stands out."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, min(shape), generator=generator) for n in shape)
    W_OI = left * torch.arange(1, min(shape) + 1) ** -0.7 @ right.T
    if spike:
        W_OI[3, 5] = 40.0
    return W_OI


def every_entry(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    flat = torch.arange(shape[0] * shape[1])
    return flat // shape[1], flat % shape[1]


def explicit(W_OI: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(error, tolerance) of every entry at every rank: (N, O, I) and (O, I), by numpy's SVD."""
    W = W_OI.double().numpy()
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    errors = np.stack([np.abs((U[:, :k] * s[:k]) @ Vt[:k] - W) for k in range(1, len(s) + 1)])
    return errors, np.maximum(1e-6, 0.05 * np.abs(W))


@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("chunk_bytes", [1 << 20, 400])
def test_every_rank_is_that_of_the_truncation(shape: tuple[int, int], chunk_bytes: int) -> None:
    W_OI = matrix(shape)
    curves = recovery_curves(W_OI, *every_entry(shape), chunk_bytes=chunk_bytes)
    errors, tolerance = explicit(W_OI)
    assert (np.abs(errors - tolerance) > 1e-9).all()  # no entry is decided by rounding
    inside = (errors <= tolerance).reshape(len(errors), -1).T
    assert np.array_equal(curves.recovered_PN.numpy(), inside)
    stays = [min(k for k in range(1, len(row) + 1) if row[k - 1 :].all()) for row in inside]
    assert curves.stays_from_P.tolist() == stays
    assert curves.first_P.tolist() == [int(row.argmax()) + 1 for row in inside]
    assert (curves.first_P < curves.stays_from_P).any()  # some are lost again: the two differ


@pytest.mark.parametrize("shape", [TALL, WIDE])
def test_dominant_component_and_its_share(shape: tuple[int, int]) -> None:
    W_OI = matrix(shape)
    curves = recovery_curves(W_OI, *every_entry(shape))
    U, s, Vt = np.linalg.svd(W_OI.double().numpy(), full_matrices=False)
    size = np.abs(np.einsum("on,n,ni->oin", U, s, Vt)).reshape(-1, len(s))
    total = size.sum(1)
    assert curves.dominant_P.tolist() == (size.argmax(1) + 1).tolist()
    assert np.allclose(curves.dominant_share_P, size.max(1) / total)
    assert curves.half_P.tolist() == [int((np.cumsum(row) < 0.5 * row.sum()).sum()) + 1 for row in size]
    assert np.allclose(curves.sigma_N, s)


def test_fractions_are_means_over_the_entries_asked_for() -> None:
    curves = recovery_curves(matrix(TALL), *every_entry(TALL))
    among, ranks = torch.tensor([3, 700, 8]), torch.tensor([1, 5, 21])
    flags = curves.recovered_PN[among][:, [0, 4, 20]].double()
    assert torch.equal(curves.recovered(ranks, among), flags.mean(0))
    stays = [[float(curves.stays_from_P[p] <= k) for k in ranks] for p in among]
    assert torch.equal(curves.stays(ranks, among), torch.tensor(stays, dtype=torch.float64).mean(0))
    assert float(curves.stays(ranks, among)[-1]) == 1.0


@pytest.mark.parametrize(("sigma", "first"), [([8.0, 4.0, 2.0], 2), ([8.0, 0.0, 0.0], 1)])
def test_planted_components(sigma: list[float], first: int) -> None:
    """W = diag(sigma) in a rotated frame of rows only: entry (o, n) is component n alone."""
    generator = torch.Generator().manual_seed(1)
    Q = torch.linalg.qr(torch.randn(5, 3, generator=generator, dtype=torch.float64))[0]
    curves = recovery_curves(Q * torch.tensor(sigma, dtype=torch.float64), torch.tensor([2, 2]), torch.tensor([0, 1]))
    assert curves.dominant_P.tolist()[0] == 1
    assert curves.stays_from_P.tolist() == [1, first]  # a zero entry is recovered from the start


def test_a_tiny_entry_has_the_absolute_tolerance() -> None:
    W_OI = torch.diag(torch.tensor([1.0, 0.9e-6, 1.1e-6], dtype=torch.float64))
    curves = recovery_curves(W_OI, torch.tensor([1, 2]), torch.tensor([1, 2]))
    assert curves.stays_from_P.tolist() == [1, 2]  # 1.1e-6 is the second component


@pytest.mark.parametrize(("row", "column", "said"), [(37, 0, "row 37"), (0, 21, "column 21"), (-1, 0, "row -1")])
def test_entries_outside_are_refused(row: int, column: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        recovery_curves(matrix(TALL), torch.tensor([row]), torch.tensor([column]))


def test_no_entries() -> None:
    none = torch.zeros(0, dtype=torch.long)
    curves: Curves = recovery_curves(matrix(TALL), none, none)
    assert curves.recovered_PN.shape == (0, 21)


def test_bf16_weights_are_taken_exactly() -> None:
    W_OI = matrix(WIDE).bfloat16()
    ours, wide = (recovery_curves(W, *every_entry(WIDE)) for W in (W_OI, W_OI.double()))
    assert torch.equal(ours.recovered_PN, wide.recovered_PN)


def test_groups_are_those_of_a_full_sort() -> None:
    W_OI, generator = matrix(WIDE), torch.Generator().manual_seed(2)
    mean_square_I = torch.rand(43, generator=generator, dtype=torch.float64) * 100
    mean_square_I[7] = 0.0
    W = W_OI.double().numpy()
    scores = {
        "magnitude": (entry_groups.top_magnitude(W_OI, 12), np.abs(W)),
        "activation": (
            entry_groups.activation_weighted(W_OI, mean_square_I, 12),
            np.abs(W) * np.maximum(np.sqrt(mean_square_I.numpy()), 1e-12),
        ),
    }
    for places, score in scores.values():
        best = np.argsort(-score, axis=None)[:12]
        assert places.tolist() == np.stack(np.unravel_index(best, W.shape), 1).tolist()
    assert entry_groups.top_magnitude(W_OI, 1).tolist() == [[3, 5]]


def test_inliers_are_small_and_drawn_by_seed() -> None:
    W_OI = matrix(TALL)
    W_OI[0, :10] = 1e-5  # too small to count
    first, again, other = (
        entry_groups.random_inliers(W_OI, 50, torch.Generator().manual_seed(seed)).tolist() for seed in (1, 1, 2)
    )
    assert first == again != other
    size, median = W_OI.abs(), np.median(W_OI.abs().numpy())
    assert len({tuple(place) for place in first}) == 50
    assert all(1e-4 <= float(size[i, j]) <= median for i, j in first)
    everyone = entry_groups.random_inliers(W_OI, 10**6, torch.Generator().manual_seed(0))
    assert len(everyone) == int(((size >= 1e-4) & (size <= median)).sum())


def test_random_entries_are_distinct() -> None:
    places = entry_groups.random_entries((4, 3), 11, torch.Generator().manual_seed(0)).tolist()
    assert len({tuple(place) for place in places}) == 11
    assert all(0 <= i < 4 and 0 <= j < 3 for i, j in places)


def test_rows_of_recovery_and_of_entries() -> None:
    """Table rows against the explicit truncation; a group without entries is one row that says why."""
    W_OI = matrix(TALL)
    tracked = track(W_OI, [(3, 5)], None, 10, torch.Generator().manual_seed(0))
    rows, entries = svd_rows(W_OI, 4, tracked, 7)
    errors, tolerance = explicit(W_OI)
    for row in rows:
        if row["status"] != "ok":
            assert row == {"method": "svd", "group": "activation_weighted", "entries": 0, "status": "not_calibrated"}
            continue
        places = tracked.places[row["group"]].tolist()
        inside = [bool(errors[row["rank"] - 1, i, j] <= tolerance[i, j]) for i, j in places]
        assert row["recovered_fraction"] == pytest.approx(np.mean(inside))
        assert row["stored_bits"] == 16 * 4 * row["rank"] * (37 + 21)
        assert row["kept_ratio"] == pytest.approx(row["rank"] * 58 / (37 * 21))
    ranks = [row["rank"] for row in rows if row["group"] == "superweight"]
    assert (ranks[0], ranks[-1], len(ranks)) == (1, 21, 7)
    assert [(e["row"], e["column"]) for e in entries if e["group"] == "superweight"] == [(3, 5)]
    assert all(e["first_rank"] <= e["stays_from_rank"] <= e["full_rank"] == 21 for e in entries)


def test_rows_of_a_method_at_rising_storage() -> None:
    """An entry that is lost again at more storage does not stay recovered at less."""
    W_OI = matrix(TALL)
    tracked = track(W_OI, [(3, 5)], torch.ones(21, dtype=torch.float64), 4, torch.Generator().manual_seed(0))
    best = W_OI.clone()
    spoiled = W_OI.clone()
    spoiled[3, 5] *= 1.2
    made = [Estimate("x", None, "", bits, bits / 100, W) for bits, W in ((30, best), (10, best), (20, spoiled))]
    rows = [row for row in method_rows(W_OI, tracked, made) if row["group"] == "superweight"]
    assert [row["stored_bits"] for row in rows] == [10, 20, 30]
    assert [row["recovered_fraction"] for row in rows] == [1.0, 0.0, 1.0]
    assert [row["stays_recovered_fraction"] for row in rows] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(("most", "count", "ranks"), [(5, 9, [1, 2, 3, 4, 5]), (768, 2, [1, 768]), (1, 4, [1])])
def test_grid_of_ranks(most: int, count: int, ranks: list[int]) -> None:
    assert rank_grid(most, count).tolist() == ranks
