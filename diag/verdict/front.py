"""Models worth choosing of several: the front of loss against stored bits, without what chance may explain.

A model is on the front when no other saves at least as many bits with at most its loss, and one of the two less. Of two
neighbours on it whose losses are not told apart the one that saves more bits is kept; where both store the same, within
the tolerance, the one with the lesser loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from diag.verdict.loss import TOLERANCE, Loss, difference

T = TypeVar("T")


def undominated(listed: Sequence[tuple[float, float, T]]) -> list[T]:
    """Entries that nothing beats, of (bits saved, loss, what it is of), the most bits first."""
    found: list[tuple[float, float, T]] = []
    for one in sorted(listed, key=lambda entry: (-entry[0], entry[1])):
        if not found or one[1] < found[-1][1]:
            found.append(one)
    return [entry[2] for entry in found]


def choices(listed: Sequence[Loss]) -> list[Loss]:
    """The front of models with known bits, the most bits first, each told apart in loss from the one before it."""
    found: list[Loss] = []
    for one in undominated([(x.bits_saved, x.damage, x) for x in listed if x.bits_saved is not None]):
        if not found or not difference(found[-1], one).open:
            found.append(one)
        elif _stored_alike(one, found[-1]):
            found[-1] = one
    return found


def _stored_alike(one: Loss, other: Loss) -> bool:
    assert one.stored is not None and other.stored is not None, "asked before"
    return abs(one.stored - other.stored) <= TOLERANCE * max(one.stored, other.stored)
