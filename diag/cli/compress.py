"""The command `compress`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from diag.cli import options
from diag.cli.running import command_line, report_failures, saved_whatever_happens, say_notes
from diag.compression.settings import DEFAULT_RATIO, METHOD_OPTIONS, Compress
from diag.declare.setting import declared
from diag.declare.target import Target
from tdmoe.problems import InputError

if TYPE_CHECKING:
    from diag.compression.compress_run import Command

COLLECTED = ("text", "tokens", "window", "weighting", "per_expert")


def run(*, dry_run: bool, quiet: bool, **given: Any) -> None:
    from diag.compression import execution
    from diag.compression.compress_run import Compression
    from diag.compression.compressing import check_writable
    from diag.compression.rerun import Afresh
    from diag.runs.terminal import print_lines

    settings, target = options.read(Compress, given), options.read(Target, given)
    with saved_whatever_happens() as saved, Compression(_command(settings, target)) as compression:
        saved.path = compression.session.folder.path
        if dry_run:
            say_notes(compression.notes(), quiet=quiet)
            execution.print_compression_plan(compression)
            raise typer.Exit(0)
        check_writable(settings.to)
        failed = execution.execute_compression(compression, Afresh(target.fresh), quiet=quiet)
        session = compression.session
        saved.path = session.folder.path
        bits = None if failed else execution.finish_compression(session, dense=settings.dense, quiet=quiet)
    execution.print_compression(session, bits)
    execution.print_sensitivities(compression.layer_sensitivities)
    runs = (compression.frontiers, compression.sensitivity, session)
    tables = [path for one in runs if one for path in sorted((one.folder.path / "tables").glob("*.csv"))]
    print_lines([*map(str, tables), *([] if failed else [str(settings.to)])])
    report_failures(failed)


def _command(settings: Compress, target: Target) -> Command:
    """The command to carry out; InputError where method, ratio and statistics do not fit together."""
    from diag.compression import calibrating
    from diag.compression.calibrated import saved_moments
    from diag.compression.compress_run import Command, own_inputs
    from diag.compression.compressing import error_kinds
    from diag.declare import parse
    from diag.inputs.texts import check_texts
    from tdmoe import methods, spec

    method, ratio, statistics = settings.method, settings.ratio, settings.statistics
    chosen, chosen_options = methods.parse(method, {name: getattr(settings, name) for name in METHOD_OPTIONS})
    needs = chosen.needs(chosen_options)
    if not chosen.fixes_storage(chosen_options):
        ratio = DEFAULT_RATIO if ratio is None else parse.ratio("ratio", ratio)
    elif chosen.shares_budget(chosen_options).of_model:
        raise InputError("ratio_of", "model", f"{method} stores what its options say", "give no --ratio-of")
    elif ratio is not None:
        raise InputError("ratio", ratio, f"{method} stores what its options say", "give no --ratio")
    known = declared(Compress)
    if statistics is not None and any(getattr(settings, name) != known[name].default for name in COLLECTED):
        raise InputError(
            "statistics",
            statistics,
            "were collected already",
            "leave out --text, --tokens, --window, --weighting and --per-expert, or give these without --statistics",
        )
    check_texts(("text", settings.text))
    if statistics is not None:
        saved_moments(statistics)
    kinds, memory = error_kinds("errors", settings.errors), target.memory_bytes
    own = own_inputs(method, needs, target.projections, settings.per_expert)
    collected = calibrating.Settings(
        settings.text, settings.tokens, settings.window, settings.weighting, own, needs.outputs
    )
    layers = target.layers if settings.schedule is None else _scheduled(target, settings.schedule)
    where = {name: getattr(target, name) for name in ("projections", "device", "out", "revision")}
    how = {name: getattr(target, name) for name in ("seed", "engine", "fresh")}
    return Command(
        target.model,
        spec.text(chosen.NAME, chosen_options),
        ratio,
        settings.to,
        memory,
        settings.frontier,
        statistics,
        collected if settings.tokens and statistics is None else None,
        {"layers": layers, **where},
        {**how, "command_line": command_line()},
        kinds,
    )


def _scheduled(target: Target, schedule: str) -> str:
    """The layers that a schedule means for this model."""
    from diag.declare import parse
    from diag.models.model import resolve
    from tdmoe.checkpoint.reader import Checkpoint
    from tdmoe.stacks.architecture import architecture

    if target.layers is not None:
        raise InputError("schedule", schedule, "chooses the layers", "give it or --layers, not both")
    with Checkpoint(resolve(target.model, target.revision).files()) as checkpoint:
        return parse.schedule(schedule, architecture(checkpoint.config).layers)


_target = options.of_target(Compress.TARGET)
_parameters = [_target[0], *options.of_settings(Compress), *_target[1:], *options.of_run()]
COMMAND = options.made("compress", str(Compress.__doc__), _parameters, run)
