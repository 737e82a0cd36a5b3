"""A column of a table, described once: for the CSV file, the terminal, the page and the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """`name` in the CSV file and `meaning` in a sentence; `label` (else the name in words) and `unit` are its heading.

    `form` is one of `reports.formats.FORMS`, or "text", "name" (as it is) or "method". `error`, `low`, `high` and
    `baseline` name the columns with its standard error, its 95 % interval and the value of its baseline, which are
    shown in its cells.
    `why` are statuses that say why it is empty; a status that no column of the table has speaks for all.
    """

    name: str
    meaning: str
    label: str = ""
    unit: str = ""
    form: str = ""
    error: str = ""
    low: str = ""
    high: str = ""
    baseline: str = ""
    group: str = ""
    why: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Heading above the column."""
        label = self.label or self.name.replace("_", " ")
        note = " (baseline)" if self.baseline else ""
        return f"{label}{f', {self.unit}' if self.unit else ''}{note}"

    def but(self, **changes: Any) -> Column:
        """The same column with another label, group or meaning."""
        return replace(self, **changes)


class Columns(tuple[str, ...]):
    """Columns in the order of the CSV file: a tuple of their names, which knows what each of them is.

    ValueError where a name comes twice, or a column speaks of one that is not there.
    """

    described: Mapping[str, Column]

    def __new__(cls, *columns: Column) -> Columns:
        self = super().__new__(cls, [column.name for column in columns])
        self.described = {column.name: column for column in columns}
        if len(self.described) < len(columns):
            raise ValueError(f"a column comes twice: {', '.join(self)}")
        for column in columns:
            for other in (column.error, column.low, column.high, column.baseline):
                if other and other not in self.described:
                    raise ValueError(f"column {column.name} speaks of {other}, which is not in its table")
        return self

    def __getnewargs__(self) -> tuple[Column, ...]:  # type: ignore[override]
        return tuple(self.described.values())

    def pick(self, *names: str) -> list[Column]:
        """Columns of these names in this order; all of them without names."""
        return [self.described[name] for name in names or self]


@dataclass(frozen=True)
class View:
    """A table as people read it on page and terminal: some columns of rows that are a table's, or made from one.

    `across` spreads the values of a column over groups of columns, a line for equal `keys`. `name` is its anchor and
    that of the figure above it (`Plot.view`); `folded`: behind its caption on the page.
    """

    name: str
    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    keys: Sequence[str] = ()
    across: str = ""
    folded: bool = False
