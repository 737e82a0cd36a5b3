"""Tables as page and terminal draw them: columns with headings, cells with text and, when empty, the reason why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from reports.formats import EMPTY, measured, words
from reports.run import Row
from reports.theme import order, title


class Described(Protocol):
    """A column's description: how it is headed and written, and which others belong to it.

    `error`, `low`, `high` and `baseline` name the columns of its standard error, interval and baseline, which stand in
    its own cells; `why` are the statuses that say why it is empty, others speak for every column.
    """

    @property
    def name(self) -> str: ...
    @property
    def heading(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def form(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def low(self) -> str: ...
    @property
    def high(self) -> str: ...
    @property
    def baseline(self) -> str: ...
    @property
    def why(self) -> Sequence[str]: ...


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
        """True for columns that hold words and so read from the left: most of their cells begin with a letter."""
        columns = [[line[place].text for line in self.lines] for place in range(len(self.headings))]
        filled = [[text for text in texts if text not in ("", EMPTY)] for texts in columns]
        return [2 * sum(text[0].isalpha() for text in texts) > len(texts) for texts in filled]


def _cell(column: Column, row: Row) -> Cell:
    text = column.text(row)
    return Cell(text, column.reason(row) if text == EMPTY else "")


def table_of(rows: Sequence[Row], columns: Sequence[Column], caption: str) -> Table:
    """The table of these columns, one line a row; neighbouring columns of one group share a heading."""
    return Table(
        caption=caption,
        headings=[column.label for column in columns],
        lines=[[_cell(column, row) for column in columns] for row in rows],
        groups=_spans([column.group for column in columns]),
        raw=rows,
    )


def tabulated(
    caption: str, columns: Sequence[Described], rows: Sequence[Row], keys: Sequence[str] = (), across: str = ""
) -> Table:
    """The table of these rows. `across`: its values become groups of columns, in lines of equal `keys`."""
    spoken = {
        column.name: [getattr(column, part) for part in ("error", "low", "high", "baseline")] for column in columns
    }
    shown = [column for column in columns if all(column.name not in parts for parts in spoken.values())]
    own = {status for column in columns for status in column.why}
    raw = [{column.name: row.get(column.name) for column in columns} for row in rows]
    if not across:
        lines = [[_said(column, row, own) for column in shown] for row in rows]
        return Table(caption, [c.heading for c in shown], lines, _spans([c.group for c in shown]), raw)
    first = [column for column in shown if column.name in keys]
    rest = [column for column in shown if column.name not in (*keys, across)]
    held = dict.fromkeys(str(row[across]) for row in rows if row.get(across) is not None)
    names = sorted(held, key=lambda name: order(name)[0])  # others as they come
    found: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(key) for key in keys), {})[str(row.get(across) or "")] = row
    lines = []
    for ours in found.values():
        lone = ours.get("", {"status": "not_measured"})
        cells = [_said(column, next(iter(ours.values())), own) for column in first]
        lines.append(cells + [_said(column, ours.get(name, lone), own) for name in names for column in rest])
    groups = _spans([*("" for _ in first), *(title(name) for name in names for _ in rest)])
    return Table(caption, [c.heading for c in first] + [c.heading for _ in names for c in rest], lines, groups, raw)


def _said(column: Described, row: Row, own: set[str]) -> Cell:
    """The cell; empty, it has the status where that is of this column or of no other."""
    parts = {part: row.get(name) for part in ("error", "low", "high", "baseline") if (name := getattr(column, part))}
    text = measured(row.get(column.name), column.form, **parts)
    status = str(row.get("status") or "ok")
    speaks = text == EMPTY and status != "ok" and (status in column.why or status not in own)
    return Cell(text, words(status) if speaks else "")


def _spans(names: Sequence[str]) -> list[tuple[str, int]]:
    """Neighbours of one name as (name, how many); nothing where there is only one name."""
    groups: list[tuple[str, int]] = []
    for name in names:
        same = bool(groups) and groups[-1][0] == name
        groups[-1:] = [(name, groups[-1][1] + 1)] if same else [*groups[-1:], (name, 1)]
    return groups if len(groups) > 1 else []


def pairs(caption: str, headings: tuple[str, str], values: dict[str, str]) -> Table:
    """A two-column table of named values."""
    return Table(caption, headings, [[Cell(name), Cell(value)] for name, value in values.items()])
