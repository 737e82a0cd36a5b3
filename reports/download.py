"""A table as a CSV file inside the page: a link that holds it, so that it needs neither script nor server.

It holds the raw rows where the table has them, otherwise what is shown: standard errors and a cell's note in columns of
their own, so that numbers are numbers. It begins with a byte order mark, without which spreadsheets misread what is not
ASCII. Cells that a spreadsheet would take for a formula, which only text from outside can be, begin with an apostrophe;
numbers stay.
"""

import base64
import csv
import io
import re
from collections.abc import Sequence

from reports import spreadsheet
from reports.formats import EMPTY, display
from reports.run import Row
from reports.tables import Table

_NUMBER = re.compile(r"[+\-−]?[0-9][0-9.]*(?:e[+-]?[0-9]+)?")
_WITH_ERROR = re.compile(r"([+\-−]?[0-9][0-9.]*) ± ([0-9][0-9.]*)")
_ERROR = "standard error"
_SCALAR = (str, int, float, bool, type(None))


def csv_url(table: Table) -> str:
    """The table as a data: URL."""
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(csv_text(table).encode('utf-8-sig')).decode()}"


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
    groups = [name for name, span in table.groups for _ in range(span)] or [""] * len(table.headings)
    names = [f"{group}: {name}" if group else name for group, name in zip(groups, table.headings, strict=True)]
    columns: list[list[str]] = []
    for place, name in enumerate(names):
        cells = [line[place] for line in table.lines]
        columns += _columns(name, ["" if cell.text == EMPTY else cell.text for cell in cells])
        if any(cell.note for cell in cells):
            columns += _columns(f"{name}, note", [cell.note for cell in cells])
    return [list(line) for line in zip(*columns, strict=True)]


def _columns(name: str, texts: Sequence[str]) -> list[list[str]]:
    """A column with its heading, and one of the standard errors behind values where it has some."""
    found = [_WITH_ERROR.fullmatch(text) for text in texts]
    values = [_text(text if match is None else match[1]) for text, match in zip(texts, found, strict=True)]
    if not any(found):
        return [[_safe(name), *values]]
    return [[_safe(name), *values], [_safe(f"{name}, {_ERROR}"), *("" if m is None else m[2] for m in found)]]


def _text(text: str) -> str:
    plain = text.replace("\N{NO-BREAK SPACE}", " ")
    return plain.replace("−", "-") if _NUMBER.fullmatch(plain) else _safe(plain)


def _value(value: object) -> str:
    if value is None:
        return ""
    return _safe(value) if isinstance(value, str) else str(value)


def _safe(text: str) -> str:
    """Text from outside without folders, invisible characters and formulas."""
    return spreadsheet.cell(str(display(text)))
