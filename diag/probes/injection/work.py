"""`injection` as a command: from settings to a checked plan, carried out under bars."""

from __future__ import annotations

from diag.compression import calibrating
from diag.compression.execution import calibrate
from diag.compression.model_work import ModelWork, collected
from diag.declare.forms import SIZES
from diag.declare.probe import Within
from diag.declare.setting import declared
from diag.declare.target import Target
from diag.probes.injection import terminal
from diag.probes.injection.injecting import Injection, Request
from diag.probes.injection.settings import Settings
from diag.runs.progress import COUNTED, bars
from tdmoe.problems import InputError


class Work(ModelWork, Injection):
    """A checked plan; it makes no factors that others could share."""

    def describe(self) -> None:
        """--dry-run: the calibration, and what is injected where."""
        terminal.describe(self)

    def carry_out(self, *, quiet: bool) -> None:
        """Calibrate where that is asked for, then measure under a bar of parts."""
        notes: list[str] = []
        if self.calibration is not None:
            calibrate(self.calibration, quiet=quiet)  # what failed of it fails the sites that need it
            notes = [f"calibration: {note}" for note in self.calibration.notes()]
        told = self.taken_up(notes)
        with bars(*COUNTED, quiet=quiet) as shown:
            for note in told:
                shown.note(note)
            pending = sum(job in self.parts for job in self.folder.pending())
            task = shown.bar.add_task(f"{self.name} injection", total=pending)
            self.execute(lambda job: shown.bar.advance(task))


def open(target: Target, settings: Settings, within: Within | None) -> Work:
    """The checked plan."""
    given = collected(settings, within)
    if within is None:
        given = calibrating.Settings(given.text, given.tokens, None, "count", settings.per_expert)  # type: ignore[arg-type]
    elif settings.statistics is not None:
        raise AssertionError("a part calibrates with the others")
    if settings.statistics is not None:
        _refuse_calibration(settings)
    request = Request(
        **target.run,
        calibration=given if settings.statistics is None else None,
        statistics=settings.statistics,
        projections=target.projections,
        apart=settings.apart,
        scopes=settings.scopes,
        alone=settings.alone,
        families=settings.families,
        methods=",".join(settings.methods),
        ratio=f"{settings.ratio:g}",
        designs=settings.designs,
        sizes=SIZES.write(settings.sizes),
        seeds=settings.seeds,
        text=settings.text,
        tokens=settings.tokens,
        window=settings.window,
        memory=target.memory_bytes,
    )
    work = Work(request)
    work.within = within
    return work


def _refuse_calibration(settings: Settings) -> None:
    """InputError where statistics are given, and how to collect some."""
    names = ("calibration_text", "calibration_tokens", "per_expert")
    if any(getattr(settings, name) != declared(Settings)[name].default for name in names):
        raise InputError(
            "statistics",
            settings.statistics,
            "were collected already",
            "leave out --calibration-text, --calibration-tokens and --per-expert, or give these without --statistics",
        )
