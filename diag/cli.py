"""The command line `tdmoe-diag`. No mathematics here: options in, exit code out.

Exit codes: 0 all done; 1 some jobs failed (the rest is saved); 2 bad usage or bad input (nothing was run); 130
interrupted. Tables go to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tdmoe import __version__
from tdmoe.problems import InputError

if TYPE_CHECKING:
    from diag.probes import Settings
    from diag.session import Session

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


ModelOption = Annotated[
    str, typer.Option("--model", help="mini (built in), a checkpoint folder, a hub id, or a name that `models` lists")
]
RevisionOption = Annotated[str | None, typer.Option("--revision", help="branch, tag or commit on the hub")]
RemoteOption = Annotated[
    bool, typer.Option("--remote", help="read byte ranges of tensors straight from the hub, store nothing")
]
LayersOption = Annotated[str | None, typer.Option("--layers", help="MoE layers, as 0,12,24-30 [default: all]")]
ProjectionsOption = Annotated[str, typer.Option("--projections", help="any of gate,up,down")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1")]
MemoryOption = Annotated[
    str, typer.Option("--memory", help="weights held in memory at once; a smaller stack is read once")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="run folder [default: runs/MODEL-COMMAND-FINGERPRINT]")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="of every random draw")]
EngineOption = Annotated[Engine, typer.Option("--engine", help="where jobs run: one by one in this process, or on Ray")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="print jobs, bytes to read and peak memory, do nothing")]
FreshOption = Annotated[bool, typer.Option("--fresh", help="discard this run's earlier results")]
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
    try:
        with Session(request) as session:
            if dry_run:
                console.print_plan(session)
                raise typer.Exit(0)
            notes = session.notes() + session.folder.open(fresh=request.fresh)
            console.execute(session, notes, quiet=quiet)
            page = _write_page(session)
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on where this one stopped", err=True)
        raise typer.Exit(130) from None
    except OSError as error:  # of the run folder: everything else is caught where it is read
        reason = f"{error.filename or session.folder.path}: {error.strerror or error}"
        typer.echo(f"tdmoe-diag: {reason}; finished jobs are saved, the same command goes on from there", err=True)
        raise typer.Exit(1) from error
    failed = [(key, o.message) for key, o in session.folder.outcomes.items() if o.state == "failed"]
    with console.output_may_close():
        show(session)
        console.print_lines([str(session.folder.path / "tables" / f"{command}.csv"), str(page)])
    with console.output_may_close():
        for key, message in failed:
            typer.echo(f"failed: {key}: {message}", err=True)
    raise typer.Exit(1 if failed else 0)


def _write_page(session: Session) -> Path:
    """Figures and the self-contained page, from the finished run."""
    from diag.files import write_bytes, write_text
    from reports.figures import figures_for
    from reports.page import render

    run = session.report_input()
    figures = figures_for(run)
    for figure in figures:
        write_bytes(session.folder.path / "figures" / f"{figure.name}.svg", figure.svg)
    session.folder.remove_figures_but({f"{figure.name}.svg" for figure in figures})
    page = session.folder.path / "report.html"
    write_text(page, render(run, figures))
    return page


@app.command()
def models(
    model: Annotated[
        str | None, typer.Option("--model", help="tell of this one: a name, a folder or a hub id [default: list all]")
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
