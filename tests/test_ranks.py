"""Ranks: storage, and the published search against the triples that its authors printed or that their code gives."""

from __future__ import annotations

import math

import pytest

from tdmoe.numerics.ranks import Ranks, budget, published_ranks, stored_ranks
from tdmoe.problems import InputError

QWEN3_30B, GPT_OSS_20B = (128, 768, 2048), (32, 2880, 2880)


@pytest.mark.parametrize(
    ("shape", "expert_mode", "rule", "triple", "off"),
    [
        (GPT_OSS_20B, "preserve", "aligned", (32, 1720, 2664), 0),  # Rethinking, appendix C.2
        (GPT_OSS_20B, "compress", "aligned", (20, 2496, 2880), 640),  # likewise
        (QWEN3_30B, "preserve", "aligned", (128, 472, 1928), None),
        (QWEN3_30B, "compress", "aligned", (79, 760, 1936), None),
        (QWEN3_30B, "compress", "every", (117, 541, 1842), None),
        (QWEN3_30B, "preserve", "every", (128, 493, 1848), None),
        (GPT_OSS_20B, "compress", "every", (30, 1744, 2794), None),
        (GPT_OSS_20B, "preserve", "every", (32, 1639, 2793), None),
    ],
)
def test_the_published_search_gives_the_published_triples(
    shape: tuple[int, int, int], expert_mode: str, rule: str, triple: tuple[int, int, int], off: int | None
) -> None:
    found = published_ranks(shape, 0.4, expert_mode=expert_mode, rule=rule)
    assert found == triple
    if off is not None:
        assert found.charged(shape, expert_mode) - budget(shape, 0.4) == pytest.approx(off)


def by_plain_loops(shape: tuple[int, int, int], ratio: float, mode: str, rule: str) -> tuple[int, int, int] | None:
    """What the two public codes do, one triple after the other."""
    experts, outputs, inputs = shape
    kept = (1 - ratio) * (experts * outputs * inputs)
    target = round(kept) if rule == "aligned" else math.ceil((1 - ratio) * experts * outputs * inputs)
    step = 8 if rule == "aligned" and outputs >= 8 and inputs >= 8 else 1
    best, least = None, math.inf
    for r1 in [experts] if mode == "preserve" else range(1, experts + 1):
        charge = experts * r1 if mode == "compress" or rule == "every" else 0
        for r2 in range(step, outputs + 1, step):
            wanted = (target - charge - outputs * r2) / (r1 * r2 + inputs)
            if rule == "every":
                tried = [math.floor(wanted)]
            elif step == 1:
                tried = [math.floor(wanted) + shift for shift in (-1, 0, 1)]
            else:
                tried = [8 * (round(wanted / 8) + shift) for shift in (-1, 0, 1)]
            for r3 in tried:
                off = abs(r1 * r2 * r3 + charge + outputs * r2 + inputs * r3 - target)
                if step <= r3 <= inputs and off < least:
                    best, least = (r1, r2, r3), off
    return best


@pytest.mark.parametrize("rule", ["aligned", "every"])
@pytest.mark.parametrize("expert_mode", ["preserve", "compress"])
def test_the_published_search_is_that_of_plain_loops(expert_mode: str, rule: str) -> None:
    """Shapes with ties, modes below 8, targets that are no whole number, and budgets that no ranks meet."""
    shapes = [(3, 5, 12), (2, 240, 16), (4, 6, 10), (7, 20, 24), (8, 224, 160), (5, 96, 56), (6, 40, 7), (12, 33, 50)]
    for shape in shapes:
        for ratio in (0.03, 0.2, 1 / 3, 0.4, 0.55, 0.8, 0.9, 0.99):
            wanted = by_plain_loops(shape, ratio, expert_mode, rule)
            if wanted is None:
                with pytest.raises(InputError, match=f"no ranks of a {' x '.join(map(str, shape))} stack"):
                    published_ranks(shape, ratio, expert_mode=expert_mode, rule=rule)
            else:
                assert published_ranks(shape, ratio, expert_mode=expert_mode, rule=rule) == wanted, (shape, ratio)


@pytest.mark.parametrize(
    ("shape", "ratio", "expert_mode", "rule", "triple"),
    [
        ((64, 3584, 2560), 0.8, "preserve", "aligned", (64, 680, 2496)),  # as near as (64, 696, 2440), and found first
        ((8, 224, 160), 0.2, "compress", "every", (7, 173, 139)),  # the target 229,376.00000000003 is rounded up
    ],
)
def test_ties_and_targets_are_those_of_the_public_codes(
    shape: tuple[int, int, int], ratio: float, expert_mode: str, rule: str, triple: tuple[int, int, int]
) -> None:
    assert published_ranks(shape, ratio, expert_mode=expert_mode, rule=rule) == triple


def test_a_full_mode_stores_no_factor() -> None:
    """(20, 2496, 2880) of GPT-OSS pays 8.3 million parameters for a 2880 x 2880 factor that nobody needs."""
    found = Ranks(20, 2496, 2880)
    assert found.charged(GPT_OSS_20B, "compress") - found.parameters(GPT_OSS_20B) == 2880 * 2880
    assert Ranks(*QWEN3_30B).parameters(QWEN3_30B) == 128 * 768 * 2048
    assert Ranks(128, 768, 1192).parameters(QWEN3_30B) == 128 * 768 * 1192 + 2048 * 1192


@pytest.mark.parametrize(
    ("shape", "ratio", "expert_mode", "moved"),
    [
        (GPT_OSS_20B, 0.4, "compress", 1),  # its input mode is full
        ((7, 20, 24), 0.4, "preserve", 1),
        ((32, 80, 192), 0.2, "preserve", 2),  # steps of 8 miss the budget by 1.6 %
    ],
)
def test_ranks_by_what_is_stored_move_one_mode_to_the_budget(
    shape: tuple[int, int, int], ratio: float, expert_mode: str, moved: int
) -> None:
    """Against every rank of that mode; the other two are the published ones, and a full mode stays full."""
    published = published_ranks(shape, ratio, expert_mode=expert_mode)
    found = stored_ranks(shape, ratio, expert_mode=expert_mode)
    assert [n for n, (a, b) in enumerate(zip(published, found, strict=True)) if a != b] == [moved]

    def off(rank: int) -> float:
        tried = [*found[:moved], rank, *found[moved + 1 :]]
        factors = sum(n * r for n, r in zip(shape, tried, strict=True) if r < n)
        return abs(tried[0] * tried[1] * tried[2] + factors - (1 - ratio) * shape[0] * shape[1] * shape[2])

    assert off(found[moved]) == min(map(off, range(1, shape[moved] + 1))) < off(published[moved])


def test_published_ranks_that_store_their_budget_stay() -> None:
    for shape in (QWEN3_30B, GPT_OSS_20B, (32, 80, 192)):
        assert stored_ranks(shape, 0.4) == published_ranks(shape, 0.4)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_ratio_outside_0_and_1_is_refused(ratio: float) -> None:
    with pytest.raises(InputError, match=f"ratio {ratio}: .* between 0 and 1"):
        published_ranks(QWEN3_30B, ratio)


def test_a_budget_that_no_ranks_meet_is_refused() -> None:
    with pytest.raises(InputError, match="no ranks of a 2 x 240 x 16 stack in steps of 8 fit"):
        published_ranks((2, 240, 16), 0.9)
