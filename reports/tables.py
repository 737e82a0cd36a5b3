"""A table as the page draws it: columns with labels, cells with text and, when empty, the reason why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports.formats import EMPTY
from reports.run import Row


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and a short note below it in small type (a status, a published value)."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Column:
    """One column over rows: a heading, the text of a row, and the group of columns it stands under."""

    label: str
    text: Callable[[Row], str]
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, headings, and lines whose first cell is the heading of its line."""

    caption: str
    headings: Sequence[str]
    lines: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()


def cell(text: str, status: str | None) -> Cell:
    """A cell that says why it is empty: the row's status goes below the dash."""
    unexplained = status is None or status == "ok"
    return Cell(text, "" if text != EMPTY or unexplained else str(status).replace("_", " "))


def table_of(rows: Sequence[Row], columns: Sequence[Column], caption: str) -> Table:
    """The table of these columns, one line a row; neighbouring columns of one group share a heading."""
    groups: list[tuple[str, int]] = []
    for column in columns:
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1] + 1)
        else:
            groups.append((column.group, 1))
    return Table(
        caption=caption,
        headings=[column.label for column in columns],
        lines=[[cell(column.text(row), row.get("status")) for column in columns] for row in rows],
        groups=groups if len(groups) > 1 else (),
    )


def pairs(caption: str, headings: tuple[str, str], values: dict[str, str]) -> Table:
    """A two-column table of named values."""
    return Table(caption, headings, [[Cell(name), Cell(value)] for name, value in values.items()])
