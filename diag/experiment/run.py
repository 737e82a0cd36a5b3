"""An experiment carried out part by part; what fails leaves the others alone. And the tables of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from diag.compression.execution import execute_calibration
from diag.experiment import NAME, toml
from diag.experiment.plan import CALIBRATION, Comparison, Step
from diag.jobs.work import said
from diag.runs import tables
from diag.runs.files import write_text
from diag.runs.folder import Part, RunFolder, by_reason
from diag.runs.progress import display
from reports.formats import counted

OnPart = Callable[[RunFolder[Part], Sequence[str]], None]
SHOWN = 3  # reasons why jobs of a part failed that its message names


def execute(plan: Comparison, on_part: OnPart) -> None:
    """Everything, in order, and the tables. `on_part` is told of each part's folder and tables when it is finished.

    A part that is done is opened, found done, and told all the same.
    """
    folder = plan.folder
    told = plan.take_up()
    write_text(folder.path / "experiment.toml", toml.written(plan.experiment))
    statistics: list[Path] = []
    work: dict[Part, Callable[[], str]] = {}
    if plan.calibrated:
        work[Part(NAME, CALIBRATION)] = lambda: _calibrate(plan, statistics)
    for step in plan.steps:
        work[step.part] = lambda step=step: _do(plan, step, statistics, on_part)  # type: ignore[misc]
    with display(f"{plan.name} {NAME}", len(work), quiet=plan.request.quiet) as whole:
        for note in told:
            whole.note(note)
        for part, do in work.items():
            with whole.part(part.name):
                _attempt(folder, part, do)
            outcome = folder.outcomes[part.key]
            took = "" if outcome.seconds is None else f" in {outcome.seconds:.1f} s"
            whole.note(f"{part.name}  {outcome.state}{took}{': ' * bool(outcome.message)}{outcome.message or ''}")
    _write_tables(folder.path, [folder.path / "parts" / step.name for step in plan.steps])


def _attempt(folder: RunFolder[Part], part: Part, work: Callable[[], str]) -> None:
    """`work` gives what failed of it, in words, or nothing."""
    started = time.perf_counter()
    try:
        failed = work()
    except Exception as error:
        folder.fail(part, *said(part.key, error))
        return
    if failed:
        folder.fail(part, failed, "")
    else:
        folder.finish(part, {}, {}, time.perf_counter() - started)


def _calibrate(plan: Comparison, statistics: list[Path]) -> str:
    with plan.calibration() as calibration:
        execute_calibration(calibration, calibration.opened(fresh=plan.request.fresh), quiet=plan.request.quiet)
        if not (failed := calibration.folder.failures()):
            statistics.append(calibration.folder.path.absolute())
        return _failed(failed)


def _do(plan: Comparison, step: Step, statistics: Sequence[Path], on_part: OnPart) -> str:
    if step.reads_statistics and not statistics:
        return "the calibration that it needs failed"
    with plan.opened(step, statistics[0] if statistics else None) as part:
        part.carry_out(quiet=plan.request.quiet)
        on_part(part.folder, tuple(step.probe.tables))
        return _failed(part.folder.failures())


def _failed(failures: Sequence[tuple[str, str]]) -> str:
    if not failures:
        return ""
    reasons = by_reason(failures)
    named = "; ".join(f"{keys}: {message}" for keys, message in reasons[:SHOWN])
    more = f"; and {counted(len(reasons) - SHOWN, 'more reason')}" if len(reasons) > SHOWN else ""
    return f"{len(failures)} of its jobs failed: {named}{more}"


def _write_tables(out: Path, parts: Iterable[Path]) -> None:
    """All tables of the parts; where two have one of the same name, the rows of both under the columns of both."""
    found: dict[str, list[Path]] = {}
    for part in parts:
        for path in sorted((part / "tables").glob("*.csv")):
            found.setdefault(path.name, []).append(path)
    for name, paths in found.items():
        write_text(out / "tables" / name, tables.union(paths))
