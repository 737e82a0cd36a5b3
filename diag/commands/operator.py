"""The command `operator`."""

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
    ProjectionsOption,
    QuietOption,
    RevisionOption,
    SeedOption,
)
from diag.commands.running import run_probe
from diag.declare.defaults import ALL_PROJECTIONS, MEMORY

METHODS = "tdmoe:whitening=none,allocation=published,decomposition=hosvd,tdmoe:whitening=none,rtn:bits=4"


def operator(
    model: ModelOption,
    ranks: Annotated[
        str, typer.Option("--ranks", help="of truncations, as fractions of each mode")
    ] = "0.125,0.25,0.5,0.75",
    methods: Annotated[
        str, typer.Option("--methods", help="compared at equal storage: specs as `compress --method` takes them")
    ] = METHODS,
    ratios: Annotated[
        str, typer.Option("--ratios", help="fractions of the parameters that these remove")
    ] = "0.2,0.4,0.6",
    statistics: Annotated[
        Path | None, typer.Option("--statistics", help="run folder of calibrate, for functional errors and whitening")
    ] = None,
    per_expert: Annotated[bool, typer.Option("--per-expert", help="a row for every expert too")] = False,
    layers: LayersOption = None,
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
    """Operator against Frobenius error of truncations and methods over rank and storage, with the paper's bound."""
    from diag.cli.console import print_operator
    from diag.compression import calibrated
    from diag.compression.factors import split_specs
    from diag.declare import parse
    from diag.probes.operator import Settings
    from diag.probes.operator.cases import canonical

    settings = Settings(
        ranks=tuple(parse.ratios("ranks", ranks)),
        ratios=tuple(parse.ratios("ratios", ratios)),
        methods=tuple(dict.fromkeys(canonical(text) for text in split_specs(methods))),
        statistics=None if statistics is None else str(statistics),
        moments=None if statistics is None else calibrated.saved_moments(statistics),
        per_expert=per_expert,
        memory=parse.size("memory", memory),
    )
    options = {"layers": layers, "projections": projections, "device": device, "out": out, "seed": seed, "fresh": fresh}
    options |= {"engine": engine.value, "revision": revision}
    run_probe("operator", model, settings, options, print_operator, dry_run=dry_run, quiet=quiet)
