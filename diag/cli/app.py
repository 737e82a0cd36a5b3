"""The command line `tdmoe-diag`. No mathematics here: a command is made from declared settings.

Exit codes: 0 all done; 1 some jobs failed (the rest is saved); 2 bad usage or bad input (nothing was run); 130
interrupted. Tables go to stdout, everything else to stderr.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from diag.cli import calibrate, compare, compress, report, streams
from diag.cli import known_models as models
from diag.cli import probe_command as probes
from diag.declare.probe import probes as known
from reports.formats import visible
from tdmoe import __version__
from tdmoe.numerics.threads import sleep_while_waiting
from tdmoe.problems import InputError, out_of_memory

INTERRUPTED = 130
LONGEST = 300  # characters of a value that a message repeats as it is
NAME = "tdmoe-diag"  # however it is started
app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Why tensor decomposition of a Mixture-of-Experts LLM fails on your checkpoint, measured.",
)
for command in (compare.COMMAND, *map(probes.command, known().values()), calibrate.COMMAND, compress.COMMAND):
    app.command()(command)
app.command()(report.report)
app.command()(models.COMMAND)


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
            typer.echo(f"{NAME}: {visible(_abbreviated(_as_given(error), sys.argv))}", err=True)
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


def _abbreviated(message: str, given: Sequence[str]) -> str:
    """Cut what was typed at great length, whole or a word of it: the message is to be read."""
    long = [value for argument in given for value in (argument, argument.partition("=")[2]) if len(value) > LONGEST]
    for value in sorted(long, key=len, reverse=True):
        message = message.replace(value, f"{value[:80]}...{value[-20:]}")
    return re.sub(rf"\S{{{LONGEST},}}", lambda word: f"{word[0][:80]}...{word[0][-20:]}", message)


if __name__ == "__main__":
    main()
