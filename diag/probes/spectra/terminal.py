"""What `spectra` says on stdout."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from diag.jobs.session import Session
from diag.runs.terminal import stdout
from tdmoe.numerics.gram import MODES
from tdmoe.stacks.families import PROJECTIONS


def show(session: Session) -> None:
    """The layout of Rethinking's Table 1: one line per layer and projection, alpha (null) per mode."""
    rows = {(r["layer"], r["projection"], r["mode"]): r for r in session.folder.rows("spectra")}
    paper = any(row["alpha_paper"] is not None for row in rows.values())
    table = Table()
    table.add_column("layer / projection")
    for mode in MODES:
        table.add_column(mode, justify="right")
    for job in sorted(session.stacks, key=lambda j: (j.layer, PROJECTIONS.index(j.projection))):
        cells = [_cell(rows.get((job.layer, job.projection, mode))) for mode in MODES]
        table.add_row(f"{job.layer} / {job.projection}", *cells)
    print(f"{session.model.name}: alpha of sigma_i ~ i^-alpha ({_legend(paper)})")
    stdout().print(table)


def _legend(paper: bool) -> str:
    null = "in brackets the same fit on Gaussian weights of that shape"
    return f"{null}; after it the paper's value" if paper else null


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "failed"
    if row["alpha"] is None:
        return str(row["status"])
    value = f"{row['alpha']:.3f} ({row['alpha_null']:.3f})"
    return value if row["alpha_paper"] is None else f"{value} {row['alpha_paper']:.3f}"
