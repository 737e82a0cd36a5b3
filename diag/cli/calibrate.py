"""The command `calibrate`."""

from __future__ import annotations

from typing import Any

import typer

from diag.cli import options
from diag.cli.running import command_line, report_failures, saved_whatever_happens, say_notes
from diag.compression.settings import Calibrate
from diag.declare.target import Target


def run(*, dry_run: bool, quiet: bool, **given: Any) -> None:
    from diag.compression import execution
    from diag.compression.calibrating import Calibration, Request
    from diag.runs.terminal import print_lines

    settings, target = options.read(Calibrate, given), options.read(Target, given)
    request = Request(target.model, settings, target.layers, target.device, target.out, target.revision, command_line())
    with saved_whatever_happens() as saved, Calibration(request) as calibration:
        saved.path = calibration.folder.path
        if dry_run:
            say_notes(calibration.notes(), quiet=quiet)
            execution.print_calibration_plan(calibration)
            raise typer.Exit(0)
        execution.execute_calibration(calibration, calibration.opened(fresh=target.fresh), quiet=quiet)
    execution.print_calibration(calibration)
    print_lines([str(calibration.folder.path)])
    report_failures(calibration.folder.failures())


_target = options.of_target(Calibrate.TARGET)
_parameters = [_target[0], *options.of_settings(Calibrate), *_target[1:], *options.of_run()]
COMMAND = options.made("calibrate", str(Calibrate.__doc__), _parameters, run)
