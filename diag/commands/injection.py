"""The command `injection`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diag.cli.options import (
    DeviceOption,
    DryRunOption,
    FreshOption,
    LayersOption,
    MemoryOption,
    ModelOption,
    OutOption,
    PerExpert,
    PerExpertOption,
    ProjectionsOption,
    QuietOption,
    RevisionOption,
    SeedOption,
)
from diag.commands.running import command_line, report_failures, saved_whatever_happens, table_paths, write_page
from diag.declare.defaults import ALL_PROJECTIONS, CALIBRATION_TEXT, CALIBRATION_TOKENS, MEMORY
from tdmoe.problems import InputError


def injection(
    model: ModelOption,
    designs: Annotated[
        str, typer.Option("--designs", help="norm held equal: any of frobenius,operator,functional")
    ] = "frobenius,operator",
    families: Annotated[
        str, typer.Option("--families", help="any of isotropic,flat,rank_one,along,against")
    ] = "isotropic,flat,rank_one,along,against",
    methods: Annotated[
        str, typer.Option("--methods", help="specs whose residuals are injected too, rescaled; empty for none")
    ] = "tdmoe,svd_llm,rtn",
    ratio: Annotated[str, typer.Option("--ratio", help="fraction of the parameters that methods remove")] = "0.4",
    sizes: Annotated[str, typer.Option("--sizes", help="residual over weights, in the design's norm")] = "0.1,0.3",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="draws of every family")] = 3,
    scopes: Annotated[str, typer.Option("--scopes", help="all layers together, one layer, or both")] = "all,one",
    alone: Annotated[
        str | None, typer.Option("--alone", help="layers that scope one takes, one by one (default: the middle one)")
    ] = None,
    apart: Annotated[bool, typer.Option("--apart", help="every projection by itself too")] = False,
    text: Annotated[str, typer.Option("--text", help="held out: a built-in text or a UTF-8 file")] = "c4-eval",
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="of the text, in whole windows")] = 2048,
    window: Annotated[int, typer.Option("--window", help="tokens the model sees at once")] = 256,
    statistics: Annotated[
        Path | None, typer.Option("--statistics", help="run folder of calibrate (default: calibrates by itself)")
    ] = None,
    calibration_text: Annotated[
        str, typer.Option("--calibration-text", help="of the statistics of inputs")
    ] = CALIBRATION_TEXT,
    calibration_tokens: Annotated[
        int, typer.Option("--calibration-tokens", min=1, help="of the statistics of inputs")
    ] = CALIBRATION_TOKENS,
    per_expert: PerExpertOption = PerExpert.all,
    layers: LayersOption = None,
    projections: ProjectionsOption = ALL_PROJECTIONS,
    device: DeviceOption = "auto",
    memory: MemoryOption = MEMORY,
    out: OutOption = None,
    seed: SeedOption = 0,
    revision: RevisionOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """Which error predicts the damage: residuals of prescribed norms put into the model, and what the loss does."""
    from diag.cli import console, executing
    from diag.compression import calibrating
    from diag.declare import parse
    from diag.probes.injection import TABLES
    from diag.probes.injection.injecting import Injection, Request

    asked = (calibration_text, calibration_tokens, per_expert)
    if statistics is not None and asked != (CALIBRATION_TEXT, CALIBRATION_TOKENS, PerExpert.all):
        raise InputError(
            "statistics",
            statistics,
            "were collected already",
            "leave out --calibration-text, --calibration-tokens and --per-expert, or give these without --statistics",
        )
    collected = calibrating.Settings(calibration_text, calibration_tokens, None, "count", per_expert.value)
    request = Request(
        model,
        collected if statistics is None else None,
        statistics,
        layers=layers,
        projections=projections,
        apart=apart,
        scopes=scopes,
        alone=alone,
        families=families,
        methods=methods,
        ratio=ratio,
        designs=designs,
        sizes=sizes,
        seeds=seeds,
        text=text,
        tokens=tokens,
        window=window,
        device=device,
        memory=parse.size("memory", memory),
        out=out,
        seed=seed,
        fresh=fresh,
        revision=revision,
        command_line=command_line(),
    )
    with saved_whatever_happens() as saved, Injection(request) as run:
        saved.path = run.folder.path
        if dry_run:
            console.print_injection_plan(run)
            raise typer.Exit(0)
        executing.execute_injection(run, quiet=quiet)
        page = write_page(run.folder, TABLES)
    console.print_injection(run)
    console.print_lines([*table_paths(run.folder, TABLES), str(page)])
    report_failures(run.folder.failures())
