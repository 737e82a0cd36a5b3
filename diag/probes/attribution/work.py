"""`attribution` as a command: from settings to a checked plan, carried out under bars."""

from __future__ import annotations

from diag.compression.model_work import ModelWork, collected
from diag.declare.probe import Within
from diag.declare.target import Target
from diag.probes.attribution.plan import Plan, Request
from diag.probes.attribution.run import Run
from diag.probes.attribution.settings import Settings
from diag.runs.progress import COUNTED, bars


class Work(ModelWork, Plan):
    """A checked plan."""

    def carry_out(self, *, quiet: bool) -> None:
        """Do what is pending, under a bar of layers of windows, which all models share."""
        told = self.taken_up()
        with bars(*COUNTED, quiet=quiet) as shown:
            for note in told:
                shown.note(note)
            task = shown.bar.add_task(f"{self.name} attribution", total=len(self.windows_WT) * self.arch.depth)
            Run(self, self.make(shown, quiet=quiet), lambda count: shown.bar.advance(task, count)).execute()


def open(target: Target, settings: Settings, within: Within | None) -> Work:
    """The checked plan."""
    assert settings.ratio is not None
    request = Request(
        **target.run,
        ratio=settings.ratio,
        projections=target.projections,
        ladder=settings.ladder,
        shapley=settings.shapley,
        mobe_steps=settings.mobe_steps,
        fit_steps=settings.fit_steps or 0,
        text=settings.text,
        windows=settings.windows,
        window=settings.window,
        calibration=collected(settings, within),
        dtype=settings.dtype,
        memory=target.memory_bytes,
    )
    work = Work(request)
    work.within = within
    return work
