"""The command `attribution`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diag.commands.running import command_line, report_failures, saved_whatever_happens, table_paths, write_page
from diag.options import (
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from diag.factors import Factors, Recipe, Source
    from diag.probes.attribution.plan import Plan


def attribution(
    model: ModelOption,
    ratio: Annotated[float, typer.Option("--ratio", help="fraction of the experts' parameters to remove")] = 0.4,
    projections: ProjectionsOption = "gate,up",
    ladder: Annotated[str, typer.Option("--ladder", help="steps: full, or quick (the cheap ones)")] = "full",
    shapley: Annotated[
        str | None,
        typer.Option("--shapley", help="all, none, or how many orders to draw (default: all with the full ladder)"),
    ] = None,
    mobe_steps: Annotated[int, typer.Option("--mobe-steps", help="of the published training of MoBE")] = 3000,
    text: Annotated[str, typer.Option("--text", help="held out: a built-in text or a UTF-8 file")] = "wikitext2",
    windows: Annotated[int, typer.Option("--windows", min=0, help="the first of the text; 0 for the whole")] = 64,
    window: WindowOption = None,
    layers: LayersOption = None,
    calibration_text: CalibrationTextOption = "c4-calibration",
    calibration_tokens: CalibrationTokensOption = 65_536,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceOption = "auto",
    memory: Annotated[
        str, typer.Option("--memory", help="weights held at once; experts of a larger model are read layer by layer")
    ] = "4GB",
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Which change to TD-MoE closes how much of its gap to MoBE, at equal stored bits."""
    from diag import parse
    from diag.calibrating import Settings
    from diag.probes.attribution import TABLES
    from diag.probes.attribution.plan import Plan, Request

    request = Request(
        model,
        ratio=ratio,
        projections=projections,
        ladder=ladder,
        shapley=shapley,
        mobe_steps=mobe_steps,
        text=text,
        windows=windows,
        window=window,
        layers=layers,
        calibration=Settings(calibration_text, calibration_tokens),
        dtype=dtype.value,
        memory=parse.size("--memory", memory),
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
            _print_plan(plan)
            raise typer.Exit(0)
        _execute(plan, plan.folder.open(fresh=fresh), quiet=quiet)
        page = write_page(plan.folder, TABLES)
    from diag.console import output_may_close, print_lines

    with output_may_close():
        _print_table(plan)
        print_lines([*table_paths(plan.folder, TABLES), str(page)])
    report_failures(plan.folder.failures())


def _print_plan(plan: Plan) -> None:
    """--dry-run: steps, specs and bits, and what Shapley values take."""
    from rich.table import Table

    from diag.console import print_lines, print_table

    table = Table()
    for heading in ("ladder", "step", "method", "projections", "bits saved"):
        table.add_column(heading, justify="right" if heading == "bits saved" else "left")
    for step in plan.steps:
        recipe = step.recipe
        bits = "" if recipe is None else "its own" if recipe.ratio is None else f"{plan.bits_removed:.1%}"
        table.add_row(step.ladder, step.phrase, "dense" if recipe is None else recipe.method, step.projections, bits)
    print(f"{plan.name}: attribution, run folder {plan.folder.path}")
    print_table(table)
    windows, length = plan.windows_WT.shape
    game = "no Shapley values"
    if plan.game is not None:
        game = f"{len(plan.game.coalitions)} coalitions of {len(plan.game.switches)} switches"
    lines = [
        f"{len(plan.parts)} models with {game}; {windows} windows of {length} tokens of {Path(plan.request.text).name}"
    ]
    print_lines([*lines, "nothing was run"])


def _execute(plan: Plan, notes: Iterable[str], *, quiet: bool) -> None:
    """Under a bar of layers of windows, which all models share; factors have bars of their own."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from diag.console import make_factors
    from diag.probes.attribution.run import Run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, quiet=quiet, highlight=False)
    for note in [*notes, *plan.notes()]:
        console.print(note, markup=False)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"{plan.name} attribution", total=len(plan.windows_WT) * plan.arch.depth)

        def make(recipes: Sequence[Recipe], source: Source) -> list[Factors]:
            bar.stop()
            made = make_factors(recipes, source, quiet=quiet)
            bar.start()
            return made

        Run(plan, make, lambda count: bar.advance(task, count)).execute()


def _print_table(plan: Plan) -> None:
    """Every step with its loss, change and share of the gap, then the Shapley values."""
    from rich.table import Table

    from diag.console import print_table
    from diag.probes.attribution import NAME, SHAPLEY

    table = Table()
    for heading in ("step", "bits saved", "loss, nats", "change, nats", "gap closed"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for row in plan.folder.rows(NAME):
        table.add_row(
            row["step"],
            "" if row["bits_saved"] is None else f"{row['bits_saved']:.1%}",
            _with_error(row, "loss_nats") or str(row["status"]),
            _with_error(row, "change_nats", "+"),
            _ranged(row, "gap_closed", "gap_low", "gap_high") or str(row["status"]),
        )
    windows, length = plan.windows_WT.shape
    print(f"{plan.name}: {windows} windows of {length} tokens; ± standard errors, 95 % intervals")
    print_table(table)
    if values := plan.folder.rows(SHAPLEY):
        table = Table()
        for heading in ("switch", "nats removed", "of the gap", "alone", "last"):
            table.add_column(heading, justify="left" if heading == "switch" else "right")
        for row in values:
            nats = "" if row["nats"] is None else f"{row['nats']:.4f} ({row['nats_low']:.4f} to {row['nats_high']:.4f})"
            share = _ranged(row, "gap_share", "gap_share_low", "gap_share_high") or str(row["status"])
            alone, last = ("" if row[n] is None else f"{row[n]:.4f}" for n in ("alone_nats", "last_nats"))
            table.add_row(row["text"], nats, share, alone, last)
        print(f"{plan.name}: Shapley values over {values[0]['orders']} orders")
        print_table(table)


def _with_error(row: dict[str, Any], column: str, sign: str = "") -> str:
    if row[column] is None:
        return ""
    stderr = row[f"{column}_stderr"]
    return f"{row[column]:{sign}.4f}" + ("" if stderr is None else f" ± {stderr:.4f}")


def _ranged(row: dict[str, Any], value: str, low: str, high: str) -> str:
    if row[value] is None:
        return ""
    bounds = "" if row[low] is None else f" ({row[low]:.1%} to {row[high]:.1%})"
    return f"{row[value]:.1%}{bounds}"
