"""A probe of the whole model as a command: what the plans of such probes have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from diag.compression.calibrating import Settings as CalibrationSettings
from diag.compression.execution import make_factors
from diag.compression.rerun import Afresh
from diag.declare.model_settings import Calibrated
from diag.declare.probe import Within
from diag.runs.progress import Shown
from diag.runs.terminal import print_lines

if TYPE_CHECKING:
    from diag.compression.execution import Make


class ModelWork:
    """Mixed into a plan that is a context manager, with a folder, a request, `described` and `notes`."""

    folder: Any
    request: Any
    described: Callable[[], list[str]]
    notes: Callable[[], list[str]]
    within: Within | None = None

    def describe(self) -> None:
        """--dry-run, on stdout."""
        print_lines(self.described())

    @property
    def told(self) -> list[str]:
        """Notes of the experiment that this is a part of."""
        return [] if self.within is None else list(self.within.notes)

    def taken_up(self, more: Iterable[str] = ()) -> list[str]:
        """The run folder, opened; notes for a person."""
        found: list[str] = self.folder.open(fresh=self.request.fresh, notes=[*self.told, *more, *self.notes()])
        return found

    def make(self, shown: Shown | None = None, *, quiet: bool) -> Make:
        """A maker of factors, whose notes are kept with the results; bars `shown` stop while it has its own."""
        rerun = Afresh(self.request.fresh) if self.within is None else self.within.rerun
        made: Make = lambda recipes, source: make_factors(  # noqa: E731
            recipes, source, quiet=quiet, afresh=rerun, on_notes=lambda notes: self.folder.note(notes)
        )
        return made if shown is None else _alone(shown, made)


def collected(settings: Calibrated, within: Within | None) -> CalibrationSettings:
    """Settings that methods are calibrated with: the experiment's calibration, or one of the command's own."""
    if within is not None:
        found: CalibrationSettings = within.collected
        return found
    return CalibrationSettings(settings.calibration_text, settings.calibration_tokens)


def _alone(shown: Shown, make: Make) -> Make:
    """A maker with bars of its own: while it is at work, no others are shown."""

    def made(recipes: Any, source: Any) -> Any:
        if not shown.alone:
            return make(recipes, source)
        shown.bar.stop()
        found = make(recipes, source)
        shown.bar.start()
        return found

    return made
