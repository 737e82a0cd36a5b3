"""What a finished run says on stdout: its answer in at most five sentences, then the first of its views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from diag import pages
from diag.cli.console import print_lines, print_table
from diag.declare.column import Row
from diag.jobs.session import Session
from reports.tables import Table as Tabulated


def show(session: Session) -> None:
    """Of a probe of stacks."""
    tables = {table: session.folder.rows(table) for table in session.probe.TABLES}
    show_tables(session.probe.NAME, session.model.name, tables)


def show_tables(command: str, model: str, tables: Mapping[str, Sequence[Row]]) -> None:
    """Of any probe that declares claims and views."""
    said, table = pages.answer(command, tables)
    print_lines([f"{model}: {command}", *said])
    print_tabulated(table)


def print_tabulated(found: Tabulated) -> None:
    """A table as the page has it; an empty cell says why."""
    over = [group for group, span in found.groups for _ in range(span)] or [""] * len(found.headings)
    table = Table(title=found.caption, title_justify="left")
    for group, heading, words in zip(over, found.headings, found.wordy, strict=True):
        table.add_column(f"{group}\n{heading}".strip(), justify="left" if words else "right", overflow="fold")
    for line in found.lines:
        table.add_row(*(cell.note or cell.text for cell in line))
    print_table(table)
