"""`drift` as a command: from settings to a checked plan, carried out under bars."""

from __future__ import annotations

from pathlib import Path

from diag.compression.factors import recipes
from diag.compression.model_work import ModelWork, collected
from diag.declare import parse
from diag.declare.probe import Within
from diag.declare.target import Target
from diag.probes.drift.measure import SCOPES
from diag.probes.drift.run import Drift, Request
from diag.probes.drift.settings import Settings
from diag.runs.progress import COUNTED, bars


class Work(ModelWork, Drift):
    """A checked plan."""

    def carry_out(self, *, quiet: bool) -> None:
        """Do what is pending, under a bar of layers of windows, which all variants share."""
        told = self.taken_up()
        with bars(*COUNTED, quiet=quiet) as shown:
            for note in told:
                shown.note(note)
            task = shown.bar.add_task(f"{self.name} drift", total=self.steps)
            self.execute(self.make(shown, quiet=quiet), lambda count: shown.bar.advance(task, count))


def open(target: Target, settings: Settings, within: Within | None) -> Work:
    """The checked plan."""
    request = Request(
        **target.run,
        text=settings.text,
        tokens=settings.tokens,
        window=settings.window,
        recipes=recipes(settings.methods or (), settings.ratios or ()),
        scopes=parse.choices("scope", settings.scope, SCOPES),
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
