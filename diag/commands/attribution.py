"""The command `attribution`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diag.cli.options import (
    CalibrationTextOption,
    CalibrationTokensOption,
    DeviceOption,
    DryRunOption,
    Dtype,
    DtypeOption,
    FreshOption,
    LayersOption,
    ModelOption,
    OutOption,
    ProjectionsOption,
    QuietOption,
    RevisionOption,
    SeedOption,
    WindowOption,
)
from diag.commands.running import (
    command_line,
    report_failures,
    saved_whatever_happens,
    table_paths,
    with_error,
    write_page,
)
from diag.declare.defaults import ALL_PROJECTIONS, CALIBRATION_TEXT, CALIBRATION_TOKENS, MEMORY

if TYPE_CHECKING:
    from diag.probes.attribution.plan import Plan


def attribution(
    model: ModelOption,
    ratio: Annotated[float, typer.Option("--ratio", help="fraction of the experts' parameters to remove")] = 0.4,
    projections: ProjectionsOption = ALL_PROJECTIONS,
    ladder: Annotated[str, typer.Option("--ladder", help="steps: full, or quick (the cheap ones)")] = "full",
    shapley: Annotated[
        str | None,
        typer.Option("--shapley", help="all, none, or how many orders to draw (default: all with the full ladder)"),
    ] = None,
    mobe_steps: Annotated[int, typer.Option("--mobe-steps", help="of the published training of MoBE")] = 3000,
    fit_steps: Annotated[
        int, typer.Option("--fit-steps", min=0, help="of MoBE's own fit; 0 for what its spec says, 600")
    ] = 0,
    text: Annotated[str, typer.Option("--text", help="held out: a built-in text or a UTF-8 file")] = "wikitext2",
    windows: Annotated[int, typer.Option("--windows", min=0, help="the first of the text; 0 for the whole")] = 64,
    window: WindowOption = None,
    layers: LayersOption = None,
    calibration_text: CalibrationTextOption = CALIBRATION_TEXT,
    calibration_tokens: CalibrationTokensOption = CALIBRATION_TOKENS,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceOption = "auto",
    memory: Annotated[
        str, typer.Option("--memory", help="weights held at once; experts of a larger model are read layer by layer")
    ] = MEMORY,
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Which change to TD-MoE closes how much of its gap to MoBE, at matched stored bits."""
    from diag.cli.console import print_lines
    from diag.cli.executing import execute_attribution
    from diag.compression.calibrating import Settings
    from diag.declare import parse
    from diag.probes.attribution import TABLES
    from diag.probes.attribution.plan import Plan, Request

    request = Request(
        model,
        ratio=ratio,
        projections=projections,
        ladder=ladder,
        shapley=shapley,
        mobe_steps=mobe_steps,
        fit_steps=fit_steps,
        text=text,
        windows=windows,
        window=window,
        layers=layers,
        calibration=Settings(calibration_text, calibration_tokens),
        dtype=dtype.value,
        memory=parse.size("memory", memory),
        device=device,
        out=out,
        seed=seed,
        fresh=fresh,
        revision=revision,
        command_line=command_line(),
    )
    with saved_whatever_happens() as saved, Plan(request) as plan:
        saved.path = plan.folder.path
        if dry_run:
            print_lines(plan.described())
            raise typer.Exit(0)
        execute_attribution(plan, quiet=quiet)
        page = write_page(plan.folder, TABLES)
    _print_table(plan)
    print_lines([*table_paths(plan.folder, TABLES), str(page)])
    report_failures(plan.folder.failures())


def _print_table(plan: Plan) -> None:
    """Every step with its loss, change and share of the gap, then the Shapley values."""
    from rich.table import Table

    from diag.cli.console import print_table
    from diag.probes.attribution import NAME, SHAPLEY

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
    print(f"{plan.name}: {windows} windows of {length} tokens; ± standard errors, 95 % intervals")
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
    from rich.table import Table

    from diag.cli.console import print_table
    from diag.probes.attribution import SHARES

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
