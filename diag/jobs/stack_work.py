"""A probe of stacks as a command: its plan on stdout, its jobs under a bar on stderr."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from diag.declare.probe import StackSettings, Within
from diag.declare.target import Target
from diag.jobs.session import Request, Session
from diag.runs.folder import Job, Outcome
from diag.runs.progress import bars
from diag.runs.terminal import size, stdout
from reports.formats import counted, visible


class StackWork(Session):
    """A checked plan of a probe of stacks."""

    def __init__(
        self,
        name: str,
        target: Target,
        settings: StackSettings,
        within: Within | None,
    ) -> None:
        """InputError where model, layers, settings and stacks do not fit."""
        self._within = within
        names = ("layers", "projections", "device", "out", "out_given", "seed", "engine", "fresh", "revision", "remote")
        where = {each: getattr(target, each) for each in (*names, "command_line")}
        super().__init__(Request(name, target.model, settings.settled(target.memory_bytes), **where))

    def describe(self) -> None:
        """--dry-run: every job with its shape, bytes to read and peak memory."""
        print_plan(self)

    def carry_out(self, *, quiet: bool) -> None:
        """Run what is pending."""
        before = () if self._within is None else self._within.notes
        execute(self, self.folder.open(fresh=self.request.fresh, notes=[*before, *self.notes()]), quiet=quiet)


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


def print_plan(session: Session) -> None:
    """--dry-run: every job with its shape, bytes to read and peak memory."""
    table = Table()
    for heading in ("job", "experts x output x input", "stored as", "read", "passes", "peak memory"):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    for job, stack in session.stacks.items():
        plan = session.plans[job]
        shape, dtype = " x ".join(map(str, stack.shape)), stack.encoding.name
        table.add_row(
            job.key, shape, dtype, size(plan.reads * stack.bytes_read), str(plan.reads), size(plan.peak_bytes)
        )
    print(f"{session.model.name}: {session.request.command}, run folder {session.folder.path}")
    stdout().print(table)
    total = sum(session.plans[job].reads * stack.bytes_read for job, stack in session.stacks.items())
    peak = max(plan.peak_bytes for plan in session.plans.values())
    stdout().print(
        f"{counted(len(session.stacks), 'job')}, {size(total)} to read, {size(peak)} at the peak of a job, "
        f"on top of Python and torch;{_download_note(session)} nothing was run"
    )


def _download_note(session: Session) -> str:
    missing = session.missing()
    return f" {counted(len(missing), 'shard')} to download first, {size(sum(missing.values()))};" if missing else ""
