"""The command line `tdmoe-diag`. No mathematics here: options in, exit code out.

Exit codes: 0 all done; 1 some jobs failed (the rest is saved); 2 bad usage or bad input (nothing was run); 130
interrupted. Tables go to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tdmoe import __version__
from tdmoe.problems import InputError

if TYPE_CHECKING:
    from diag.probes import Settings
    from diag.session import Session

RATIO = 0.4

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Why tensor decomposition of a Mixture-of-Experts LLM fails on your checkpoint, measured.",
)


class Engine(StrEnum):
    """Where jobs run."""

    inline = "inline"
    ray = "ray"


class Weighting(StrEnum):
    """What a routed token counts for."""

    by_count = "count"
    by_gate = "gate_squared"


class PerExpert(StrEnum):
    """Of which inputs every expert has a matrix of its own."""

    none = "none"
    down = "down"
    all = "all"


ModelOption = Annotated[
    str, typer.Option("--model", help="mini (built in), a checkpoint folder, a hub id, or a name that `models` lists")
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="branch, tag or commit on the hub")]
RemoteOption = Annotated[
    bool, typer.Option("--remote", help="read byte ranges of tensors straight from the hub, store nothing")
]
LayersOption = Annotated[str | None, typer.Option("--layers", help="MoE layers, as 0,12,24-30 (default: all)")]
ProjectionsOption = Annotated[str, typer.Option("--projections", help="any of gate,up,down")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1")]
MemoryOption = Annotated[
    str, typer.Option("--memory", help="weights held in memory at once; a smaller stack is read once")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="run folder (default: runs/MODEL-COMMAND-FINGERPRINT)")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="of every random draw")]
EngineOption = Annotated[Engine, typer.Option("--engine", help="where jobs run: one by one in this process, or on Ray")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="print jobs, bytes to read and peak memory, do nothing")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="discard this run's earlier results")]
WindowOption = Annotated[
    int | None, typer.Option("--window", help="tokens the model sees at once (default: 2048, or its positions)")
]
WeightingOption = Annotated[
    Weighting, typer.Option("--weighting", help="of a routed token: 1, or its routing weight squared")
]
PerExpertOption = Annotated[
    PerExpert, typer.Option("--per-expert", help="a matrix for every expert's own inputs: of down, or of all three")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="no progress on stderr")]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tdmoe-diag {__version__}")
        raise typer.Exit


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Why tensor decomposition of a Mixture-of-Experts LLM fails on your checkpoint, measured."""


@app.command()
def spectra(
    model: ModelOption,
    layers: LayersOption = None,
    projections: ProjectionsOption = "gate,up,down",
    fit_range: Annotated[
        str, typer.Option("--fit-range", help="fraction of the indices to fit, above the noise floor")
    ] = "0:1",
    jackknife: Annotated[
        int, typer.Option("--jackknife", min=0, help="groups of experts to leave out in turn; 0 for none")
    ] = 0,
    device: DeviceOption = "auto",
    memory: MemoryOption = "4GB",
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    remote: RemoteOption = False,
    engine: EngineOption = Engine.inline,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Power-law exponents of the three mode unfoldings (expert, output, input) of every expert stack."""
    from diag import parse
    from diag.console import print_exponents
    from diag.probes.spectra import Settings

    settings = Settings(
        fit_range=parse.fraction_range("--fit-range", fit_range),
        jackknife=jackknife,
        memory=parse.size("--memory", memory),
    )
    options = {"layers": layers, "projections": projections, "device": device, "out": out, "seed": seed, "fresh": fresh}
    options |= {"engine": engine.value, "revision": revision, "remote": remote}
    _run_probe("spectra", model, settings, options, print_exponents, dry_run=dry_run, quiet=quiet)


def _run_probe(
    command: str,
    model: str,
    settings: Settings,
    options: dict[str, Any],
    show: Callable[[Session], None],
    *,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Check, run, `show` the result on stdout, write figures and page; raises the exit code."""
    from diag import console
    from diag.session import Request, Session

    request = Request(command, model, settings, command_line=" ".join(["tdmoe-diag", *sys.argv[1:]]), **options)
    with _saved_whatever_happens() as saved, Session(request) as session:
        saved.path = session.folder.path
        if dry_run:
            console.print_plan(session)
            raise typer.Exit(0)
        notes = session.notes() + session.folder.open(fresh=request.fresh)
        console.execute(session, notes, quiet=quiet)
        page = _write_page(session)
    with console.output_may_close():
        show(session)
        console.print_lines([str(session.folder.path / "tables" / f"{command}.csv"), str(page)])
    _report_failures(session.folder.failures())


def _report_failures(failed: list[tuple[str, str]]) -> NoReturn:
    """Name what failed, and exit with 1 if anything did."""
    from diag import console

    with console.output_may_close():
        for key, message in failed:
            typer.echo(f"failed: {key}: {message}", err=True)
    raise typer.Exit(1 if failed else 0)


class _Saved:
    """Where what is finished lies, for the message when a run ends early."""

    path: Path | None = None


@contextmanager
def _saved_whatever_happens() -> Iterator[_Saved]:
    """Ctrl-C and a run folder that cannot be written end a run with what is finished saved; raises the exit code."""
    saved = _Saved()
    try:
        yield saved
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on where this one stopped", err=True)
        raise typer.Exit(130) from None
    except OSError as error:  # of the run folder: everything else is caught where it is read
        reason = f"{error.filename or saved.path}: {error.strerror or error}"
        typer.echo(f"tdmoe-diag: {reason}; finished jobs are saved, the same command goes on from there", err=True)
        raise typer.Exit(1) from error


def _write_page(session: Session) -> Path:
    """Figures and the self-contained page, from the finished run."""
    from diag.files import write_text
    from reports.figures import figures_for
    from reports.page import render
    from tdmoe.atomic import write_bytes

    run = session.report_input()
    figures = figures_for(run)
    for figure in figures:
        write_bytes(session.folder.path / "figures" / f"{figure.name}.svg", figure.svg)
    session.folder.remove_figures_but({f"{figure.name}.svg" for figure in figures})
    page = session.folder.path / "report.html"
    write_text(page, render(run, figures))
    return page


@app.command()
def calibrate(
    model: ModelOption,
    text: Annotated[str, typer.Option("--text", help="built-in text or a UTF-8 file")] = "c4-calibration",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="of the text, in whole windows")] = 262_144,
    window: WindowOption = None,
    weighting: WeightingOption = Weighting.by_count,
    per_expert: PerExpertOption = PerExpert.none,
    outputs: Annotated[
        bool, typer.Option("--outputs", help="the loss' gradients at the outputs too, for whitening=output or both")
    ] = False,
    layers: LayersOption = None,
    device: DeviceOption = "auto",
    out: OutOption = None,
    revision: RevisionOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Second moments of what the experts are given, from routed tokens: the metric of activation-aware compression."""
    from diag import console
    from diag.calibrating import Calibration, Request, Settings

    settings = Settings(text, tokens, window, weighting.value, per_expert.value, outputs)
    line = " ".join(["tdmoe-diag", *sys.argv[1:]])
    request = Request(model, settings, layers, device, out, fresh, revision, line)
    with _saved_whatever_happens() as saved, Calibration(request) as calibration:
        saved.path = calibration.folder.path
        if dry_run:
            console.print_calibration_plan(calibration)
            raise typer.Exit(0)
        notes = calibration.notes() + calibration.folder.open(fresh=fresh)
        console.execute_calibration(calibration, notes, quiet=quiet)
    with console.output_may_close():
        console.print_calibration(calibration)
        console.print_lines([str(calibration.folder.path)])


@app.command()
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
        str | None, typer.Option("--allocation", help="ranks: exact, published, published_every (default: exact)")
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
        str | None, typer.Option("--decomposition", help="hooi, hosvd, st_hosvd (default: hooi)")
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
    dense: Annotated[bool, typer.Option("--dense", help="write the rebuilt weights too, into TO/dense")] = False,
    statistics: Annotated[
        Path | None, typer.Option("--statistics", help="run folder of calibrate (default: calibrates by itself)")
    ] = None,
    text: Annotated[str, typer.Option("--text", help="to calibrate on: built-in text or a file")] = "c4-calibration",
    tokens: Annotated[int, typer.Option("--tokens", min=0, help="to calibrate on; 0 for no calibration")] = 262_144,
    window: WindowOption = None,
    weighting: WeightingOption = Weighting.by_count,
    per_expert: PerExpertOption = PerExpert.none,
    layers: LayersOption = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="layers from the middle outwards: middle-out:N, middle-out-code:N")
    ] = None,
    projections: ProjectionsOption = "gate,up,down",
    device: DeviceOption = "auto",
    memory: MemoryOption = "4GB",
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    engine: EngineOption = Engine.inline,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """A smaller checkpoint that transformers loads and runs in factor form, after `import tdmoe.hub`."""
    from diag import calibrating, compressing, console, parse
    from diag.compress_run import Command, Compression
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
    elif getattr(options, "ratio_of", "targeted") != "targeted":
        raise InputError(f"--ratio-of model: {method} stores what its options say; give no --ratio-of")
    elif ratio is not None:
        raise InputError(f"--ratio {ratio}: {method} stores what its options say; give no --ratio")
    asked = (text, tokens, window, weighting, per_expert)
    if statistics is not None and asked != ("c4-calibration", 262_144, None, Weighting.by_count, PerExpert.none):
        raise InputError(
            f"--statistics {statistics}: were collected already; leave out --text, --tokens, --window, --weighting and "
            "--per-expert, or give these without --statistics"
        )
    inputs = {"gate", "up"} & set(projections.split(","))
    if needs.own and per_expert is PerExpert.none:
        per_expert = PerExpert.all if inputs else PerExpert.down
    if needs.own and inputs and per_expert is PerExpert.down:
        raise InputError(f"--per-expert down: {method} needs gate's and up's too; give all, or --projections down")
    collected = calibrating.Settings(text, tokens, window, weighting.value, per_expert.value, needs.outputs)
    with _saved_whatever_happens() as saved:
        if schedule is not None:
            layers = _scheduled(model, revision, schedule, layers)
        command = Command(
            model,
            spec.text(chosen.NAME, options),
            options,
            ratio,
            to,
            parse.size("--memory", memory),
            frontier,
            statistics,
            collected if tokens and statistics is None else None,
            {"layers": layers, "projections": projections, "device": device, "out": out, "revision": revision},
            {
                **{"seed": seed, "engine": engine.value, "fresh": fresh},
                "command_line": " ".join(["tdmoe-diag", *sys.argv[1:]]),
            },
        )
        with Compression(command) as compression:
            saved.path = compression.session.folder.path
            if dry_run:
                console.print_compression_plan(compression)
                raise typer.Exit(0)
            failed = console.execute_before_compression(compression, quiet=quiet)
            if failed:
                _report_failures(failed)
            compression.settle()
            session = compression.session
            saved.path = session.folder.path
            notes = session.notes() + session.folder.open(fresh=fresh)
            compressing.begin(session)
            console.execute(session, notes, quiet=quiet)
            failed = session.folder.failures()
            bits = None if failed else console.finish_compression(session, dense=dense, quiet=quiet)
    with console.output_may_close():
        console.print_compression(session, bits)
        console.print_sensitivities(compression.layer_sensitivities)
        runs = (compression.frontiers, compression.sensitivity, session)
        tables = [path for run in runs if run for path in sorted((run.folder.path / "tables").glob("*.csv"))]
        console.print_lines([*map(str, tables), *([] if failed else [str(to)])])
    _report_failures(failed)


def _scheduled(model: str, revision: str | None, schedule: str, layers: str | None) -> str:
    """The layers that a schedule means for this model."""
    from diag import parse
    from diag.models import resolve
    from tdmoe.architecture import architecture
    from tdmoe.checkpoint import Checkpoint

    if layers is not None:
        raise InputError(f"--schedule {schedule}: chooses the layers; give it or --layers, not both")
    with Checkpoint(resolve(model, revision).files()) as checkpoint:
        return parse.schedule(schedule, architecture(checkpoint.config).layers)


@app.command()
def models(
    model: Annotated[
        str | None, typer.Option("--model", help="tell of this one: a name, a folder or a hub id (default: list all)")
    ] = None,
    revision: RevisionOption = None,
) -> None:
    """What --model accepts: families and names; or what one checkpoint holds, and whether it can be measured."""
    from diag import console

    if model is None:
        if revision is not None:
            raise InputError(f"--revision {revision}: give --model too")
        with console.output_may_close():
            console.print_families()
        raise typer.Exit(0)
    from diag.describe import describe
    from diag.models import resolve
    from tdmoe.checkpoint import Checkpoint

    found = resolve(model, revision)
    with Checkpoint(found.files()) as checkpoint:
        description = describe(checkpoint)
    with console.output_may_close():
        console.print_description(found.name, description)
    raise typer.Exit(2 if description.refusal else 0)


def main() -> None:
    """Entry point; a user's mistake ends with one message and exit code 2, never a traceback."""
    try:
        app()
    except InputError as error:
        typer.echo(f"tdmoe-diag: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
