"""What `operator` says on stdout."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from diag.jobs.session import Session
from diag.runs.results import Row
from diag.runs.terminal import stdout


def show(session: Session) -> None:
    """What each method leaves at each storage, as means over stacks: operator and weight error, and the optimum."""
    table = Table()
    table.add_column("method / kept", overflow="fold")
    for heading in ("weight error", "operator error", "over the SVD's", "stacks"):
        table.add_column(heading, justify="right")
    found: dict[tuple[str, str], list[Row]] = {}
    for row in session.folder.rows("operator"):
        if row["expert"] == "mean" and (row["ratio"] is not None or not _of_a_grid(row["method"])):
            asked = "" if row["ratio"] is None else f" at {row['ratio']:g}"
            found.setdefault((row["method"], asked), []).append(row)
    for (method, asked), rows in found.items():
        cells = [_mean(rows, column) for column in ("weight_error", "operator_error", "operator_over_svd")]
        table.add_row(method + asked, *cells, str(len(rows)))
    print(f"{session.model.name}: errors relative to the dense norms, means over stacks")
    stdout().print(table)


def _of_a_grid(method: str) -> bool:
    """Whether rows of `operator` without a ratio are of its grid of ranks."""
    return method == "svd" or method.startswith(("truncate:", "tdmoe"))


def _mean(rows: Sequence[Row], column: str) -> str:
    values = [row[column] for row in rows if row[column] is not None]
    return f"{sum(values) / len(values):.3f}" if values else ""
