"""Output on stdout: tables, lines, sizes."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

MIN_WIDTH = 100  # of a table when stdout is a pipe


def print_lines(lines: Iterable[str]) -> None:
    """Plain lines on stdout, never wrapped."""
    for line in lines:
        print(line, flush=True)


def print_table(table: Table) -> None:
    """Print a table on stdout."""
    stdout().print(table)


def stdout() -> Console:
    """A console that writes plain text, wide enough for a table where nobody looks."""
    console = Console(highlight=False, markup=False)
    return (
        console if console.is_terminal else Console(highlight=False, markup=False, width=max(MIN_WIDTH, console.width))
    )


def size(count: float) -> str:
    """Bytes in the unit that suits them, as 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def with_error(value: float | None, stderr: float | None, places: int, sign: str = "") -> str:
    """A value with its standard error, for a terminal; empty where there is none."""
    if value is None:
        return ""
    return f"{value:{sign}.{places}f}" + ("" if stderr is None else f" ± {stderr:.{places}f}")
