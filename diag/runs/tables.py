"""Tables as CSV files: rows under their columns, text from outside safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reports import spreadsheet


def text_of(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A column that a row lacks is empty there."""
    safe = (
        {name: spreadsheet.cell(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    )
    return _written(columns, safe)


def union(paths: Iterable[Path]) -> str:
    """Tables of one kind as one; a column that one of them lacks is empty in its rows."""
    columns: dict[str, None] = {}
    rows: list[dict[str, str]] = []
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns |= dict.fromkeys(reader.fieldnames or ())
            rows += reader
    return _written(list(columns), rows)


def _written(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
