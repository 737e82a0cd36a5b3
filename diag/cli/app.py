"""The command line `tdmoe-diag`. No mathematics here: each command is a file in diag/commands/.

Exit codes: 0 all done; 1 some jobs failed (the rest is saved); 2 bad usage or bad input (nothing was run); 130
interrupted. Tables go to stdout, everything else to stderr.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from diag.cli import streams
from diag.commands.attribution import attribution
from diag.commands.calibrate import calibrate
from diag.commands.compare import compare
from diag.commands.compress import compress
from diag.commands.drift import drift
from diag.commands.experts import experts
from diag.commands.injection import injection
from diag.commands.models import models
from diag.commands.operator import operator
from diag.commands.quality import quality
from diag.commands.report import report
from diag.commands.spectra import spectra
from diag.commands.superweights import superweights
from reports.formats import visible
from tdmoe import __version__
from tdmoe.numerics.threads import sleep_while_waiting
from tdmoe.problems import InputError, out_of_memory

INTERRUPTED = 130
NAME = "tdmoe-diag"  # however it is started
app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Why tensor decomposition of a Mixture-of-Experts LLM fails on your checkpoint, measured.",
)
PROBES = (spectra, operator, superweights, experts, quality, drift, injection, attribution)
for command in (compare, *PROBES, calibrate, compress, report, models):
    app.command()(command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Why tensor decomposition of a Mixture-of-Experts LLM fails on your checkpoint, measured."""


def main() -> None:
    """A user's mistake ends with one message and exit code 2, never a traceback."""
    sleep_while_waiting()
    with streams.kept():
        try:
            app(prog_name=NAME)
        except InputError as error:
            typer.echo(f"{NAME}: {visible(_as_given(error))}", err=True)
            sys.exit(2)
        except SystemExit as end:
            if end.code == INTERRUPTED and not streams.interruption_said:  # typer's own answer to Ctrl-C has no words
                typer.echo(f"{NAME}: interrupted", err=True)
            raise
        except Exception as error:
            message = out_of_memory(error)
            if message is None and isinstance(error, OSError) and error.filename is not None:  # before anything has run
                message = f"{error.filename}: {error.strerror}; give another path"
            if message is None:
                raise
            typer.echo(f"{NAME}: {visible(message)}", err=True)
            sys.exit(2)


def _as_given(error: InputError) -> str:
    """The message with the flag of this command that sets the field: --ratio or --ratios, --method or --methods."""
    known = getattr(typer.main.get_command(app), "commands", {})
    command = known.get(next(iter(sys.argv[1:]), ""))
    flags = {flag for each in (command.params if command else ()) for flag in each.opts}
    field = error.field.replace("_", "-")
    names = (*(f"--{part}-{field}" for part in error.parts), f"--{field}", f"--{field}s")
    return error.said(next((flag for flag in names if flag in flags), error.field))


if __name__ == "__main__":
    main()
