"""The command `experts`."""

from __future__ import annotations

from enum import StrEnum
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
    ProjectionsOption,
    QuietOption,
    RemoteOption,
    RevisionOption,
    SeedOption,
)
from diag.commands.running import run_probe
from diag.declare.defaults import ALL_PROJECTIONS, MEMORY


class Whitening(StrEnum):
    """The metric of the decomposition."""

    by_none = "none"
    by_input = "input"


def experts(
    model: ModelOption,
    ratios: Annotated[str, typer.Option("--ratios", help="fractions of the parameters to remove")] = "0.2,0.4",
    statistics: Annotated[
        Path | None, typer.Option("--statistics", help="run folder of calibrate: adds errors and CKA on its inputs")
    ] = None,
    whitening: Annotated[
        Whitening | None,
        typer.Option("--whitening", help="metric of the decomposition (default: input where there are statistics)"),
    ] = None,
    jackknife: Annotated[
        int,
        typer.Option("--jackknife", min=0, help="groups of experts to leave out in turn, for intervals; 0 for none"),
    ] = 8,
    directions: Annotated[
        float, typer.Option("--directions", help="share of an expert's directions that counts as leading")
    ] = 0.1,
    draws: Annotated[int, typer.Option("--draws", min=1, help="draws of independent experts, as a null")] = 8,
    layers: LayersOption = None,
    projections: ProjectionsOption = ALL_PROJECTIONS,
    device: DeviceOption = "auto",
    memory: MemoryOption = MEMORY,
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    remote: RemoteOption = False,
    engine: EngineOption = Engine.inline,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Expert mode: preserve against compress at equal storage, published and exact ranks; similarity of experts."""
    from diag.cli.console import print_expert_modes
    from diag.compression.calibrated import saved_moments
    from diag.declare import parse
    from diag.probes.experts import Settings

    chosen = whitening or (Whitening.by_none if statistics is None else Whitening.by_input)
    settings = Settings(
        ratios=tuple(parse.ratios("ratios", ratios)),
        statistics=None if statistics is None else str(statistics),
        moments=None if statistics is None else saved_moments(statistics),
        whitening=chosen.value,
        jackknife=jackknife,
        directions=directions,
        draws=draws,
        memory=parse.size("memory", memory),
    )
    options = {"layers": layers, "projections": projections, "device": device, "out": out, "seed": seed, "fresh": fresh}
    options |= {"engine": engine.value, "revision": revision, "remote": remote}
    run_probe("experts", model, settings, options, print_expert_modes, dry_run=dry_run, quiet=quiet)
