"""Statistics of `attribution` against brute force and planted answers, and what its ladders rest on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from planted import MODES, open_planted
from scipy.stats import spearmanr
from tiny import single_thread
from torch import Tensor

from diag.probes.attribution.floors import mode_errors, mode_tails
from diag.probes.attribution.game import game
from diag.probes.attribution.ladder import FULL, MOBE, QUICK, TDMOE, Frame, alignment, steps
from diag.probes.attribution.predictors import Model, predictors, rank_interval
from diag.probes.attribution.rows import of_factors
from diag.probes.attribution.shapley import by_orders, drawn_orders, exact, prefixes, sampled, subsets
from diag.probes.attribution.shares import PRESETS, SAME_CHANGES, Candidate, share_rows
from diag.probes.attribution.switches import SWITCHES, method, switches
from diag.statistics.gap import Gap, crossed, interval, resampled_orders, resamples
from tdmoe import methods
from tdmoe.compression.compress import compress_stack
from tdmoe.numerics.ranks import Ranks
from tdmoe.problems import InputError
from tdmoe.stacks.blocks import BlockReader

PLAYERS = ("a", "b", "c", "d")
Vector = NDArray[np.float64]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


# Shapley values


@pytest.fixture(scope="module")
def losses() -> dict[frozenset[str], Vector]:
    """Of every coalition of four, nothing but noise: five windows."""
    random = np.random.default_rng(0)
    return {coalition: random.normal(size=5) for coalition in subsets(PLAYERS)}


def test_shapley_values_are_the_mean_over_all_orders(losses: dict[frozenset[str], Vector]) -> None:
    expected = {name: np.zeros(5) for name in PLAYERS}
    for order in itertools.permutations(PLAYERS):
        on: set[str] = set()
        for name in order:
            expected[name] += (losses[frozenset(on)] - losses[frozenset(on | {name})]) / math.factorial(4)
            on.add(name)
    for found in (exact(losses, PLAYERS), by_orders(losses, list(itertools.permutations(PLAYERS)))):
        for name in PLAYERS:
            np.testing.assert_allclose(found[name].mean(0), expected[name], atol=1e-14)


def test_of_an_additive_game_each_gets_its_own_and_a_null_player_nothing() -> None:
    worth = {"a": 0.7, "b": -0.2, "c": 0.0, "d": 1.5}
    losses = {on: np.array([3.0, 4.0]) - sum(worth[name] for name in on) for on in subsets(PLAYERS)}
    for found in (exact(losses, PLAYERS), by_orders(losses, drawn_orders(PLAYERS, 3, 0))):
        for name, own in worth.items():
            np.testing.assert_allclose(found[name], own, atol=1e-14)


@pytest.mark.parametrize("count", [1, 5, 24, 30])
def test_drawn_orders_are_different_and_share_out_everything(losses: dict[frozenset[str], Vector], count: int) -> None:
    orders = drawn_orders(PLAYERS, count, 7)
    assert len(set(orders)) == len(orders) == min(count, 24) and orders == drawn_orders(PLAYERS, count, 7)
    assert all(sorted(order) == sorted(PLAYERS) for order in orders)
    known = {on: losses[on] for on in prefixes(orders)}  # and no others are needed
    total = losses[frozenset()] - losses[frozenset(PLAYERS)]
    for found in (by_orders(known, orders), exact(losses, PLAYERS)):
        np.testing.assert_allclose(sum(removed_KW.mean(0) for removed_KW in found.values()), total, atol=1e-14)


def test_samples_are_means_over_drawn_orders_and_windows() -> None:
    random = np.random.default_rng(5)
    removed_KW = random.normal(size=(3, 4))
    orders_BK, windows_BW = resampled_orders(0, 3, 20), resamples(1, 4, 20)
    found_B = sampled(removed_KW, orders_BK, windows_BW)
    for found, of_K, of_W in zip(found_B, orders_BK, windows_BW, strict=True):
        drawn = removed_KW[np.repeat(np.arange(3), np.rint(3 * of_K).astype(int))]
        drawn = drawn[:, np.repeat(np.arange(4), np.rint(4 * of_W).astype(int))]
        assert drawn.shape == (3, 4) and found == pytest.approx(drawn.mean())


def test_games_that_are_asked_for() -> None:
    assert game(PLAYERS, None, False, 0) is None and game(PLAYERS, "none", True, 0) is None
    whole = game(PLAYERS, None, True, 0)
    assert whole is not None and len(whole.coalitions) == 16 and whole.orders_said == "all"
    drawn = game(tuple("abcdefgh"), None, True, 0)
    assert drawn is not None and drawn.orders_said == 16 and len(drawn.coalitions) < 2**8
    for wrong in ("0", "some", "-1", "1.5"):
        with pytest.raises(InputError, match=f"shapley {wrong}: give all, none, or a number"):
            game(PLAYERS, wrong, True, 0)


# the gap


def test_shares_of_a_planted_gap_and_their_interval() -> None:
    """Windows differ by much, models by a constant and little noise: pairs take the former away."""
    random = np.random.default_rng(1)
    hard_W, windows = random.normal(4, 1, 40), 40
    published_W, mobe_W, other_W = hard_W + 1.0, hard_W, hard_W + 0.5
    step_W = hard_W + 0.25 + random.normal(0, 0.1, windows)
    found = Gap.of(published_W, [other_W, mobe_W], resamples(0, windows))
    assert found.clear and found.value == pytest.approx(1.0)
    value, (low, high) = found.closed(step_W)
    assert value == pytest.approx(1 - (step_W - hard_W).mean())
    drawn = [
        1 - (step_W - hard_W)[random.integers(0, windows, windows)].mean() for _ in range(4000)
    ]  # the denominator is 1 in every sample
    assert low == pytest.approx(np.quantile(drawn, 0.025), abs=4e-3)
    assert high == pytest.approx(np.quantile(drawn, 0.975), abs=4e-3)
    assert found.closed(published_W) == (0.0, (0.0, 0.0))
    assert found.closed(mobe_W) == (pytest.approx(1.0), (pytest.approx(1.0), pytest.approx(1.0)))


def test_the_better_preset_is_chosen_anew_in_every_sample() -> None:
    random = np.random.default_rng(2)
    a_W, b_W = random.normal(0, 1, 30), random.normal(0, 1, 30)
    b_W += a_W.mean() - b_W.mean() + 1e-3  # as good as equal
    weights_BW = resamples(3, 30)
    found = Gap.of(np.full(30, 9.0), [a_W, b_W], weights_BW)
    expected = [9.0 - min(w @ a_W, w @ b_W) for w in weights_BW]
    np.testing.assert_allclose(found.value_B, expected)
    assert found.value == pytest.approx(9.0 - a_W.mean())
    assert found.closed(a_W)[1][0] < 1 - 1e-6  # somewhere the other one was better


def test_neighbouring_windows_are_drawn_together() -> None:
    """Of a first-order process a block bootstrap sees most of what its mean varies by, single draws too little."""
    random, windows, decay = np.random.default_rng(6), 512, 0.5
    noise_W = random.normal(0, 1, windows)
    values_W = np.zeros(windows)
    for i in range(windows):
        values_W[i] = decay * values_W[i - 1] + noise_W[i]
    weights_BW = resamples(0, windows)
    np.testing.assert_allclose(weights_BW.sum(1), 1.0)
    truth = 1 / (1 - decay) / windows**0.5  # of the mean, for long series
    alone = (1 / (1 - decay**2) / windows) ** 0.5
    found = (weights_BW @ (values_W - values_W.mean())).std()
    assert 0.8 * truth < found < 1.15 * truth and alone < 0.6 * truth
    assert not np.array_equal(resampled_orders(0, 30), resamples(0, 30))  # no common stream


def test_intervals_hold_the_truth_with_few_windows_too() -> None:
    """95 % of normal windows, where plain percentiles of eight hold 84 %."""
    random = np.random.default_rng(9)
    for windows in (8, 32):
        weights_BW = resamples(0, windows)
        held = 0
        for _ in range(400):
            low, high = interval(weights_BW @ random.normal(0, 1, windows), windows)
            assert low is not None and high is not None
            held += low <= 0 <= high
        assert 0.92 <= held / 400 <= 0.985
    assert interval(np.array([np.nan] * 2 + [1.0] * 18), 8) == (None, None)


def test_the_best_of_many_is_told_on_windows_it_was_not_chosen_on() -> None:
    """Of equal models the least mean is too low by what the choice makes of noise; crossed it is right."""
    random = np.random.default_rng(8)
    chosen, least = [], []
    for _ in range(300):
        losses_CW = random.normal(1, 0.3, (32, 24))
        chosen.append(crossed(list(losses_CW)).mean())
        least.append(losses_CW.mean(1).min())
    assert np.mean(chosen) == pytest.approx(1.0, abs=0.01) and np.mean(least) < 0.9
    better_CW = np.stack([np.full(5, 2.0), np.full(5, 1.0)])
    np.testing.assert_array_equal(crossed(list(better_CW)), better_CW[1])


def planted_runs(**changes: float) -> tuple[Vector, list[Candidate], list[Candidate]]:
    """Published 2 above MoBE's preset; refitted TD-MoE 0.3 above it; MoBE with the refit 0.2 below it."""
    hard_W = np.random.default_rng(11).normal(4, 1, 26)
    added = {"published": 2.0, "exact": 0.5, "refit": 0.3, "mobe": 0.0, "mobe refit": -0.2} | changes
    specs = {
        "exact": "tdmoe",
        "budget": "tdmoe:refit=expert,across=global",
        "refit": "tdmoe:refit=expert",
        "mobe refit": "mobe:refit=expert",
    }
    runs = [
        Candidate(name, "", specs.get(name, name), hard_W + nats, name == "mobe")
        for name, nats in added.items()
        if nats < 9
    ]
    return hard_W + 2.0, [one for one in runs if "mobe" not in one.phrase], [o for o in runs if "mobe" in o.phrase]


@pytest.mark.parametrize(
    ("changes", "like", "plain", "names"),
    [
        ({}, (1.7 / 2.2, 0.5), (1.7 / 2, 0.3), ("refit", "mobe refit", "refit", "")),
        ({"exact": 0.1}, (1.9 / 2, 0.1), (1.9 / 2, 0.1), ("exact", "mobe", "", "")),
        ({"mobe refit": 0.4}, (1.7 / 2, 0.3), (1.7 / 2, 0.3), ("refit", "mobe", "refit", "")),
        ({"budget": 0.2}, (1.8 / 2.2, 0.4), (1.8 / 2, 0.2), ("budget", "mobe refit", "refit", "budget")),
        ({"mobe refit": 9.0}, None, (1.7 / 2, 0.3), ("refit", None, "", "refit")),
    ],
    ids=["refit", "nothing that MoBE lacks", "refit that harms MoBE", "budget", "no refit for MoBE"],
)
def test_shares_are_against_mobe_with_the_same_changes_and_as_it_is(
    changes: dict[str, float],
    like: tuple[float, float] | None,
    plain: tuple[float, float],
    names: tuple[str | None, ...],
) -> None:
    published_W, tensors, matrices = planted_runs(**changes)
    rows = share_rows(tensors, matrices, published_W, resamples(0, 26), {"text": "t", "windows": 26})
    assert [row["against"] for row in rows] == [SAME_CHANGES, PRESETS]
    for row, expected in zip(rows, (like, plain), strict=True):
        if expected is None:
            assert row["gap_closed"] is row["left_nats"] is None and row["status"] == "not_measured"
            continue
        assert (row["gap_closed"], row["left_nats"]) == pytest.approx(expected)
        assert row["gap_low"] == pytest.approx(expected[0]) == row["gap_high"]  # of constant differences
        assert row["gap_nats"] == pytest.approx(expected[1] / (1 - expected[0]))
    assert tuple(rows[0][name] for name in ("step", "mobe", "given", "not_given")) == names
    of_step = {"exact": "", "budget": "budget,refit"}.get(str(names[0]), "refit")
    assert rows[1]["mobe"] == "mobe" and rows[1]["not_given"] == of_step


def test_a_share_is_told_on_windows_that_its_step_was_not_chosen_on() -> None:
    """Of 30 equal runs the least seems to close more of the gap than any of them does; the share does not."""
    told, least = [], []
    for seed in range(60):
        random = np.random.default_rng([12, seed])
        noise = [Candidate(str(n), "", "tdmoe", 0.5 + random.normal(0, 0.3, 24)) for n in range(30)]
        ends = np.ones(24), [Candidate("mobe", "", "mobe", np.zeros(24), True)]
        rows = share_rows(noise, ends[1], ends[0], resamples(0, 24, 50), {"text": "t", "windows": 24})
        told.append(rows[0]["gap_closed"])
        least.append(1 - min(one.losses_W.mean() for one in noise))
    assert np.mean(told) == pytest.approx(0.5, abs=0.025) and np.mean(least) > 0.6


def test_differences_to_mobe_are_those_of_its_better_preset() -> None:
    random = np.random.default_rng(3)
    hard_W = random.normal(4, 1, 30)
    gap = Gap.of(hard_W + 2.0, [hard_W + 0.5, hard_W + 0.1], resamples(0, 30))
    assert gap.over_mobe(hard_W + 0.1) == (0.0, (0.0, 0.0))
    value, (low, high) = gap.over_mobe(hard_W + random.normal(0.4, 0.05, 30))
    assert low < value < high and value == pytest.approx(0.3, abs=0.03)


def test_noise_is_no_gap() -> None:
    random = np.random.default_rng(4)
    hard_W = random.normal(4, 1, 30)
    noise_W = random.normal(0, 1, 30)
    assert not Gap.of(hard_W + noise_W - noise_W.mean(), [hard_W], resamples(0, 30)).clear
    assert Gap.of(hard_W - 1.0, [hard_W], resamples(0, 30)).clear  # the other way round is a gap too


# floors, and where the ladders meet


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[BlockReader, methods.StackStatistics, Tensor]:
    """6 x 8 x 12 with falling columns, its statistics, and W itself; the inputs have a null direction."""
    generator = torch.Generator().manual_seed(0)
    W_EOI = torch.randn(6, 8, 12, generator=generator) * torch.arange(1, 13) ** -0.8
    x_TI = torch.randn(60, 12, generator=generator, dtype=torch.float64) * torch.arange(12, 0, -1) ** 0.5
    x_TI[:, 5] = 0.0
    C_II = x_TI.T @ x_TI / 60
    opened = open_planted(tmp_path_factory.mktemp("stack"), W_EOI)
    return BlockReader(opened, 10**9), methods.StackStatistics(C_II, lambda e: C_II), W_EOI.double()


def plain_tails(W_EOI: Tensor, C_II: Tensor) -> dict[str, Vector]:
    """By numpy: sqrt of the singular values' squares beyond each rank, of the unfoldings of W C^(1/2)."""
    values, V = np.linalg.eigh(C_II.numpy())
    T_EOI = W_EOI.numpy() @ (V * np.sqrt(np.maximum(values, 0))) @ V.T
    found = {}
    for axis, mode in enumerate(MODES):
        unfolded = np.moveaxis(T_EOI, axis, 0).reshape(T_EOI.shape[axis], -1)
        squares = np.linalg.svd(unfolded, compute_uv=False) ** 2
        found[mode] = np.sqrt([squares[r:].sum() / squares.sum() for r in range(len(squares) + 1)])
    return found


def test_the_floor_is_the_tail_of_a_plain_svd(stack: tuple[BlockReader, methods.StackStatistics, Tensor]) -> None:
    reader, statistics, W_EOI = stack
    tails, expected = mode_tails(reader, statistics.C_II, "cpu"), plain_tails(W_EOI, statistics.C_II)
    for mode in MODES:
        np.testing.assert_allclose(np.sqrt(tails[mode]), expected[mode], atol=2e-6)
    found = mode_errors([(tails, "gate", "4x5x7"), (tails, "gate_up", "6x3x12")])  # the second counts twice
    for place, mode in enumerate(MODES):
        one, two = (expected[mode][ranks[place]] for ranks in ((4, 5, 7), (6, 3, 12)))
        assert found[mode] == pytest.approx((one + 2 * two) / 3, abs=2e-6)


@pytest.mark.parametrize("text", ["", "decomposition=hosvd", "whitening=none,objective=weight", "refit=expert"])
@pytest.mark.parametrize("mode", ["preserve", "compress"])
def test_no_tucker_is_below_the_floor(
    stack: tuple[BlockReader, methods.StackStatistics, Tensor], text: str, mode: str
) -> None:
    reader, statistics, _ = stack
    tails = mode_tails(reader, statistics.C_II, "cpu")
    found, options = methods.parse(f"tdmoe:alignment=1,expert_mode={mode}" + (f",{text}" if text else ""))
    made = compress_stack(reader, found, options, methods.Allotment(0.4), statistics, device="cpu")
    ranks = "x".join(map(str, made.factored.ranks))
    floor = max(mode_errors([(tails, "gate", ranks)]).values())
    assert 0 < floor <= made.errors.functional * (1 + 1e-6)  # type: ignore[operator]


def test_one_basis_without_phi_is_tucker_of_the_input_mode(
    stack: tuple[BlockReader, methods.StackStatistics, Tensor],
) -> None:
    """A_e (a_e B) = (a_e A_e) B: the bases' span is the input factor. Both reach the tail that nothing can beat."""
    reader, statistics, W_EOI = stack
    made = {}
    for text in ("mobe:phi=identity,bases=1,rank=4,damping=1e-6", "tdmoe:damping=0,alignment=1"):
        found, options = methods.parse(text)
        allotment = methods.Allotment(0.5, Ranks(6, 8, 4) if text.startswith("tdmoe") else None)
        made[text] = compress_stack(reader, found, options, allotment, statistics, device="cpu").errors.functional
    least = plain_tails(W_EOI, statistics.C_II)["input"][4]
    assert list(made.values()) == [pytest.approx(least, rel=1e-3), pytest.approx(least, rel=1e-5)]


# the ladder


def frame(projections: str, ratio: float = 0.4) -> Frame:
    shapes = {"gate": (32, 80, 192), "up": (32, 80, 192), "down": (32, 192, 80)}
    return Frame(ratio, projections, [shapes[p] for p in projections.split(",")], 0.62, 3000, 1)


def test_every_step_changes_one_thing_of_the_step_before() -> None:
    found = [step for step in steps(frame("gate,up"), FULL) if step.ladder == TDMOE]
    assert [step.recipe.method for step in found if step.recipe] == [
        "tdmoe:whitening=none,allocation=published,decomposition=hosvd",
        "tdmoe:whitening=none,allocation=published_stored,decomposition=hosvd",
        "tdmoe:allocation=published_stored,decomposition=hosvd",
        "tdmoe:decomposition=hosvd",
        "tdmoe:decomposition=hosvd,alignment=1",
        "tdmoe:alignment=1",
        "tdmoe:gate_up=joint,alignment=1",
        "tdmoe:gate_up=joint,refit=expert,alignment=1",
        "tdmoe:whitening=none,objective=weight,gate_up=joint,refit=expert,alignment=1",
        "tdmoe:ratio_of=model,whitening=none,objective=weight,gate_up=joint,refit=expert,across=global,"
        "weigh=sensitivity,alignment=1",
        "tdmoe:ratio_of=model,gate_up=joint,refit=expert,across=global,weigh=sensitivity,alignment=1",
    ]
    assert found[0].phrase == "as published" and {step.projections for step in found[:-2]} == {"gate,up"}
    for step in found[-2:]:
        assert step.projections == "gate,up,down" and step.recipe is not None
        assert step.recipe.ratio == pytest.approx(0.4 * 0.62)
    options = [methods.parse(step.recipe.method)[1] for step in found if step.recipe]
    for before, after in itertools.pairwise(options):
        different = {name for name, value in vars(after).items() if value != getattr(before, name)}
        different -= {"objective"} if "whitening" in different else set()  # which says what whitening is for
        assert len(different) == 1 or different == {"ratio_of", "across", "weigh"}


@pytest.mark.parametrize(("projections", "count"), [("down", 6), ("gate", 6), ("gate,up,down", 7)])
def test_ladders_of_other_projections(projections: str, count: int) -> None:
    """No input factor is shared where there is no pair; down has no share to give where it has one already."""
    assert len(switches(projections.split(","), 1)) == count == len(switches(projections.split(","), 8)) + 1
    found = [step for step in steps(frame(projections), FULL) if step.ladder == TDMOE]
    assert len(found) == count + 4 and {step.projections for step in found} == {projections}
    assert found[-1].recipe is not None and "ratio_of" not in found[-1].recipe.method
    assert found[-1].recipe.ratio == 0.4


def test_rows_of_mobe_and_of_the_quick_ladder() -> None:
    whole, quick = (steps(frame("gate,up"), kind) for kind in (FULL, QUICK))
    assert set(quick) < set(whole)
    assert [s.recipe.method for s in whole if s.preset and s.recipe] == ["mobe", "mobe:preset=published,steps=3000"]
    spread = next(step for step in whole if step.ladder == MOBE and step.projections == "gate,up,down")
    assert spread.recipe is not None and spread.recipe.method == "mobe:ratio_of=model,refit=expert"
    assert spread.recipe.ratio == pytest.approx(0.4 * 0.62)
    few = Frame(0.4, "gate", [(3, 20, 24)], 0.5, 5, 1)
    bases = [methods.parse(s.recipe.method)[1].bases for s in steps(few, FULL) if s.ladder == MOBE and s.recipe]
    assert bases == [1, 2, *(0,) * 7]  # no more bases than experts; 0 are searched
    assert sum(step.recipe is None for step in whole) == 1


def test_coalitions_of_switches_are_specs_of_their_own() -> None:
    """Exact ranks count what is stored anyway, and smaller steps are theirs: no others are one model."""
    found = {on: method(on, 1) for on in subsets(list(SWITCHES))}
    assert len(found) == 128 and len(set(found.values())) == 64
    assert found[frozenset({"ranks"})] == found[frozenset({"ranks", "stored"})]
    assert found[frozenset({"hooi"})] == found[frozenset({"hooi", "fine"})]
    assert method({"ranks"}, 16) == method({"ranks", "fine"}, 16)  # no smaller step can be searched
    assert "objective=weight" in found[frozenset({"ranks"})]
    for text in set(found.values()):
        chosen, options = methods.parse(text)
        chosen.check((32, 80, 192), options, 0.4)


def test_ranks_go_in_larger_steps_where_there_are_too_many() -> None:
    assert alignment([(32, 80, 192), (32, 160, 192)]) == 1
    step = alignment([(128, 768, 2048)])
    assert step == 4 and 128 * 192 * 512 <= 20_000_000 < 128 * 384 * 1024


# predictors


def model(error: float, loss: float, ladder: str = "tdmoe", projections: str = "gate,up") -> Model:
    row = dict.fromkeys(("weight_error", "functional_error", "operator_error"), error)
    row |= {"functional_error_expert": None, "angle_deg": 10 * error, "ladder": ladder, "projections": projections}
    return Model(row, loss + np.array([-0.01, 0.0, 0.01]))


def test_rank_correlations_of_planted_models() -> None:
    pairs = [(0.1, 0.3), (0.2, 0.1), (0.3, 0.5), (0.4, 0.4), (0.5, 0.9), (0.6, 0.7)]
    found = [model(error, loss, "tdmoe" if i % 2 else "mobe") for i, (error, loss) in enumerate(pairs)]
    unchanged, dense = model(0.0, 0.0, "beside"), model(0.0, 0.0, "beside", "")
    again = model(0.1004, 0.35)  # the first one within a hundredth, as another method finds it
    everything = [*found, found[0], again, unchanged, dense]
    rows = {row["error"]: row for row in predictors(everything)}
    expected = spearmanr(*zip(*pairs, strict=True)).statistic
    for error in ("weight_error", "functional_error", "operator_error", "angle_deg"):
        row = rows[error]
        assert row["rank_correlation"] == pytest.approx(expected) and row["runs"] == 6 and row["status"] == "ok"
        assert row["low"] < expected <= row["high"] <= 1
    assert rows["functional_error_expert"]["status"] == "too_few"
    assert rows["functional_error_expert"]["rank_correlation"] is None


def test_what_a_row_leaves_alone_counts_as_no_error() -> None:
    """0.5 of one projection of three is less than 0.2 of all three."""
    found = [model(0.5, 0.1, projections="gate")]
    found += [model(0.1 * (i + 2), 0.1 * (i + 2), projections="gate,up,down") for i in range(4)]
    row = predictors(found)[0]
    assert row["rank_correlation"] == pytest.approx(1.0)
    assert predictors(found[:4])[0]["status"] == "too_few"
    alike = predictors([model(0.3, loss, projections=name) for loss, name in ((0.1, "gate"), (0.2, "up"))])[0]
    assert alike["status"] == "too_few" and alike["runs"] == 2


def test_a_perfect_order_of_few_models_is_no_certainty() -> None:
    low, high = rank_interval(1.0, 9)
    assert 0.85 < low < 0.9 and high == 1.0
    assert rank_interval(-1.0, 9) == (-1.0, pytest.approx(-low))
    assert rank_interval(1.0, 20)[0] > low


def test_intervals_of_rank_correlations_hold_the_true_one() -> None:
    """Normal pairs: of linear correlation r a rank correlation of 6 / pi arcsin(r / 2)."""
    random, held = np.random.default_rng(5), 0
    truth = 6 / np.pi * np.arcsin(0.8 / 2)
    for _ in range(400):
        x_R, y_R = random.multivariate_normal((0, 0), ((1, 0.8), (0.8, 1)), 20).T
        low, high = rank_interval(float(spearmanr(x_R, y_R).statistic), 20)
        held += low <= truth <= high
    assert 0.91 <= held / 400 <= 0.99


def test_errors_are_means_over_projections() -> None:
    rows = [
        {"layer": 0, "projection": "gate_up", "ranks": "3x2x1", "seconds": 1.0, "operator_error": 0.3},
        {"layer": 0, "projection": "down", "ranks": "3x2x2", "seconds": 0.5, "operator_error": 0.6},
    ]
    for row in rows:
        row |= {"weight_error": 0.1, "functional_error": None, "functional_error_expert": 0.2}
    found = of_factors(rows, 0.25)
    assert found["operator_error"] == pytest.approx((2 * 0.3 + 0.6) / 3) and found["functional_error"] is None
    assert (found["seconds"], found["ranks"], found["bits_saved"]) == (1.5, "gate_up:3x2x1 down:3x2x2", 0.25)
