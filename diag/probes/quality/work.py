"""`quality` as a command: from settings to a checked plan, carried out under bars."""

from __future__ import annotations

from pathlib import Path

from diag.compression.factors import Unmade, recipes
from diag.compression.model_work import ModelWork, collected
from diag.declare.probe import Within
from diag.declare.target import Target
from diag.probes.quality.plan import Plan, Request
from diag.probes.quality.run import Run
from diag.probes.quality.settings import Settings
from diag.probes.quality.zero_shot import DEFAULT
from diag.runs.progress import COUNTED, bars


class Work(ModelWork, Plan):
    """A checked plan."""

    def carry_out(self, *, quiet: bool) -> None:
        """Do what is pending, under a bar of windows and documents, of all models together."""
        told, make, unmade = self.taken_up(), self.make(quiet=quiet), {}
        try:
            made = make(self.request.recipes, self.source) if self.due_variants else []
        except Unmade as error:
            made, unmade = error.made, dict(error.failed)
        with bars(*COUNTED, quiet=quiet) as shown:
            for note in told:
                shown.note(note)
            task = shown.bar.add_task(f"{self.name} quality", total=self.steps)
            Run(self, made, unmade, lambda count: shown.bar.advance(task, count)).execute()


def open(target: Target, settings: Settings, within: Within | None) -> Work:
    """The checked plan."""
    data = settings.task_data
    tasks = settings.tasks if settings.tasks is not None else () if data is None else DEFAULT
    request = Request(
        **target.run,
        texts=settings.texts,
        windows=settings.windows,
        window=settings.window,
        stride=settings.stride,
        join=settings.join,
        bos=settings.bos,
        tasks=tasks,
        task_data=None if data in (None, "hub") else Path(data),
        limit=settings.limit,
        recipes=recipes(settings.methods or (), settings.ratios or ()),
        schedule=settings.schedule,
        projections=target.projections,
        compressed=[Path(path) for path in settings.compressed],
        calibration=collected(settings, within),
        dtype=settings.dtype,
        memory=target.memory_bytes,
    )
    work = Work(request)
    work.within = within
    return work
