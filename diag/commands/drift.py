"""The command `drift`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from diag.probes.drift.run import Drift

METHODS = "tdmoe,svd_llm"


def drift(
    model: ModelOption,
    text: Annotated[str, typer.Option("--text", help="held out: a built-in text or a UTF-8 file")] = "wikitext2",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="of the text, in whole windows")] = 16_384,
    window: WindowOption = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help=f"specs, comma-separated, as tdmoe,mobe,rtn:bits=4 (default: {METHODS}, or none with --compressed)",
        ),
    ] = None,
    ratios: Annotated[str, typer.Option("--ratios", help="fractions of the parameters to remove")] = "0.4",
    projections: ProjectionsOption = ALL_PROJECTIONS,
    layers: LayersOption = None,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", help="all nested layer sets from the middle outwards: middle-out:N, or -code:N"),
    ] = None,
    scope: Annotated[
        str, typer.Option("--scope", help="one layer at a time (one), all together (all), or both")
    ] = "one,all",
    compressed: Annotated[
        str, typer.Option("--compressed", help="folders of compressed checkpoints, comma-separated")
    ] = "",
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
    """How far compressed models' residual streams and routing are from the dense model's, layer by layer."""
    from diag.cli.console import print_lines
    from diag.cli.executing import execute_drift
    from diag.compression.calibrating import Settings
    from diag.compression.factors import recipes
    from diag.declare import parse
    from diag.probes.drift import SCOPES, TABLES
    from diag.probes.drift.run import Drift, Request

    folders = list(dict.fromkeys(part.strip() for part in compressed.split(",") if part.strip()))
    if methods is None:
        methods = "" if folders else METHODS
    request = Request(
        model,
        text=text,
        tokens=tokens,
        window=window,
        recipes=recipes(methods, ratios) if methods.strip() else [],
        scopes=parse.choices("scope", scope, SCOPES),
        layers=layers,
        schedule=schedule,
        projections=projections,
        compressed=[Path(folder) for folder in folders],
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
    with saved_whatever_happens() as saved, Drift(request) as plan:
        saved.path = plan.folder.path
        if dry_run:
            print_lines(plan.described())
            raise typer.Exit(0)
        execute_drift(plan, quiet=quiet)
        page = write_page(plan.folder, TABLES)
    _print_table(plan)
    print_lines([*table_paths(plan.folder, TABLES), str(page)])
    report_failures(plan.folder.failures())


def _print_table(plan: Drift) -> None:
    """Every variant after its last compressed layer."""
    from rich.table import Table

    from diag.cli.console import print_table

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
