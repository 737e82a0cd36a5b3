"""Plans carried out under bars on stderr, for their own commands and for those that hold several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.progress import (
    DownloadColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from diag.compression.rerun import Afresh
from diag.jobs.stack_work import execute, print_plan
from diag.runs.progress import COUNTED, bars
from diag.runs.terminal import size, stdout
from reports.formats import counted

if TYPE_CHECKING:
    from diag.compression.calibrating import Calibration
    from diag.compression.compress_run import Compression
    from diag.compression.compressing import Saved
    from diag.compression.factors import Factors, Recipe, Source
    from diag.jobs.session import Session

    Make = Callable[[Sequence[Recipe], Source], list[Factors]]

KEPT = Afresh(False)  # what is there already is used


def execute_calibration(calibration: Calibration, notes: Iterable[str], *, quiet: bool) -> None:
    """Run it under a bar of tokens."""
    with bars(*COUNTED, quiet=quiet) as shown:
        bar = shown.bar
        if shown.alone or calibration.folder.pending():
            for note in notes:
                shown.note(note)
        task = bar.add_task(f"{calibration.model.name} calibrate", total=calibration.windows_WT.numel())
        calibration.execute(lambda count: bar.advance(task, count))


def execute_before_compression(compression: Compression, afresh: Afresh, *, quiet: bool) -> list[tuple[str, str]]:
    """Calibrate and find the frontiers, where asked for; what failed of it."""
    calibration, frontiers = compression.calibration, compression.frontiers
    if calibration is not None and (failed := calibrate(calibration, quiet=quiet)):
        return failed
    if frontiers is None:
        return []
    execute(
        frontiers,
        frontiers.folder.open(fresh=afresh.first(frontiers.folder.path), notes=frontiers.notes()),
        quiet=quiet,
    )
    if (failed := frontiers.folder.failures()) or compression.sensitivity is None:
        return failed
    sensitivity = compression.sensitivity
    notes = sensitivity.folder.open(fresh=afresh.first(sensitivity.folder.path))
    with bars(*COUNTED, quiet=quiet) as shown:
        bar = shown.bar
        for note in notes:
            shown.note(note)
        task = bar.add_task(f"{frontiers.model.name} sensitivity", total=len(sensitivity.folder.pending()))
        sensitivity.execute(compression.points(), lambda: bar.advance(task))
    return sensitivity.folder.failures()


def calibrate(calibration: Calibration, *, quiet: bool) -> list[tuple[str, str]]:
    """Run it for a command that needs it, and let go of its folder for others that wait; what failed of it."""
    execute_calibration(calibration, calibration.opened(), quiet=quiet)
    calibration.folder.close()
    return calibration.folder.failures()


def execute_compression(compression: Compression, afresh: Afresh, *, quiet: bool) -> list[tuple[str, str]]:
    """Everything up to the factors of every stack; what failed of it."""
    from diag.compression.compressing import begin

    if failed := execute_before_compression(compression, afresh, quiet=quiet):
        return failed
    compression.settle()
    session = compression.session
    notes = session.folder.open(fresh=session.request.fresh, notes=session.notes())
    begin(session)
    execute(session, notes, quiet=quiet)
    return session.folder.failures()


def make_factors(
    recipes: Sequence[Recipe],
    source: Source,
    *,
    quiet: bool,
    afresh: Afresh = KEPT,
    on_notes: Callable[[Sequence[str]], None] = lambda notes: None,
) -> list[Factors]:
    """Factors of every recipe, made where not there; Unmade where some cannot be. `on_notes`: of the calibration."""
    from diag.compression.compress_run import Compression
    from diag.compression.factors import Factors, Recipe, Unmade

    made: list[Factors] = []
    unmade: dict[Recipe, str] = {}
    for command in source.commands(recipes):
        with Compression(command.afresh() if afresh.first(command.to) else command) as compression:
            if failed := execute_compression(compression, afresh, quiet=quiet):
                unmade[Recipe(command.method, command.ratio)] = f"{command.method}: {failed[0][0]}: {failed[0][1]}"
                continue
            if compression.calibration is not None:
                on_notes([f"calibration: {note}" for note in compression.calibration.notes()])
            made.append(Factors.of(compression))
    if unmade:
        raise Unmade(unmade, made)
    return made


def finish_compression(session: Session, *, dense: bool, quiet: bool) -> Saved:
    """Write the rest of the checkpoint under a count of bytes."""
    from diag.compression.compressing import finish

    with bars(TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn(), quiet=quiet) as shown:
        bar = shown.bar
        task = bar.add_task("writing the rest of the checkpoint", total=None)
        return finish(session, dense=dense, on_written=lambda count: bar.advance(task, count))


def print_compression_plan(compression: Compression) -> None:
    """--dry-run: what is made first, then the stacks."""
    if compression.calibration is not None:
        print_calibration_plan(compression.calibration)
    if compression.frontiers is not None:
        print_plan(compression.frontiers)
    print_plan(compression.session)


def print_calibration_plan(calibration: Calibration) -> None:
    """--dry-run: tokens, windows, layers and the size of the sums."""
    windows, length = calibration.windows_WT.shape
    print(f"{calibration.model.name}: calibrate, run folder {calibration.folder.path}")
    print(
        f"{counted(windows, 'window')} of {length} tokens, {counted(len(calibration.layers), 'layer')}, "
        f"{size(calibration.sums_bytes)} of sums; nothing was run"
    )


def print_calibration(calibration: Calibration) -> None:
    """Print how many tokens the experts of each layer saw."""
    table = Table()
    for heading in ("layer", "routed tokens", "experts", "unseen", "least", "most"):
        table.add_column(heading, justify="right")
    for row in calibration.folder.rows("calibration"):
        columns = ("layer", "routed", "experts", "experts_unseen", "routed_least", "routed_most")
        table.add_row(*(str(row[column]) for column in columns))
    print(f"{calibration.model.name}: {calibration.windows_WT.numel():,} tokens of {calibration.settings.text}")
    stdout().print(table)


def print_compression(session: Session, saved: Saved | None) -> None:
    """Print what every stack keeps and loses, and what that is of the whole model."""
    table = Table()
    columns = ("ranks", "kept_ratio", "weight_error", "functional_error", "operator_error")
    table.add_column("layer / projection")
    for heading in ("ranks", "kept", "weight error", "functional", "operator"):
        table.add_column(heading, justify="right")
    rows = session.folder.rows("compression")
    for row in rows:
        cells = [_number(row[column]) for column in columns]
        table.add_row(f"{row['layer']} / {row['projection']}", *cells)
    method = rows[0]["method"] if rows else ""
    print(f"{session.model.name}: {method}, errors relative to the stack's own norm")
    stdout().print(table)
    if any(row["status"] == "not_measured" for row in rows):
        print("empty errors were not measured: --errors weight,functional,operator measures all, which takes longer")
    if saved is None:
        return
    if abs(saved.bits_saved - saved.bits_saved_bf16) < 1e-9:
        print(f"{saved.bits_saved:.1%} of the model's bits saved ({saved.bits_saved_of})")
        return
    print(f"{saved.bits_saved_bf16:.1%} of the bits of the model in bf16 saved ({saved.bits_saved_of})")
    sign, change = ("fewer", saved.bits_saved) if saved.bits_saved >= 0 else ("MORE", -saved.bits_saved)
    print(f"but it is quantised: {change:.1%} {sign} bits than it takes as it is")


def print_sensitivities(found: Mapping[int, float]) -> None:
    """Print sensitivities of layers, where they decided which were left dense."""
    if found:
        print("layer sensitivity: " + ", ".join(f"{layer} {value:.1f}" for layer, value in sorted(found.items())))


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
