"""The command `compare`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diag.cli.options import LARGEST_SEED, DryRunOption, Engine, FreshOption, OutOption, QuietOption
from diag.commands.limits import Limits
from diag.commands.running import Pages, command_line, report_failures, saved_whatever_happens
from tdmoe.problems import InputError

if TYPE_CHECKING:
    from diag.compare.experiment import Experiment
    from diag.compare.toml import Needed
    from diag.runs.folder import RunFolder


class Preset(StrEnum):
    """Experiments to begin from."""

    quick = "quick"
    paper = "paper"
    full = "full"


def compare(
    model: Annotated[
        str | None,
        typer.Option("--model", help="mini (built in), a checkpoint folder, a hub id, or a name that `models` lists"),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option("--preset", help="quick: minutes; paper: as published; full: everything (default: quick)"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="an experiment as TOML; flags beside it win over it")
    ] = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="specs, comma-separated, as tdmoe,mobe,rtn:bits=4")
    ] = None,
    ratios: Annotated[str | None, typer.Option("--ratios", help="fractions of the parameters to remove")] = None,
    projections: Annotated[str | None, typer.Option("--projections", help="any of gate,up,down")] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="MoE layers, as 0,12,24-30")] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="nested layer sets: middle-out:N, or middle-out-code:N")
    ] = None,
    task_data: Annotated[
        str | None, typer.Option("--task-data", help="folder of TASK_val.jsonl.gz files, or hub; without it no tasks")
    ] = None,
    calibration_text: Annotated[
        str | None, typer.Option("--calibration-text", help="to calibrate methods on: built-in text or a file")
    ] = None,
    calibration_tokens: Annotated[
        int | None, typer.Option("--calibration-tokens", min=1, help="to calibrate methods on")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:1")] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="weights held in memory at once")] = None,
    engine: Annotated[
        Engine | None,
        typer.Option("--engine", help="where jobs of spectra, operator and experts run (default: inline)"),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=LARGEST_SEED, help="of every random draw")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="branch, tag or commit on the hub")] = None,
    out: OutOption = None,
    dry_run: DryRunOption = False,
    fresh: FreshOption = False,
    quiet: QuietOption = False,
) -> None:
    """The whole comparison: every command of an experiment, and one page that answers."""
    from diag.cli.console import print_lines
    from diag.compare.experiment import Calibration
    from diag.compare.plan import Comparison, Request, methods_of
    from diag.compare.run import execute
    from diag.declare import parse

    flags: dict[str, Any] = {
        "model": model,
        "methods": None if methods is None else methods_of(methods),
        "ratios": None if ratios is None else tuple(parse.ratios("ratios", ratios)),
        **{"projections": projections, "layers": layers, "schedule": schedule, "task_data": task_data},
        **{"device": device, "memory": memory, "seed": seed, "revision": revision},
        "engine": None if engine is None else engine.value,
    }
    experiment = _experiment(config, None if preset is None else preset.value, flags)
    text, tokens = calibration_text, calibration_tokens
    before = experiment.calibration
    calibrated = Calibration(before.text if text is None else text, before.tokens if tokens is None else tokens)
    experiment = replace(experiment, calibration=calibrated)
    request = Request(experiment, out, fresh, quiet, command_line())
    pages = Pages()
    given = flags | {"calibration_text": text, "calibration_tokens": tokens}
    with saved_whatever_happens() as saved, ExitStack() as opened:
        with _naming(config, given):
            plan = opened.enter_context(Comparison(request))
            plan.check()
        saved.path = plan.folder.path
        if dry_run:
            for note in plan.notes():
                typer.echo(note, err=True)
            plan.describe()
            raise typer.Exit(0)

        def on_part(folder: RunFolder[Any], tables: Sequence[str]) -> None:
            pages.add(folder, tables)

        execute(plan, on_part)
        page = pages.together(plan.folder.path, plan.without_run())
    tables = sorted((plan.folder.path / "tables").glob("*.csv"))
    print_lines([*map(str, tables), *([] if page is None else [str(page)])])
    report_failures(plan.folder.failures())


@contextmanager
def _naming(config: Path | None, flags: Mapping[str, Any]) -> Iterator[None]:
    """An InputError about what no flag says names the file of the experiment too."""
    try:
        yield
    except InputError as error:
        key = error.field.lstrip("-").replace("-", "_")
        name = f"calibration_{key}" if error.parts[:1] == ("calibration",) else {"method": "methods"}.get(key, key)
        if config is not None and flags.get(name) is None:
            error.within(f"--config {config}")
        raise


def _needed() -> Needed:
    """What the flags of each command would refuse, of the settings that are named as they are."""
    from diag.compare.experiment import Calibration, Experiment, commands

    limits = {kind: Limits(getattr(import_module(f"diag.commands.{name}"), name)) for name, kind in commands().items()}
    own = Limits(compare)

    def needed(kind: type[Any], name: str, value: Any) -> str | None:
        flag = name.replace("_", "-")
        if kind is Calibration:
            return own.needed(f"--calibration-{flag}", value)
        return (own if kind is Experiment else limits[kind]).needed(f"--{flag}", value)

    return needed


def _experiment(config: Path | None, named: str | None, flags: dict[str, Any]) -> Experiment:
    """What preset, file and flags say together: each wins over the one before."""
    from diag.compare import presets, toml
    from diag.compare.experiment import Experiment
    from diag.compare.model import about

    entries = {} if config is None else toml.read(config)
    names = ("preset", "model", "revision")
    said = {name: None if config is None else toml.text_of(entries, name, config) for name in names}
    if config is not None:
        named = named or said["preset"]
    elif named is None:
        named = "quick"
    given = {name: value for name, value in flags.items() if value is not None}
    model = given.get("model") or said["model"]
    if not model:
        raise InputError("compare: which model? give --model, or a --config that says model")
    base = Experiment()
    if named is not None:
        revision = given.get("revision") or said["revision"]
        with _naming(config, flags):
            presets.known(named)
            base = presets.preset(named, about(model, revision))
    experiment = base if config is None else toml.filled(base, entries, config, _needed())
    if "layers" in given and "schedule" not in given:
        given["schedule"] = ""
    if "schedule" in given and "layers" not in given:
        given["layers"] = ""
    return replace(experiment, **given)
