"""What `injection` says on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from diag.compression.execution import print_calibration_plan
from diag.probes.injection.injecting import Injection
from diag.runs.terminal import size, stdout
from reports.formats import counted


def describe(injection: Injection) -> None:
    """--dry-run: the calibration, and what is injected where."""
    if injection.calibration is not None:
        print_calibration_plan(injection.calibration)
    settings, (windows, length) = injection.settings, injection.windows_WT.shape
    runs = len(injection.parts) * len(settings.designs) * len(settings.sizes)
    print(f"{injection.name}: injection, run folder {injection.folder.path}")
    print(
        f"{counted(len(injection.sites), 'site')}, {counted(len(injection.sources), 'residual')}, "
        f"{counted(len(settings.designs), 'design')}, {counted(len(settings.sizes), 'size')}: "
        f"{counted(runs, 'run')} over {counted(windows, 'window')} of {length} tokens, "
        f"{size(injection.held_bytes)} of weights and residuals; nothing was run"
    )


def show(injection: Injection) -> None:
    """The exponent of every error, alone and together with the others, site by site."""
    rows = injection.folder.rows("injection_contrasts")
    table = Table()
    table.add_column("injected into", no_wrap=True)
    table.add_column("error")
    for heading in ("rank correlation", "exponent alone", "R2", "exponent together"):
        table.add_column(heading, justify="right")
    for site in injection.sites:
        ours = [row for row in rows if (row["scope"], row["layer"], row["projection"]) == tuple(site.labels.values())]
        for row in (row for row in ours if row["statistic"] == "spearman"):
            same = {r["statistic"]: r for r in ours if r["error"] == row["error"] and r["design"] is None}
            cells = [_ranged(same.get(name)) for name in ("spearman", "exponent", "joint")]
            r2 = _number(same["exponent"]["r2"]) if "exponent" in same else ""
            table.add_row(site.name, str(row["error"]).replace("_", " "), cells[0], cells[1], r2, cells[2])
    print(
        f"{injection.name}: which error predicts the loss that drawn residuals add (95 % intervals); of compressed "
        "models attribution measures it"
    )
    stdout().print(table)


def _ranged(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "" if row is None else str(row["status"])
    if row["low"] is None or row["high"] is None:
        return f"{row['value']:.2f}"
    return f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
