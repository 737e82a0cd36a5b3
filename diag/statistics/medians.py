"""Means and medians of a column over the rows that have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, median
from typing import Any

Row = Mapping[str, Any]


def given(rows: Iterable[Row], *columns: str) -> list[Row]:
    """Those that hold a value in each of these columns."""
    return [row for row in rows if all(row.get(column) is not None for column in columns)]


def over(rows: Iterable[Row], column: str, average: Callable[[Sequence[float]], float] = mean) -> float | None:
    """The mean, or another average, of a column; None where no row has it."""
    values = [float(row[column]) for row in given(rows, column)]
    return average(values) if values else None


def middle(rows: Iterable[Row], column: str) -> float | None:
    """The median of a column; None where no row has it."""
    return over(rows, column, median)


def where(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Rows with these values."""
    return [row for row in rows if all(row.get(column) == value for column, value in values.items())]
