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


def status_of(row: Row) -> str:
    """The row's status in words; nothing when all is well."""
    status = str(row.get("status") or "ok")
    return "" if status == "ok" else status.replace("_", " ")


@dataclass(frozen=True)
class Column:
    """One column over rows: a heading, the text of a row, the group it stands under, and why a cell may be empty."""

    label: str
    text: Callable[[Row], str]
    group: str = ""
    reason: Callable[[Row], str] = status_of


@dataclass(frozen=True)
class Table:
    """A caption, headings, and lines whose first cell is the heading of its line; `raw` are the rows they show.

    `narrow` has notes below their values and headings in short lines, so that many columns fit side by side.
    """

    caption: str
    headings: Sequence[str]
    lines: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()
    raw: Sequence[Row] = ()
    narrow: bool = False

    @property
    def wordy(self) -> list[bool]:
        """Which columns hold words, so that they read from the left: most of their cells begin with a letter."""
        columns = [[line[place].text for line in self.lines] for place in range(len(self.headings))]
        filled = [[text for text in texts if text not in ("", EMPTY)] for texts in columns]
        return [2 * sum(text[0].isalpha() for text in texts) > len(texts) for texts in filled]


def _cell(column: Column, row: Row) -> Cell:
    text = column.text(row)
    return Cell(text, column.reason(row) if text == EMPTY else "")


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
        lines=[[_cell(column, row) for column in columns] for row in rows],
        groups=groups if len(groups) > 1 else (),
        raw=rows,
    )


def pairs(caption: str, headings: tuple[str, str], values: dict[str, str]) -> Table:
    """A two-column table of named values."""
    return Table(caption, headings, [[Cell(name), Cell(value)] for name, value in values.items()])
