"""Middle-out schedules against what Rethinking says, and what its code does."""

from __future__ import annotations

import pytest

from diag.declare import parse
from diag.declare.schedule import middle_out
from tdmoe.problems import InputError


@pytest.mark.parametrize(
    ("depth", "order", "first", "last"),
    [(48, "paper", 12, 35), (24, "paper", 6, 17), (48, "code", 18, 41), (24, "code", 9, 20)],
)
def test_the_whole_schedule_ends_where_it_is_said_to(depth: int, order: str, first: int, last: int) -> None:
    whole = middle_out(range(depth), depth // 2, order)
    assert sorted(whole) == list(range(first, last + 1))
    for count in range(1, depth // 2 + 1):
        assert middle_out(range(depth), count, order) == whole[:count], "every step adds one layer to the one before"


def test_both_orders_start_to_the_right_of_the_middle() -> None:
    assert middle_out(range(48), 12, "paper") == middle_out(range(48), 12, "code") == list(range(24, 36))
    assert middle_out(range(48), 16, "code")[12:] == [23, 36, 22, 37]
    assert middle_out(range(48), 16, "paper")[12:] == [23, 22, 21, 20]


def test_layers_are_those_that_have_experts() -> None:
    assert middle_out(range(3, 61), 2) == [32, 33]
    assert parse.schedule("middle-out:2", range(3, 61)) == "32-33"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outside-in:3", "schedule outside-in:3: write middle-out:N"),
        ("middle-out", "write middle-out:N"),
        ("middle-out:0", "0 layers; middle-out takes 1 to 24 of 48; give fewer"),
        ("middle-out:25", "25 layers; middle-out takes 1 to 24 of 48"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse.schedule(text, range(48))
