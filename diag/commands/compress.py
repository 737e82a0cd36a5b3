"""The command `compress`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diag.cli.options import (
    DeviceOption,
    DryRunOption,
    Engine,
    EngineOption,
    FreshOption,
    LayersOption,
    MemoryOption,
    ModelOption,
    OutOption,
    PerExpert,
    PerExpertOption,
    ProjectionsOption,
    QuietOption,
    RevisionOption,
    SeedOption,
    Weighting,
    WeightingOption,
    WindowOption,
)
from diag.commands.running import command_line, report_failures, saved_whatever_happens
from diag.declare.defaults import ALL_PROJECTIONS, CALIBRATION_TEXT, CALIBRATION_TOKENS, MEMORY
from tdmoe.problems import InputError

RATIO = 0.4


def compress(
    model: ModelOption,
    to: Annotated[Path, typer.Option("--to", help="folder of the compressed checkpoint")],
    method: Annotated[
        str,
        typer.Option(
            "--method", help="NAME[:key=value,...], as mobe, rtn:bits=4, tdmoe:allocation=published,whitening=none"
        ),
    ] = "tdmoe",
    ratio: Annotated[
        float | None,
        typer.Option("--ratio", help="fraction of the parameters to remove (default: 0.4, or what the method fixes)"),
    ] = None,
    ratio_of: Annotated[
        str | None, typer.Option("--ratio-of", help="what --ratio counts: targeted, model (default: targeted)")
    ] = None,
    whitening: Annotated[
        str | None, typer.Option("--whitening", help="metric: none, input, output, both (default: input)")
    ] = None,
    whitening_direction: Annotated[
        str | None,
        typer.Option("--whitening-direction", help="correct, or inverse as in public code (default: correct)"),
    ] = None,
    allocation: Annotated[
        str | None,
        typer.Option(
            "--allocation", help="ranks: exact, published, published_every, published_stored (default: exact)"
        ),
    ] = None,
    expert_mode: Annotated[
        str | None, typer.Option("--expert-mode", help="auto, preserve, compress (default: auto)")
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective", help="error that exact ranks minimise: functional, weight, operator (default: functional)"
        ),
    ] = None,
    decomposition: Annotated[
        str | None,
        typer.Option("--decomposition", help="hooi, hosvd, st_hosvd, or tensorly to check them (default: hooi)"),
    ] = None,
    gate_up: Annotated[
        str | None,
        typer.Option("--gate-up", help="apart, or joint: as one stack that shares its input factor (default: apart)"),
    ] = None,
    refit: Annotated[
        str | None,
        typer.Option("--refit", help="none, or expert: the core again under each expert's own inputs (default: none)"),
    ] = None,
    across: Annotated[
        str | None,
        typer.Option("--across", help="budget of the stacks: uniform, global, activation (default: uniform)"),
    ] = None,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="write every stack's Pareto frontier of ranks, as --across global does")
    ] = False,
    errors: Annotated[
        str | None,
        typer.Option(
            "--errors",
            help="to measure of every stack: weight, functional, operator (default: all, but operator of matrices "
            "above 256 x 256 only where it adds little to the method's own time: not for tdmoe, rtn and controls)",
        ),
    ] = None,
    dense: Annotated[bool, typer.Option("--dense", help="write the rebuilt weights too, into TO/dense")] = False,
    statistics: Annotated[
        Path | None, typer.Option("--statistics", help="run folder of calibrate (default: calibrates by itself)")
    ] = None,
    text: Annotated[str, typer.Option("--text", help="to calibrate on: built-in text or a file")] = CALIBRATION_TEXT,
    tokens: Annotated[
        int, typer.Option("--tokens", min=0, help="to calibrate on; 0 for no calibration")
    ] = CALIBRATION_TOKENS,
    window: WindowOption = None,
    weighting: WeightingOption = Weighting.by_count,
    per_expert: PerExpertOption = PerExpert.none,
    layers: LayersOption = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="layers from the middle outwards: middle-out:N, middle-out-code:N")
    ] = None,
    projections: ProjectionsOption = ALL_PROJECTIONS,
    device: DeviceOption = "auto",
    memory: MemoryOption = MEMORY,
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    engine: EngineOption = Engine.inline,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """A smaller checkpoint that transformers loads and runs in factor form, after `import tdmoe.hub`."""
    from diag.cli import console, executing
    from diag.compression import calibrating
    from diag.compression.compress_run import Command, Compression, own_inputs
    from diag.compression.compressing import check_writable, error_kinds
    from diag.compression.rerun import Afresh
    from diag.declare import parse
    from tdmoe import methods, spec

    flags = {
        **{"ratio_of": ratio_of, "whitening": whitening, "whitening_direction": whitening_direction},
        **{"allocation": allocation, "expert_mode": expert_mode, "objective": objective},
        **{"decomposition": decomposition, "gate_up": gate_up, "refit": refit, "across": across},
    }
    chosen, options = methods.parse(method, flags)
    needs = chosen.needs(options)
    if not chosen.fixes_storage(options):
        ratio = RATIO if ratio is None else ratio
    elif chosen.shares_budget(options).of_model:
        raise InputError("ratio_of", "model", f"{method} stores what its options say", "give no --ratio-of")
    elif ratio is not None:
        raise InputError("ratio", ratio, f"{method} stores what its options say", "give no --ratio")
    asked = (text, tokens, window, weighting, per_expert)
    if statistics is not None and asked != (
        CALIBRATION_TEXT,
        CALIBRATION_TOKENS,
        None,
        Weighting.by_count,
        PerExpert.none,
    ):
        raise InputError(
            "statistics",
            statistics,
            "were collected already",
            "leave out --text, --tokens, --window, --weighting and --per-expert, or give these without --statistics",
        )
    own = own_inputs(method, needs, projections, per_expert.value)
    collected = calibrating.Settings(text, tokens, window, weighting.value, own, needs.outputs)
    with saved_whatever_happens() as saved:
        if schedule is not None:
            layers = _scheduled(model, revision, schedule, layers)
        command = Command(
            model,
            spec.text(chosen.NAME, options),
            ratio,
            to,
            parse.size("memory", memory),
            frontier,
            statistics,
            collected if tokens and statistics is None else None,
            {"layers": layers, "projections": projections, "device": device, "out": out, "revision": revision},
            {
                **{"seed": seed, "engine": engine.value, "fresh": fresh},
                "command_line": command_line(),
            },
            error_kinds("errors", errors),
        )
        with Compression(command) as compression:
            saved.path = compression.session.folder.path
            if dry_run:
                console.print_compression_plan(compression)
                raise typer.Exit(0)
            check_writable(to)
            failed = executing.execute_compression(compression, Afresh(fresh), quiet=quiet)
            session = compression.session
            saved.path = session.folder.path
            bits = None if failed else executing.finish_compression(session, dense=dense, quiet=quiet)
    console.print_compression(session, bits)
    console.print_sensitivities(compression.layer_sensitivities)
    runs = (compression.frontiers, compression.sensitivity, session)
    tables = [path for run in runs if run for path in sorted((run.folder.path / "tables").glob("*.csv"))]
    console.print_lines([*map(str, tables), *([] if failed else [str(to)])])
    report_failures(failed)


def _scheduled(model: str, revision: str | None, schedule: str, layers: str | None) -> str:
    """The layers that a schedule means for this model."""
    from diag.declare import parse
    from diag.models.model import resolve
    from tdmoe.checkpoint.reader import Checkpoint
    from tdmoe.stacks.architecture import architecture

    if layers is not None:
        raise InputError("schedule", schedule, "chooses the layers", "give it or --layers, not both")
    with Checkpoint(resolve(model, revision).files()) as checkpoint:
        return parse.schedule(schedule, architecture(checkpoint.config).layers)
