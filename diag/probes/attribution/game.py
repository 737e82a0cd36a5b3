"""Coalitions that Shapley values are computed from: all sets of the switches, or those that some orders go through."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diag.probes.attribution.shapley import (
    DRAWN_ORDERS,
    EXACT_SWITCHES,
    Coalition,
    Losses,
    by_orders,
    drawn_orders,
    exact,
    prefixes,
    subsets,
)
from diag.statistics.gap import Vector
from tdmoe.problems import InputError

ALL, NONE = "all", "none"


@dataclass(frozen=True)
class Game:
    """`orders` None: all of them, by all coalitions."""

    switches: tuple[str, ...]
    orders: tuple[tuple[str, ...], ...] | None

    @property
    def coalitions(self) -> list[Coalition]:
        """Coalitions whose losses are needed, smallest first."""
        return subsets(self.switches) if self.orders is None else prefixes(self.orders)

    @property
    def orders_said(self) -> str | int:
        """Number of orders, for the table."""
        return ALL if self.orders is None else len(self.orders)

    @property
    def identity(self) -> Any:
        """Switches and orders, as an identity has them."""
        return [self.switches, self.orders]

    def values(self, losses: Losses) -> dict[str, Vector]:
        """(K, W) of every switch."""
        return exact(losses, self.switches) if self.orders is None else by_orders(losses, self.orders)


def game(switches: Sequence[str], asked: str | None, full: bool, seed: int) -> Game | None:
    """`all`, `none`, or a number of orders; by default all while they are few, and none for the quick ladder."""
    if asked is None:
        few = len(switches) <= EXACT_SWITCHES
        asked = NONE if not full else ALL if few else str(DRAWN_ORDERS)
    if asked == NONE:
        return None
    if asked == ALL:
        return Game(tuple(switches), None)
    if not re.fullmatch(r"[1-9]\d{0,5}", asked):
        raise InputError("shapley", asked, remedy="give all, none, or a number of orders to draw")
    if int(asked) >= math.factorial(len(switches)):  # there are no more
        return Game(tuple(switches), None)
    return Game(tuple(switches), tuple(drawn_orders(switches, int(asked), seed)))
