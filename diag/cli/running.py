"""Common parts of commands: run a checked plan, say where things are saved, write figures and page, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from diag.cli import streams

if TYPE_CHECKING:
    from diag.runs.finished import Found
    from diag.runs.folder import RunFolder
    from reports.drawing import Figure
    from reports.making import Job
    from reports.run import Run


def say_notes(notes: Iterable[str], *, quiet: bool) -> None:
    """Say on stderr, for --dry-run, what a run would begin with."""
    from reports.formats import visible

    for note in () if quiet else notes:
        typer.echo(visible(note), err=True)


def table_paths(folder: RunFolder[Any], tables: Iterable[str]) -> list[str]:
    """Paths of the tables, for stdout."""
    return [str(folder.path / "tables" / f"{table}.csv") for table in tables]


def command_line() -> str:
    """The command line as it was typed."""
    return " ".join(["tdmoe-diag", *sys.argv[1:]])


def report_failures(failed: list[tuple[str, str]]) -> NoReturn:
    """Name what failed, each reason once, and exit with 1 if anything did."""
    from diag.runs.folder import by_reason
    from reports.formats import visible

    streams.files_saved.append("the run itself is saved")
    for keys, message in by_reason(failed):
        typer.echo(f"failed: {keys}: {visible(message)}", err=True)
    raise typer.Exit(1 if failed else 0)


class Saved:
    """Place of what is finished, for the message when a run ends early."""

    path: Path | None = None


@contextmanager
def saved_whatever_happens() -> Iterator[Saved]:
    """Ctrl-C and a run folder that cannot be written end a run with what is finished saved; raises the exit code."""
    from tdmoe.problems import WeightError

    saved = Saved()
    try:
        yield saved
    except WeightError as error:  # outside of a job
        typer.echo(f"tdmoe-diag: {error}; finished jobs are saved, the same command goes on from there", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        done = "" if saved.path is None else " finished jobs are saved,"
        typer.echo(f"interrupted;{done} the same command goes on where this one stopped", err=True)
        streams.interruption_said.append(True)
        raise typer.Exit(130) from None
    except OSError as error:  # of the run folder: everything else is caught where it is read
        if saved.path is None:  # nothing has run
            raise
        reason = f"{error.filename or saved.path}: {error.strerror or error}"
        typer.echo(f"tdmoe-diag: {reason}; finished jobs are saved, the same command goes on from there", err=True)
        raise typer.Exit(1) from error


class Pages:
    """Pages of runs, each in its own folder when it is added; and one of all of them."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._figures: list[list[Figure]] = []

    def add(self, folder: RunFolder[Any], tables: Iterable[str]) -> Path:
        """Figures and page of a finished run, into its folder."""
        from diag.pages import figures_for

        run = folder.data(tables)
        name_methods([run])
        figures = figures_for(run)
        page = _written(folder.path, [run], [figures])
        self._runs.append(run)
        self._figures.append(figures)
        return page

    def together(self, out: Path, missing: Sequence[Job] = ()) -> Path | None:
        """Page of all runs, in `out`, with the jobs that left no run; None where there is none."""
        if not self._runs:
            return None
        write_verdict(self._runs, out)
        return _written(out, self._runs, self._figures, missing)

    @property
    def headlines(self) -> list[str]:
        """The verdict in at most five sentences; nothing of a single run."""
        from diag.pages import headlines

        return headlines(self._runs) if len(self._runs) > 1 else []


def name_methods(runs: Iterable[Run]) -> None:
    """Tell pages what methods are called, where runs have any: torch comes with their modules."""
    from reports import theme

    if any("method" in row for run in runs for rows in run["tables"].values() for row in rows[:1]):
        from tdmoe import methods

        theme.name_methods(methods.described())


def write_page(folder: RunFolder[Any], tables: Iterable[str]) -> Path:
    """Figures and the self-contained page, from the finished run."""
    return Pages().add(folder, tables)


def _written(out: Path, runs: Sequence[Run], figures: Sequence[Sequence[Figure]], missing: Sequence[Job] = ()) -> Path:
    """Figures and page of these runs in a folder."""
    from diag.pages import named_apart, opening, render
    from diag.runs.files import write_text
    from tdmoe.checkpoint.atomic import write_bytes

    opened = opening(runs) if len(runs) > 1 else None
    blocks = () if opened is None else opened.blocks
    drawn = [*named_apart(runs, figures), *(block.figure for block in blocks if block.figure is not None)]
    for figure in drawn:
        write_bytes(out / "figures" / f"{figure.name}.svg", figure.svg)
    for path in (out / "figures").glob("*.svg"):
        if path.stem not in {figure.name for figure in drawn}:
            path.unlink()
    page = out / "report.html"
    write_text(page, render(runs, figures, missing, opened))
    return page


def write_verdict(runs: Sequence[Run], out: Path) -> None:
    """verdict.json and tables/verdict.csv of several runs: their claims as data."""
    if len(runs) < 2:
        return
    from diag.pages import verdict_of
    from diag.runs.files import write_json, write_text
    from diag.runs.tables import text_of
    from diag.verdict import SCHEMA, TABLES, tabled

    found = verdict_of(runs)
    write_json(out / "verdict.json", {"schema": SCHEMA, "claims": found})
    write_text(out / "tables" / "verdict.csv", text_of(TABLES["verdict"], tabled(found)))


def write_report(found: Found, page: Path) -> None:
    """The page of runs that were read back from disk, of several their verdict too; InputError where one has none.

    A result may be damaged in ways that only show when it is drawn: a run that cannot be shown alone is named.
    """
    from diag.pages import ORDER, figures_of, render
    from diag.runs.files import write_text
    from tdmoe.problems import InputError

    for run in found.runs:
        if run["command"] not in ORDER:
            known = ", ".join(sorted(ORDER))
            raise InputError(f"{run['model']}: a run of '{run['command']}' has no page; there is one for: {known}")
    name_methods(found.runs)
    try:
        text = render(found.runs, figures_of(found.runs), found.missing)
    except Exception as error:
        wrong = [
            f"{folder}: {reason}"
            for folder, run in zip(found.folders, found.runs, strict=True)
            if (reason := _unshowable(run))
        ]
        if not wrong:
            raise
        raise InputError("\n".join(wrong)) from error
    write_verdict(found.runs, page.parent)
    write_text(page, text)


def _unshowable(run: Run) -> str:
    """Why a run has no page by itself; nothing where it has one."""
    from diag.pages import figures_of, render

    try:
        render([run], figures_of([run]))
    except Exception as error:
        remedy = "its results are damaged, or of another version; run its command again with --fresh, or leave it out"
        return f"cannot be shown ({type(error).__name__}: {error}); {remedy}"
    return ""
