"""Expert-mode ablation of a stack: rows that the registry's own method reproduces, and verdicts on planted stacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted import open_planted
from test_expert_mode import draw, independent, prototypes
from tiny import single_thread
from torch import Tensor

from diag.probes.experts import ablating as module
from diag.probes.experts.ablating import Ablation, Whitening, ablation, alignment_of
from diag.probes.experts.binding import interval, verdict
from tdmoe import methods
from tdmoe.compression.compress import compress_stack
from tdmoe.methods import Allotment, StackStatistics
from tdmoe.numerics.ranks import Ranks, budget
from tdmoe.stacks.blocks import BlockReader

SHAPE = (8, 24, 40)
DENSE = 8 * 24 * 40
DOUBLE = torch.float64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def second_moment(tokens: int = 400) -> Tensor:
    x_TI = draw(tokens, SHAPE[2], seed=4) * torch.arange(1, SHAPE[2] + 1) ** -0.5
    return x_TI.T @ x_TI / tokens


def measure(
    folder: Path,
    W_EOI: Tensor,
    C_II: Tensor | None = None,
    whitening: Whitening = "none",
    ratios: tuple[float, ...] = (0.4,),
    dtype: torch.dtype = torch.float32,
    jackknife: int = 4,
) -> Ablation:
    reader = BlockReader(open_planted(folder, W_EOI, dtype), 10**9)
    statistics = None if C_II is None else StackStatistics(C_II)
    asked = {"whitening": whitening, "ratios": ratios, "jackknife": jackknife, "units": "output", "device": "cpu"}
    return ablation(reader, statistics, generator=torch.Generator().manual_seed(3), **asked)


def headlines(found: Ablation) -> list[dict[str, Any]]:
    return [row for row in found.points if row["point"] == "headline"]


@pytest.mark.parametrize("whitening", ["none", "input"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_headlines_are_what_compress_makes_of_their_specs(
    tmp_path: Path, whitening: Whitening, calibrated: bool
) -> None:
    if whitening == "input" and not calibrated:
        return
    W_EOI, C_II = prototypes(6, SHAPE, noise=1.0), second_moment() if calibrated else None
    found = measure(tmp_path, W_EOI, C_II, whitening, ratios=(0.3, 0.5), dtype=torch.bfloat16)
    assert len(headlines(found)) == 8
    for row in headlines(found):
        reader = BlockReader(open_planted(tmp_path, W_EOI, torch.bfloat16), 10**9)
        method, options = methods.parse(row["method"])
        statistics = None if C_II is None else StackStatistics(C_II)
        made = compress_stack(reader, method, options, Allotment(row["ratio"]), statistics, device="cpu")
        assert made.factored.ranks == Ranks(row["rank_expert"], row["rank_output"], row["rank_input"])
        assert row["parameters"] == sum(t.numel() for t in made.factored.tensors().values())
        assert row["kept_ratio"] == row["parameters"] / DENSE
        errors = (made.errors.weight, made.errors.functional, made.errors.operator, made.errors.operator_max)
        names = ("weight_error", "functional_error", "operator_error", "operator_error_max")
        for name, error in zip(names, errors, strict=True):
            assert (row[name] is None) == (error is None)
            assert error is None or row[name] == pytest.approx(error, rel=1e-6), name
        minimised = row["functional_error" if whitening == "input" else "weight_error"]
        assert minimised == pytest.approx(row["metric_error"], rel=2e-3)  # the factors are rounded to bf16
        assert row["status"] == ("ok" if calibrated else "not_calibrated")


def test_storage_is_matched_and_the_curve_holds_the_exact_headlines(tmp_path: Path) -> None:
    shape = (8, 48, 160)
    found = measure(tmp_path, draw(*shape), ratios=(0.2, 0.4))
    for ratio in (0.2, 0.4):
        exact = [row for row in headlines(found) if row["ratio"] == ratio and row["allocation"] == "exact"]
        points = [row for row in found.points if row["ratio"] == ratio and row["point"] == "curve"]
        assert abs(exact[0]["kept_ratio"] - exact[1]["kept_ratio"]) < 0.01
        assert all(row["parameters"] <= budget(shape, ratio) for row in (*exact, *points))
        assert [row["rank_expert"] for row in points] == list(range(1, 9))
        assert points[-1]["metric_error"] == exact[0]["metric_error"] and exact[0]["expert_mode"] == "preserve"
        assert min(row["metric_error"] for row in points[:-1]) == exact[1]["metric_error"]
        assert {row["expert_mode"] for row in points[:-1]} == {"compress"}
        published = [
            r["metric_error"]
            for r in headlines(found)
            if (r["ratio"], r["allocation"]) == (ratio, "published") and r["status"] != "nothing_to_cut"
        ]
        assert min(published) >= min(row["metric_error"] for row in exact)
        assert {row["status"] for row in points} == {"from_table"}


def test_the_published_difference_is_taken_apart(tmp_path: Path) -> None:
    found = measure(tmp_path, prototypes(6, SHAPE, noise=1.0), ratios=(0.4,))
    (row,), points = found.bindings, found.points
    error = {(r["allocation"], r["expert_mode"]): r["metric_error"] for r in headlines(found)}
    curve = {r["rank_expert"]: r["metric_error"] for r in points if r["point"] == "curve"}
    assert row["published_difference"] == error["published", "compress"] - error["published", "preserve"]
    assert row["due_to_experts"] == curve[row["rank_expert_published"]] - curve[8]
    assert row["due_to_ranks"] + row["due_to_experts"] == pytest.approx(row["published_difference"], abs=1e-12)
    assert row["gain"] == pytest.approx(1 - min(list(curve.values())[:-1]) / curve[8])


PLANTED = {
    "few prototypes": (lambda: prototypes(3, SHAPE, noise=0.05), "no"),
    "one input space": (lambda: independent(SHAPE) + 0.05 * draw(*SHAPE, seed=8), "yes"),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("whitening", ["none", "input"])
def test_verdict_on_planted_stacks(tmp_path: Path, name: str, whitening: Whitening) -> None:
    make, expected = PLANTED[name]
    (row,) = measure(tmp_path, make(), second_moment(), whitening).bindings
    assert row["binding"] == expected
    assert row["gain_low"] < row["gain"] < row["gain_high"] and row["groups"] == 4
    assert (row["price_share"] < 0.1) if expected == "no" else (row["price_share"] > 0.9)
    assert row["rank_expert"] < 8 if expected == "no" else row["rank_expert"] == 8
    assert row["price_share_null"] > 0.4 and row["gain_null"] < 0.05
    assert (row["expert_share"] > 0.5) if expected == "no" else (row["expert_share"] == 0.0)


def test_independent_experts_answer_like_their_null(tmp_path: Path) -> None:
    (row,) = measure(tmp_path, draw(12, 24, 40), jackknife=0).bindings
    assert row["price_share"] == pytest.approx(row["price_share_null"], abs=0.03)
    assert row["gain"] == pytest.approx(row["gain_null"], abs=0.01)


def test_without_a_jackknife_there_is_no_verdict(tmp_path: Path) -> None:
    (row,) = measure(tmp_path, prototypes(3, SHAPE, noise=0.05), jackknife=0).bindings
    assert row["gain"] > 0.5
    assert [row[name] for name in ("gain_low", "gain_high", "price_share_low", "binding", "groups")] == [None] * 5


def test_too_few_tokens_damp_the_metric_and_empty_the_curve(tmp_path: Path) -> None:
    W_EOI = prototypes(6, SHAPE, noise=1.0)
    well, poor = (measure(tmp_path, W_EOI, second_moment(n), "input") for n in (400, 20))
    assert all("damping=0.0" in row["method"] for row in headlines(well))
    assert not any("damping" in row["method"] for row in headlines(poor))
    for found, known in ((well, True), (poor, False)):
        assert all((row["functional_error"] is not None) == known for row in found.points if row["point"] == "curve")
        assert all(row["functional_error"] is not None for row in headlines(found))


@pytest.mark.parametrize(
    ("W_EOI", "status"), [(torch.zeros(SHAPE), "zero_weights"), (draw(1, 24, 40), "nothing_to_cut")]
)
def test_stacks_without_an_answer_say_so(tmp_path: Path, W_EOI: Tensor, status: str) -> None:
    found = measure(tmp_path, W_EOI)
    assert found.bindings[0]["status"] == status and found.bindings[0].get("binding") is None
    assert status in {row["status"] for row in found.points}


@pytest.mark.parametrize("values", [(1.0, 2.0, 4.0, 8.0), (0.3, 0.1)])
def test_the_interval_of_a_mean_is_students(values: tuple[float, ...]) -> None:
    """The jackknife standard error of a mean is the usual one."""
    from scipy.stats import t

    x = np.array(values)
    left_out = [(x.sum() - value) / (len(x) - 1) for value in x]
    expected = t.interval(0.95, len(x) - 1, loc=x.mean(), scale=x.std(ddof=1) / np.sqrt(len(x)))
    np.testing.assert_allclose(interval(float(x.mean()), left_out), expected)


@pytest.mark.parametrize(
    ("estimate", "left_out"), [(None, (1.0, 2.0)), (1.0, ()), (1.0, (1.0,)), (1.0, (1.0, None, 2.0))]
)
def test_no_interval_without_all_its_groups(estimate: float | None, left_out: tuple[float | None, ...]) -> None:
    assert interval(estimate, left_out) == (None, None)


@pytest.mark.parametrize(
    ("low", "high", "price", "expected"),
    [
        (0.1, 0.2, 0.1, "no"),
        (0.1, 0.2, 0.9, "no"),
        (-0.2, -0.1, 0.6, "yes"),
        (-0.2, -0.1, 0.4, "undecided"),
        (-0.2, -0.1, None, "undecided"),
        (-0.1, 0.1, 0.9, "undecided"),
        (None, None, 0.9, None),
    ],
)
def test_verdict(low: float | None, high: float | None, price: float | None, expected: str | None) -> None:
    assert verdict({"gain": 0.0, "gain_low": low, "gain_high": high, "price_share_low": price}) == expected


@pytest.mark.parametrize(
    ("shape", "step"), [((32, 80, 192), 1), ((128, 768, 2048), 8), ((32, 2880, 2880), 8), ((256, 2048, 7168), 32)]
)
def test_steps_of_ranks_keep_the_table_small(shape: tuple[int, int, int], step: int) -> None:
    assert alignment_of(shape) == step
    assert shape[0] * (shape[1] // step + 1) * (shape[2] // step + 1) <= module.CELLS
