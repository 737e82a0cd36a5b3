"""What `attribution` says on stdout."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from diag.probes.attribution.plan import Plan
from diag.runs.terminal import print_table, with_error
from reports.formats import counted


def show(plan: Plan) -> None:
    """Every step with its loss, change and share of the gap, then the Shapley values."""
    from diag.probes.attribution.columns import NAME, SHAPLEY

    table = Table()
    for heading in ("step", "bits saved", "loss, nats", "change, nats", "gap closed"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for row in plan.folder.rows(NAME):
        table.add_row(
            row["step"],
            "" if row["bits_saved"] is None else f"{row['bits_saved']:.1%}",
            with_error(row["loss_nats"], row["loss_nats_stderr"], 4) or str(row["status"]),
            with_error(row["change_nats"], row["change_nats_stderr"], 4, "+"),
            _ranged(row, "gap_closed", "gap_low", "gap_high") or str(row["status"]),
        )
    windows, length = plan.windows_WT.shape
    print(f"{plan.name}: {counted(windows, 'window')} of {length} tokens; ± standard errors, 95 % intervals")
    print_table(table)
    _print_shares(plan)
    if values := plan.folder.rows(SHAPLEY):
        table = Table()
        for heading in ("switch", "nats removed", "of the gap", "alone", "last"):
            table.add_column(heading, justify="left" if heading == "switch" else "right")
        for row in values:
            nats = _ranged(row, "nats", "nats_low", "nats_high", ".4f")
            share = _ranged(row, "gap_share", "gap_share_low", "gap_share_high") or str(row["status"])
            alone, last = ("" if row[n] is None else f"{row[n]:.4f}" for n in ("alone_nats", "last_nats"))
            table.add_row(row["text"], nats, share, alone, last)
        print(f"{plan.name}: Shapley values over {values[0]['orders']} orders")
        print_table(table)


def _print_shares(plan: Plan) -> None:
    """How much of the gap is how TD-MoE was run, against MoBE with the same changes and as it is."""
    from diag.probes.attribution.columns import SHARES

    rows = plan.folder.rows(SHARES)
    if not rows:
        return
    table = Table()
    for heading in ("against", "of the gap", "left, nats"):
        table.add_column(heading, justify="left" if heading == "against" else "right")
    for row in rows:
        given, lacking = (str(row[name]).replace(",", " and ") for name in ("given", "not_given"))
        name = f"MoBE with the same {given}" if given else "MoBE as it is"
        closed = _ranged(row, "gap_closed", "gap_low", "gap_high") or str(row["status"])
        left = _ranged(row, "left_nats", "left_low", "left_high", ".4f")
        table.add_row(f"{name}, without the {lacking}" if lacking else name, closed, left)
    print(
        f"{plan.name}: how much is how TD-MoE was run, with “{rows[0]['step']}”, chosen on one half of the windows and "
        "told on the other"
    )
    print_table(table)


def _ranged(row: dict[str, Any], value: str, low: str, high: str, form: str = ".1%") -> str:
    if row[value] is None:
        return ""
    bounds = "" if row[low] is None else f" ({row[low]:{form}} to {row[high]:{form}})"
    return f"{row[value]:{form}}{bounds}"
