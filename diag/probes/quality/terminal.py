"""What `quality` says on stdout."""

from __future__ import annotations

from rich.table import Table

from diag.probes.quality.plan import Plan
from diag.runs.terminal import print_table, with_error


def show(plan: Plan) -> None:
    """Perplexity or accuracy of every model, and its difference to the dense one."""
    from diag.probes.quality.measure import PERPLEXITY

    table = Table()
    for heading in ("model", "layers", "bits saved", "data set", "value", "difference to dense"):
        table.add_column(heading, justify="left" if heading in ("model", "layers", "data set") else "right")
    for row in plan.folder.rows("quality"):
        text = row["metric"] == PERPLEXITY
        column = "loss_difference_nats" if text else "accuracy_difference"
        ratio = "" if row["ratio"] is None else f" at {row['ratio']:g}"
        table.add_row(
            f"{row['method']}{ratio}",
            row["compressed_layers"],
            f"{row['bits_saved']:.1%}",
            row["dataset"],
            with_error(row["value"], row["stderr"], 2 if text else 3) or str(row["status"]),
            with_error(row[column], row[f"{column}_stderr"], 4, sign="+"),
        )
    print(f"{plan.name}: perplexity (difference in nats a token) and accuracy, ± standard errors")
    print_table(table)
