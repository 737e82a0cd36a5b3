"""The command `spectra`."""

from __future__ import annotations

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


def spectra(
    model: ModelOption,
    layers: LayersOption = None,
    projections: ProjectionsOption = ALL_PROJECTIONS,
    fit_range: Annotated[
        str, typer.Option("--fit-range", help="fraction of the indices to fit, above the noise floor")
    ] = "0:1",
    jackknife: Annotated[
        int, typer.Option("--jackknife", min=0, help="groups of experts to leave out in turn; 0 for none")
    ] = 0,
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
    """Power-law exponents of the three mode unfoldings (expert, output, input) of every expert stack."""
    from diag.cli.console import print_exponents
    from diag.declare import parse
    from diag.probes.spectra import Settings

    settings = Settings(
        fit_range=parse.fraction_range("fit_range", fit_range),
        jackknife=jackknife,
        memory=parse.size("memory", memory),
    )
    options = {"layers": layers, "projections": projections, "device": device, "out": out, "seed": seed, "fresh": fresh}
    options |= {"engine": engine.value, "revision": revision, "remote": remote}
    run_probe("spectra", model, settings, options, print_exponents, dry_run=dry_run, quiet=quiet)
