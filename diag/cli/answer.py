"""The answer of a finished run on stdout: at most five sentences, then the first of its views."""

from __future__ import annotations

from rich.table import Table

from diag import pages
from diag.runs.terminal import print_lines, print_table
from reports.run import Run
from reports.tables import Table as Tabulated


def show(run: Run) -> None:
    """Show the answer of any probe that declares claims and views; `run` is what a RunFolder's `data` gives."""
    said, table = pages.answer(run)
    print_lines([f"{run['model']}: {run['command']}", *said])
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
