"""The command `quality`."""

from __future__ import annotations

from enum import StrEnum
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
    MemoryOption,
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
    from diag.probes.quality.plan import Plan


class Join(StrEnum):
    """How a text's lines are put together."""

    as_is = "as-is"
    blank_lines = "blank-lines"


class Bos(StrEnum):
    """Where a beginning-of-sequence token goes."""

    none = "none"
    text = "text"
    window = "window"


def quality(
    model: ModelOption,
    texts: Annotated[
        str, typer.Option("--texts", help="for perplexity: built-in texts or files, comma-separated; empty for none")
    ] = "wikitext2",
    windows: Annotated[int, typer.Option("--windows", min=0, help="the first of each text; 0 for the whole")] = 64,
    window: WindowOption = None,
    stride: Annotated[
        int | None, typer.Option("--stride", help="tokens from window to window (default: no overlap)")
    ] = None,
    join: Annotated[
        Join, typer.Option("--join", help="the text as it is, or its lines joined by blank lines as papers do")
    ] = Join.as_is,
    bos: Annotated[
        Bos, typer.Option("--bos", help="a beginning-of-sequence token before the text, or at every window's head")
    ] = Bos.none,
    tasks: Annotated[
        str | None,
        typer.Option(
            "--tasks",
            help="zero-shot, of lm-eval, as arc_challenge,hellaswag,openbookqa,piqa,winogrande "
            "(default: these with --task-data, otherwise none)",
        ),
    ] = None,
    task_data: Annotated[
        Path | None, typer.Option("--task-data", help="folder of TASK_val.jsonl.gz files (default: from the hub)")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="documents of a task (default: all)")] = None,
    methods: Annotated[
        str, typer.Option("--methods", help="specs, comma-separated, as tdmoe,mobe,rtn:bits=4 (default: none)")
    ] = "",
    ratios: Annotated[str, typer.Option("--ratios", help="fractions of the parameters to remove")] = "0.4",
    projections: ProjectionsOption = ALL_PROJECTIONS,
    layers: LayersOption = None,
    schedule: Annotated[
        str | None,
        typer.Option("--schedule", help="all nested layer sets from the middle outwards: middle-out:N, or -code:N"),
    ] = None,
    compressed: Annotated[
        str, typer.Option("--compressed", help="folders of compressed checkpoints, comma-separated")
    ] = "",
    calibration_text: CalibrationTextOption = CALIBRATION_TEXT,
    calibration_tokens: CalibrationTokensOption = CALIBRATION_TOKENS,
    dtype: DtypeOption = Dtype.auto,
    device: DeviceOption = "auto",
    memory: MemoryOption = MEMORY,
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Perplexity and zero-shot accuracy of the dense model and of compressed ones, with paired differences."""
    from diag.cli.console import print_lines
    from diag.cli.executing import execute_quality
    from diag.compression.calibrating import Settings
    from diag.compression.factors import recipes
    from diag.declare import parse
    from diag.probes.quality import TABLES
    from diag.probes.quality.plan import Plan, Request
    from diag.probes.quality.zero_shot import DEFAULT

    if tasks is None:
        tasks = "" if task_data is None else ",".join(DEFAULT)
    request = Request(
        model,
        texts=_parts(texts),
        windows=windows,
        window=window,
        stride=stride,
        join=join.value,
        bos=bos.value,
        tasks=_parts(tasks),
        task_data=task_data,
        limit=limit,
        recipes=recipes(methods, ratios) if methods.strip() else [],
        layers=layers,
        schedule=schedule,
        projections=projections,
        compressed=[Path(part) for part in _parts(compressed)],
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
        execute_quality(plan, quiet=quiet)
        page = write_page(plan.folder, TABLES)
    _print_table(plan)
    print_lines([*table_paths(plan.folder, TABLES), str(page)])
    report_failures(plan.folder.failures())


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _print_table(plan: Plan) -> None:
    """Perplexity or accuracy of every model, and its difference to the dense one."""
    from rich.table import Table

    from diag.cli.console import print_table
    from diag.probes.quality import PERPLEXITY

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
