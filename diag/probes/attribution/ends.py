"""The ends of the gap, read from rows of attribution.csv: TD-MoE as published, its best run, and MoBE."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from diag.declare.column import Row
from diag.probes.attribution.columns import COMBINATION, MOBE, PUBLISHED, TDMOE
from diag.statistics.medians import given, where

DAMAGE, OVER_MOBE = "loss_difference_nats", "mobe_difference_nats"
SINGLE_BASIS = "MoBE with one basis and no nonlinearity is a Tucker decomposition that cuts the input mode alone"
_OF_A_PRESET = {"preset", "steps", "groups", "alignment", "damping"}  # options of a spec that leave MoBE whole
_TELLING = ("weight_error", "functional_error")


def known(rows: Sequence[Row], *columns: str) -> list[Row]:
    """Rows with a finite number in each of these columns."""
    return [row for row in given(rows, *columns) if all(isfinite(row[column]) for column in columns)]


def options(row: Row) -> dict[str, str]:
    """Options that the row's spec gives."""
    parts = (part.partition("=") for part in str(row.get("method") or "").partition(":")[2].split(",") if part)
    return {key: value for key, _, value in parts}


def family(row: Row) -> str:
    """The method without its options."""
    return str(row.get("method") or "").partition(":")[0]


def tensors(rows: Sequence[Row]) -> list[Row]:
    """Measured steps of TD-MoE's ladder and combinations of its switches."""
    return [row for row in known(rows, DAMAGE) if row.get("ladder") in (TDMOE, COMBINATION)]


def published(rows: Sequence[Row]) -> Row | None:
    """TD-MoE as published, measured or not."""
    return next(iter(where(rows, ladder=TDMOE, step=PUBLISHED)), None)


def presets(rows: Sequence[Row]) -> list[Row]:
    """MoBE as a whole: sizes, nonlinearity and mixing are those of a preset."""
    return [row for row in rows if family(row) == MOBE and set(options(row)) <= _OF_A_PRESET]


def reference(rows: Sequence[Row]) -> Row | None:
    """The preset of MoBE that the gap is to: nothing lies between it and itself."""
    return next((row for row in known(presets(rows), OVER_MOBE) if row[OVER_MOBE] == 0), None)


def best(rows: Sequence[Row], shares: Sequence[Row]) -> Row | None:
    """The TD-MoE that the shares of the gap are of; without shares, or where it is lost, the one that adds least."""
    found = tensors(rows)
    named = [row for share in shares[:1] for row in where(found, ladder=share.get("ladder"), step=share.get("step"))]
    mobe = reference(rows)
    alike = [] if mobe is None else where(found, projections=mobe.get("projections"))
    return least(named or alike or found)


def refitted(rows: Sequence[Row]) -> Row | None:
    """MoBE with the refit that TD-MoE has, over the projections of the reference."""
    mobe = reference(rows)
    found = [row for row in known(rows, DAMAGE) if family(row) == MOBE and options(row).get("refit") == "expert"]
    return None if mobe is None else least(where(found, projections=mobe.get("projections")))


def least(rows: Sequence[Row]) -> Row | None:
    """The row that adds least to the loss."""
    return min(rows, key=lambda row: float(row[DAMAGE]), default=None)


def meeting(rows: Sequence[Row]) -> Row | None:
    """The step of TD-MoE whose weight and functional error are nearest to those at which MoBE's ladder starts.

    Errors, not losses: the same decomposition has the same ones, whatever the windows.
    """
    start = known(where(rows, ladder=MOBE)[:1], DAMAGE, *_TELLING)
    steps = known(where(rows, ladder=TDMOE), DAMAGE, *_TELLING)
    return min(steps, key=lambda row: sum(abs(row[e] - start[0][e]) for e in _TELLING), default=None) if start else None
