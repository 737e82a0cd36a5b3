"""`superweights` as a command: from settings to a checked plan, carried out under bars."""

from __future__ import annotations

from rich.progress import MofNCompleteColumn, TextColumn, TimeElapsedColumn

from diag.compression.model_work import ModelWork
from diag.declare.probe import Within
from diag.declare.target import Target
from diag.probes.superweights import terminal
from diag.probes.superweights.run import Request, SuperWeights
from diag.probes.superweights.settings import Settings
from diag.runs.progress import bars
from diag.runs.terminal import print_lines


class Work(ModelWork, SuperWeights):
    """A checked plan."""

    def carry_out(self, *, quiet: bool) -> None:
        """The discovery, then what it leads to, under a bar of windows."""
        columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
        with bars(*columns, quiet=quiet) as shown:
            task = shown.bar.add_task(f"{self.opened.name} windows", total=None)
            for line in self.discover(lambda count: shown.bar.advance(task, count), self.told):
                shown.note(line)
        if self.folder.failures():
            self.write_tables()
            return
        self.make_factors(self.make(quiet=quiet))
        with bars(*columns, quiet=quiet) as shown:
            task = shown.bar.add_task(f"{self.opened.name} windows", total=None)
            state = self.folder.outcomes
            self.execute(lambda key: shown.note(f"{key}  {state[key].state}"), lambda n: shown.bar.advance(task, n))

    def show(self) -> None:
        """Say on stdout what was found."""
        print_lines(terminal.told(self))


def open(target: Target, settings: Settings, within: Within | None) -> Work:
    """The checked plan."""
    work = Work(Request(**target.run, settings=settings, memory=target.memory_bytes))
    work.within = within
    return work
