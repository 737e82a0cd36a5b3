"""The command `calibrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from diag.commands.running import command_line, report_failures, saved_whatever_happens, say_notes
from diag.defaults import CALIBRATION_TEXT, CALIBRATION_TOKENS
from diag.options import (
    DeviceOption,
    DryRunOption,
    FreshOption,
    LayersOption,
    ModelOption,
    OutOption,
    PerExpert,
    PerExpertOption,
    QuietOption,
    RevisionOption,
    Weighting,
    WeightingOption,
    WindowOption,
)


def calibrate(
    model: ModelOption,
    text: Annotated[str, typer.Option("--text", help="built-in text or a UTF-8 file")] = CALIBRATION_TEXT,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="of the text, in whole windows")] = CALIBRATION_TOKENS,
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
    from diag import console, executing
    from diag.calibrating import Calibration, Request, Settings

    settings = Settings(text, tokens, window, weighting.value, per_expert.value, outputs)
    line = command_line()
    request = Request(model, settings, layers, device, out, revision, line)
    with saved_whatever_happens() as saved, Calibration(request) as calibration:
        saved.path = calibration.folder.path
        if dry_run:
            say_notes(calibration.notes(), quiet=quiet)
            console.print_calibration_plan(calibration)
            raise typer.Exit(0)
        executing.execute_calibration(calibration, calibration.opened(fresh=fresh), quiet=quiet)
    console.print_calibration(calibration)
    console.print_lines([str(calibration.folder.path)])
    report_failures(calibration.folder.failures())
