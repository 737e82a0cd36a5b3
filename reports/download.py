"""A table as a CSV file inside the page: a link that holds it, so that it needs neither script nor server.

It holds the raw rows where the table has them, otherwise what is shown, a cell's note in a column of its own. Cells
that a spreadsheet would take for a formula, which only text from outside can be, begin with an apostrophe; numbers
stay.
"""

import base64
import csv
import io
import re
from collections.abc import Sequence

from reports import spreadsheet
from reports.formats import EMPTY, display
from reports.run import Row
from reports.tables import Cell, Table

_NUMBER = re.compile(r"[+\-−]?[0-9][0-9.]*(?:e[+-]?[0-9]+)?")
_SCALAR = (str, int, float, bool, type(None))


def csv_url(table: Table) -> str:
    """The table as a data: URL."""
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(csv_text(table).encode()).decode()}"


def csv_text(table: Table) -> str:
    """The table as CSV: comma, quotes where needed, lines end in a line feed, first line the headings."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows(_raw(table.raw) if _plain(table.raw) else _shown(table))
    return buffer.getvalue()


def _plain(rows: Sequence[Row]) -> bool:
    return bool(rows) and all(isinstance(value, _SCALAR) for row in rows for value in row.values())


def _raw(rows: Sequence[Row]) -> list[list[str]]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [[_safe(column) for column in columns], *([_value(row.get(column)) for column in columns] for row in rows)]


def _shown(table: Table) -> list[list[str]]:
    noted = [any(line[place].note for line in table.lines) for place in range(len(table.headings))]
    groups = [name for name, span in table.groups for _ in range(span)] or [""] * len(table.headings)
    names = [f"{group}: {name}" if group else name for group, name in zip(groups, table.headings, strict=True)]
    lines = [_spread(names, [f"{name}, note" for name in names], noted)]
    for line in table.lines:
        lines.append(_spread([_text(cell) for cell in line], [_safe(cell.note) for cell in line], noted))
    return [[_safe(name) for name in lines[0]], *lines[1:]]


def _spread(cells: Sequence[str], notes: Sequence[str], noted: Sequence[bool]) -> list[str]:
    """Cells, each followed by its note where the column has notes."""
    pairs = zip(cells, notes, noted, strict=True)
    return [text for cell, note, there in pairs for text in ((cell, note) if there else (cell,))]


def _text(cell: Cell) -> str:
    if cell.text == EMPTY:
        return ""
    return cell.text.replace("−", "-") if _NUMBER.fullmatch(cell.text) else _safe(cell.text)


def _value(value: object) -> str:
    if value is None:
        return ""
    return _safe(value) if isinstance(value, str) else str(value)


def _safe(text: str) -> str:
    """Text from outside without folders, invisible characters and formulas."""
    return spreadsheet.cell(str(display(text)))
