"""The command of a probe, made from its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import typer

from diag.cli import options
from diag.cli.running import command_line, report_failures, saved_whatever_happens, say_notes, table_paths, write_page
from diag.declare.probe import Probe
from diag.declare.target import Target


def command(probe: Probe) -> Callable[..., None]:
    """Open, carry out, write figures and page, say what was found."""
    kind = probe.settings
    settings, target = options.of_settings(kind), options.of_target(kind.TARGET)
    parameters = [target[0], *settings, *target[1:], *options.of_run()]

    def run(*, dry_run: bool, quiet: bool, **given: Any) -> None:
        from diag.cli import answer
        from diag.runs.terminal import print_lines

        chosen = options.read(kind, given).by_itself()
        where = replace(options.read(Target, given), command_line=command_line())
        with saved_whatever_happens() as saved, probe.open(where, chosen) as work:
            saved.path = work.folder.path
            if dry_run:
                say_notes(work.notes(), quiet=quiet)
                work.describe()
                raise typer.Exit(0)
            work.carry_out(quiet=quiet)
            page = write_page(work.folder, probe.tables)
        answer.show(work.folder.data(probe.tables))
        print_lines([*table_paths(work.folder, probe.tables), str(page)])
        report_failures(work.folder.failures())

    return options.made(probe.name, str(kind.__doc__), parameters, run)
