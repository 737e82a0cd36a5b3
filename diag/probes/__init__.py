"""What is done to every stack. One file each, one row here; a module is imported when its command runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

from tdmoe.problems import InputError

PROBES = {
    "spectra": "diag.probes.spectra.measure",
    "experts": "diag.probes.experts.measure",
    "operator": "diag.probes.operator.measure",
    "compress": "diag.compression.compressing",
    "frontier": "diag.compression.frontier",
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


_REGISTERED: dict[str, Probe] = {}


def register(added: Probe) -> None:
    """Offer a probe of your own to `Session`, until this process ends; it replaces an earlier one so named.

    It is a module, or a class with static methods. InputError where it lacks something, or where its name is none for a
    file or is a probe of this package.
    """
    needed = ("NAME", "VERSION", "TABLES", "UNIDENTIFIED", "plan", "run")
    if missing := [what for what in needed if not hasattr(added, what)]:
        raise InputError(f"register: the probe has no {missing[0]}; it needs {', '.join(needed)}")
    if not isinstance(added.NAME, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", added.NAME):
        raise InputError(f"register: NAME is {added.NAME!r}; a lower-case word of letters, digits and - is needed")
    if added.NAME in PROBES:
        raise InputError(f"register: NAME is {added.NAME!r}, which is a probe of this package; give another one")
    for table, columns in added.TABLES.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", table):
            raise InputError(f"register: TABLES has {table!r}; a lower-case word is needed, which names a file")
        if "status" not in columns:
            raise InputError(
                f"register: table {table} of {added.NAME} has no column status; a failed job says so there"
            )
    _REGISTERED[added.NAME] = added


def registered() -> tuple[str, ...]:
    """Names of the probes that this process alone knows."""
    return tuple(_REGISTERED)


def probe(name: str) -> Probe:
    """The probe of that name."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    return cast(Probe, import_module(PROBES[name]))
