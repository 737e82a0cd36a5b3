"""Plans carried out under bars on stderr, for their own commands and for those that hold several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from diag.compression.rerun import Afresh
from diag.runs.progress import COUNTED, Shown, bars
from reports.formats import visible

if TYPE_CHECKING:
    from diag.compression.calibrating import Calibration
    from diag.compression.compress_run import Compression
    from diag.compression.compressing import Saved
    from diag.compression.factors import Factors, Recipe, Source
    from diag.jobs.session import Session
    from diag.probes.attribution.plan import Plan as AttributionPlan
    from diag.probes.drift.run import Drift
    from diag.probes.injection.injecting import Injection
    from diag.probes.quality.plan import Plan
    from diag.probes.superweights.run import SuperWeights
    from diag.runs.folder import Job, Outcome

    Make = Callable[[Sequence[Recipe], Source], list[Factors]]

KEPT = Afresh(False)  # what is there already is used


def execute(session: Session, notes: Iterable[str], *, quiet: bool) -> None:
    """Run the session under a bar of bytes, bytes per second and time left, with a line per finished job."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with bars(*columns, TimeRemainingColumn(), quiet=quiet) as shown:
        bar = shown.bar
        if shown.alone or session.folder.pending():
            for note in notes:
                shown.note(note)

        def on_done(job: Job) -> None:
            outcome = session.folder.outcomes[job.key]
            if shown.alone or outcome.state == "failed":
                shown.console.print(_job_line(job.key, outcome))

        if missing := session.missing():
            download = bar.add_task(f"{session.model.name} download", total=sum(missing.values()))
            session.fetch(lambda count: bar.advance(download, count))
            bar.remove_task(download)
        task = bar.add_task(f"{session.model.name} {session.request.command}", total=session.pending_bytes)
        session.execute(
            on_read=lambda count: bar.advance(task, count),
            on_done=on_done,
            on_note=shown.note,
        )


def _job_line(key: str, outcome: Outcome) -> str:
    if outcome.state == "failed":
        return f"[red]{key}  failed[/red]: {escape(visible(outcome.message or ''))}"
    return f"{key}  done in {outcome.seconds:.1f} s"


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
    if calibration is not None and (failed := _calibrate(calibration, quiet=quiet)):
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


def _calibrate(calibration: Calibration, *, quiet: bool) -> list[tuple[str, str]]:
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


def execute_injection(injection: Injection, *, quiet: bool, notes: Sequence[str] = ()) -> None:
    """Calibrate where that is asked for, then measure under a bar of parts; `notes` are kept with its own."""
    calibration = injection.calibration
    if calibration is not None:
        _calibrate(calibration, quiet=quiet)  # what failed of it fails the sites that need it
        notes = [*notes, *(f"calibration: {note}" for note in calibration.notes())]
    notes = injection.folder.open(fresh=injection.request.fresh, notes=[*notes, *injection.notes()])
    with bars(*COUNTED, quiet=quiet) as shown:
        bar = shown.bar
        for note in notes:
            shown.note(note)
        pending = sum(job in injection.parts for job in injection.folder.pending())
        task = bar.add_task(f"{injection.name} injection", total=pending)
        injection.execute(lambda job: bar.advance(task))


def execute_quality(plan: Plan, *, quiet: bool, afresh: Afresh | None = None, notes: Sequence[str] = ()) -> None:
    """Under a bar of windows and documents, of all models together.

    Here and below `afresh` is that of the work that the plan is a part of, and `notes` are kept with the plan's own.
    """
    from diag.compression.factors import Unmade
    from diag.probes.quality.run import Run

    told = _opened(plan, notes)
    make = _maker(plan, afresh, quiet=quiet)
    unmade: Mapping[Recipe, str] = {}
    try:
        made = make(plan.request.recipes, plan.source) if plan.due_variants else []
    except Unmade as error:
        made, unmade = error.made, error.failed
    with bars(*COUNTED, quiet=quiet) as shown:
        for note in told:
            shown.note(note)
        task = shown.bar.add_task(f"{plan.name} quality", total=plan.steps)
        Run(plan, made, unmade, lambda count: shown.bar.advance(task, count)).execute()


def execute_drift(plan: Drift, *, quiet: bool, afresh: Afresh | None = None, notes: Sequence[str] = ()) -> None:
    """Under a bar of layers of windows, which all variants share."""
    told = _opened(plan, notes)
    with bars(*COUNTED, quiet=quiet) as shown:
        for note in told:
            shown.note(note)
        task = shown.bar.add_task(f"{plan.name} drift", total=plan.steps)
        plan.execute(_alone(shown, _maker(plan, afresh, quiet=quiet)), lambda count: shown.bar.advance(task, count))


def execute_attribution(
    plan: AttributionPlan, *, quiet: bool, afresh: Afresh | None = None, notes: Sequence[str] = ()
) -> None:
    """Likewise."""
    from diag.probes.attribution.run import Run

    told = _opened(plan, notes)
    with bars(*COUNTED, quiet=quiet) as shown:
        for note in told:
            shown.note(note)
        task = shown.bar.add_task(f"{plan.name} attribution", total=len(plan.windows_WT) * plan.arch.depth)
        Run(
            plan, _alone(shown, _maker(plan, afresh, quiet=quiet)), lambda count: shown.bar.advance(task, count)
        ).execute()


def _opened(plan: Plan | Drift | AttributionPlan, notes: Sequence[str]) -> list[str]:
    """The run folder taken up; notes for a person."""
    return plan.folder.open(fresh=plan.request.fresh, notes=[*notes, *plan.notes()])


def _maker(plan: Any, afresh: Afresh | None, *, quiet: bool) -> Make:
    """`make_factors`, whose notes are kept with the plan's results."""
    shared = afresh or Afresh(plan.request.fresh)
    return lambda recipes, source: make_factors(
        recipes, source, quiet=quiet, afresh=shared, on_notes=lambda notes: plan.folder.note(notes)
    )


def _alone(shown: Shown, make: Make) -> Make:
    """While this one, which has bars of its own, is at work, no others are shown."""

    def made(recipes: Sequence[Recipe], source: Source) -> list[Factors]:
        if not shown.alone:
            return make(recipes, source)
        shown.bar.stop()
        found = make(recipes, source)
        shown.bar.start()
        return found

    return made


def execute_superweights(
    work: SuperWeights, *, quiet: bool, afresh: Afresh | None = None, notes: Sequence[str] = ()
) -> None:
    """The discovery, then what it leads to, under a bar of windows."""
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with bars(*columns, quiet=quiet) as shown:
        task = shown.bar.add_task(f"{work.opened.name} windows", total=None)
        for line in work.discover(lambda count: shown.bar.advance(task, count), notes):
            shown.note(line)
    if work.folder.failures():
        work.write_tables()
        return
    work.make(_maker(work, afresh, quiet=quiet))
    with bars(*columns, quiet=quiet) as shown:
        task = shown.bar.add_task(f"{work.opened.name} windows", total=None)
        state = work.folder.outcomes
        work.execute(lambda key: shown.note(f"{key}  {state[key].state}"), lambda n: shown.bar.advance(task, n))
