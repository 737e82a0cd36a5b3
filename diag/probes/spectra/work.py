"""`spectra` as a command: from settings to a checked plan, carried out under bars."""

from __future__ import annotations

from diag.declare.probe import Within
from diag.declare.target import Target
from diag.jobs.stack_work import StackWork
from diag.probes.spectra.settings import Settings


def open(target: Target, settings: Settings, within: Within | None) -> StackWork:
    """The checked plan."""
    return StackWork("spectra", target, settings, within)
