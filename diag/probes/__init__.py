"""What is done to every stack. One file each, one row here; a module is imported when its command runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PROBES = {
    "spectra": "diag.probes.spectra",
    "experts": "diag.probes.experts",
    "compress": "diag.compressing",
    "frontier": "diag.frontier",
}


class Settings:
    """Base of a probe's settings, a frozen dataclass of everything that changes its results.

    `memory` bounds the weights that are held at once.
    """

    memory: int

    def stacks(self, projections: list[str]) -> list[str]:
        """What a layer's jobs are about, of the projections that were asked for."""
        return projections

    def of(self, key: str) -> dict[str, Any]:
        """What is settled for that job alone; part of its result's identity."""
        return {}


class Probe(Protocol):
    """What a probe's module offers. VERSION is raised when results change.

    A job may fill several TABLES; its rows have exactly a table's columns, in order.
    """

    NAME: str
    VERSION: int
    TABLES: Mapping[str, tuple[str, ...]]
    UNIDENTIFIED: tuple[str, ...]  # settings that a result may differ in and be used again

    def plan(self, stack: Any, settings: Any) -> Any:
        """The job's BlockPlan; InputError where settings do not fit the stack. Called for every job before any work."""

    def run(
        self,
        stack: Any,
        settings: Any,
        *,
        device: str,
        seed: int,
        model: str,
        on_read: Callable[[int], None] | None = None,
    ) -> tuple[Mapping[str, list[dict[str, Any]]], Mapping[str, NDArray[np.float64]]]:
        """({table: rows}, arrays)."""


def probe(name: str) -> Probe:
    """The probe of that name."""
    return cast(Probe, import_module(PROBES[name]))
