"""`experts` as a command: from settings to a checked plan, carried out under bars."""

from __future__ import annotations

from diag.declare.probe import Within
from diag.declare.target import Target
from diag.jobs.stack_work import StackWork
from diag.probes.experts.settings import Settings
from diag.probes.experts.terminal import show


def open(target: Target, settings: Settings, within: Within | None) -> StackWork:
    """The checked plan."""
    return StackWork("experts", target, settings, within, show)
