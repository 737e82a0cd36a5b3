"""What `drift` says on stdout."""

from __future__ import annotations

from rich.table import Table

from diag.probes.drift.run import Drift
from diag.runs.terminal import print_table, with_error


def show(plan: Drift) -> None:
    """Every variant after its last compressed layer."""

    table = Table()
    for heading in ("method", "scope", "layers", "after", "angle, °", "norm ratio", "same experts", "router JS"):
        table.add_column(heading, justify="left" if heading in ("method", "scope", "layers") else "right", no_wrap=True)
    for row in plan.folder.rows("drift"):
        if row["after_last"]:
            ratio = "" if row["ratio"] is None else f" at {row['ratio']:g}"
            names = [f"{row['method']}{ratio}", row["scope"], row["compressed_layers"], str(row["layer"])]
            angle = with_error(row["angle_deg"], row["angle_stderr"], 3)
            columns = ("norm_ratio", "routing_agreement", "routing_js")
            table.add_row(*names, angle or str(row["status"]), *(_number(row[column]) for column in columns))
    print(f"{plan.name}: after the last compressed layer; mean over tokens, ± standard error over windows")
    print_table(table)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
