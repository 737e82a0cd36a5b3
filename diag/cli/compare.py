"""The command `compare`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diag.cli import options
from diag.cli.running import Pages, command_line, report_failures, saved_whatever_happens, say_notes
from diag.declare.setting import declared
from diag.experiment.experiment import Calibration, Experiment
from tdmoe.problems import InputError

if TYPE_CHECKING:
    from diag.runs.folder import RunFolder


class Preset(StrEnum):
    """Experiments to begin from."""

    quick = "quick"
    paper = "paper"
    full = "full"


PRESET = Annotated[
    Preset | None,
    typer.Option("--preset", help="quick: minutes; paper: as published; full: everything (default: quick)"),
]
CONFIG = Annotated[Path | None, typer.Option("--config", help="an experiment as TOML; flags beside it win over it")]
CALIBRATED = {f"calibration_{name}": name for name in declared(Calibration)}


def run(
    *,
    preset: Preset | None,
    config: Path | None,
    out: Path | None,
    fresh: bool,
    dry_run: bool,
    quiet: bool,
    **given: Any,
) -> None:
    from diag.experiment.plan import Comparison, Request
    from diag.experiment.run import execute
    from diag.inputs.texts import check_texts
    from diag.runs.folder import check_free
    from diag.runs.terminal import print_lines

    if out is not None and not dry_run:
        check_free(out)
    if given["calibration_text"] is not None:
        check_texts(("calibration_text", given["calibration_text"]))
    known = declared(Experiment)
    flags = {name: known[name].read(options.plain(value)) if name in known else value for name, value in given.items()}
    if flags["methods"] is not None:
        flags["methods"] = _canonical(flags["methods"])
    experiment = _experiment(config, None if preset is None else preset.value, flags)
    request = Request(experiment, out, fresh, quiet, command_line())
    pages = Pages()
    with saved_whatever_happens() as saved, ExitStack() as opened:
        with _naming(config, flags):
            plan = opened.enter_context(Comparison(request))
            plan.check()
        saved.path = plan.folder.path
        if dry_run:
            say_notes(plan.notes(), quiet=quiet)
            plan.describe()
            raise typer.Exit(0)

        def on_part(folder: RunFolder[Any], tables: Sequence[str]) -> None:
            pages.add(folder, tables)

        execute(plan, on_part)
        page = pages.together(plan.folder.path, plan.without_run())
    tables = sorted((plan.folder.path / "tables").glob("*.csv"))
    print_lines([*pages.headlines, *map(str, tables), *([] if page is None else [str(page)])])
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


def _experiment(config: Path | None, named: str | None, flags: dict[str, Any]) -> Experiment:
    """The experiment that preset, file and flags make together: each wins over the one before."""
    from diag.experiment import presets, toml
    from diag.experiment.about import about

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
    experiment = base if config is None else toml.filled(base, entries, config)
    calibrated = {name: given.pop(flag) for flag, name in CALIBRATED.items() if flag in given}
    if "layers" in given and "schedule" not in given:
        given["schedule"] = None
    if "schedule" in given and "layers" not in given:
        given["layers"] = None
    return replace(experiment, **given, calibration=replace(experiment.calibration, **calibrated))


def _canonical(specs: Sequence[str]) -> tuple[str, ...]:
    """InputError where one is no method."""
    from tdmoe import methods, spec

    found = [methods.parse(one) for one in specs]
    return tuple(dict.fromkeys(spec.text(method.NAME, chosen) for method, chosen in found))


_own = [options.optional(each) for each in declared(Experiment).values()]
_calibration = [
    options.optional(replace(each, name=f"calibration_{name}")) for name, each in declared(Calibration).items()
]
_parameters = [
    _own[0],
    options.parameter("preset", PRESET, None),
    options.parameter("config", CONFIG, None),
    *_own[1:],
    *_calibration,
    *options.of_target(("out", "fresh"))[1:],
    *options.of_run(),
]
HELP = "The whole comparison: every probe of an experiment, and one page that answers."
COMMAND = options.made("compare", HELP, _parameters, run)
