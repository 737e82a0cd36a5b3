"""Means and medians of a column over the rows that have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, median
from typing import Any

Row = Mapping[str, Any]


def given(rows: Iterable[Row], *columns: str) -> list[Row]:
    """Rows that hold a value in each of these columns."""
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


def groups(rows: Iterable[Row], column: str, order: Iterable[Any] | None = None) -> dict[Any, list[Row]]:
    """Rows by the value of a column, in this order, or by first appearance; a value without rows is left out."""
    listed = list(rows)
    values = dict.fromkeys(row.get(column) for row in listed) if order is None else order
    return {value: ours for value in values if (ours := where(listed, **{column: value}))}
