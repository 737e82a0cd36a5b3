"""The contract of a probe. A probe is a folder of diag/probes, or an object of one's own that is registered.

settings.py   Settings: what a user can choose; its docstring is the command's help
measure.py    what is measured: of every stack (`plan`, `run`), or of the whole model (`open`)
columns.py    TABLES: every column of every table
claims.py     what the tables say
figures.py    what they show
method.md     how it is measured
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from diag.declare.setting import Settings
from tdmoe.problems import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diag.declare.target import Target

PACKAGE = "diag.probes"
JOBS = {"compress": "diag.compression.compressing", "frontier": "diag.compression.frontier"}  # of stacks; no probes
NEEDED = ("NAME", "VERSION", "TABLES", "plan", "run")  # of a probe of stacks


@dataclass(frozen=True)
class StackSettings(Settings):
    """Base of the settings of what is done to every stack. Its `memory` bounds the weights that are held at once."""

    def stacks(self, projections: list[str]) -> list[str]:
        """Stacks of a layer that its jobs are about, of the projections that were asked for."""
        return projections

    def of(self, key: str) -> dict[str, Any]:
        """Settings of that job alone; part of its result's identity."""
        return {}

    def settled(self, memory: int) -> Self:
        """The settings as its jobs get them."""
        return replace(self, memory=memory)  # type: ignore[call-arg]


class StackProbe(Protocol):
    """Work on every stack: a module, or a class with static methods. VERSION is raised when results change.

    A job may fill several TABLES; its rows have exactly a table's columns, in order.
    """

    NAME: str
    VERSION: int
    TABLES: Mapping[str, tuple[str, ...]]

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


class Work(Protocol):
    """A checked plan of a probe, on its model. Use as a context manager."""

    @property
    def folder(self) -> Any:
        """The RunFolder of its results."""

    def describe(self) -> None:
        """Say on stdout what is to be done."""

    def notes(self) -> list[str]:
        """Oddities that do not stop a run."""

    def carry_out(self, *, quiet: bool) -> None:
        """Do what is pending, under bars on stderr."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True)
class Within:
    """Knowledge that a part has from the experiment that it belongs to."""

    collected: Any  # settings of the calibration that all parts share
    rerun: Any  # of all parts together
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Probe:
    """A folder of diag/probes; what is in it is imported when it is asked for."""

    name: str

    @property
    def settings(self) -> type[Settings]:
        """The class of its settings."""
        return cast(type[Settings], self._module("settings").Settings)

    @property
    def tables(self) -> Mapping[str, Any]:
        return cast(Mapping[str, Any], self._module("columns").TABLES)

    def open(self, target: Target, settings: Settings, within: Within | None = None) -> Work:
        """Check everything that can be before weights are read; InputError where something does not fit."""
        return cast(Work, self._module("work").open(target, settings, within))

    def _module(self, name: str) -> Any:
        return import_module(f"{PACKAGE}.{self.name}.{name}")


@cache
def probes() -> Mapping[str, Probe]:
    """Every probe by its name, in the order in which an experiment runs them."""
    found = [Probe(each.name) for each in iter_modules(import_module(PACKAGE).__path__) if each.ispkg]
    return {probe.name: probe for probe in sorted(found, key=lambda probe: probe.settings.ORDER)}


_REGISTERED: dict[str, StackProbe] = {}


def register(added: StackProbe) -> None:
    """Offer a probe of your own to `Session`, until this process ends; it replaces an earlier one so named.

    It is a module, or a class with static methods. InputError where it lacks something, or where its name is none for a
    file or is a probe of this package.
    """
    if missing := [what for what in NEEDED if not hasattr(added, what)]:
        raise InputError(f"register: the probe has no {missing[0]}; it needs {', '.join(NEEDED)}")
    if not isinstance(added.NAME, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", added.NAME):
        raise InputError(f"register: NAME is {added.NAME!r}; a lower-case word of letters, digits and - is needed")
    if added.NAME in probes() or added.NAME in JOBS:
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


def stack_probe(name: str) -> StackProbe:
    """The probe of every stack under that name."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    return cast(StackProbe, import_module(JOBS.get(name, f"{PACKAGE}.{name}.measure")))
