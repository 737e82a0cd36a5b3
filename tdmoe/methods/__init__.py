"""How a stack is compressed. One file a method, one row here; a module is imported when its method is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from tdmoe import spec
from tdmoe.problems import InputError
from tdmoe.rank_search import Frontier
from tdmoe.ranks import Ranks, Shape
from tdmoe.source import WeightSource

METHODS = {"tdmoe": "tdmoe.methods.tdmoe"}


@dataclass(frozen=True)
class StackStatistics:
    """Second moments of a stack's inputs: of all routed tokens, and of one expert's own where those were collected.

    `D_OO` is that of the loss' gradient at its outputs, where collected.
    """

    C_II: Tensor
    own: Callable[[int], Tensor] | None = None
    D_OO: Tensor | None = None


@dataclass(frozen=True)
class Needs:
    """What of a calibration a method's options use: any of it, gradients at outputs, each expert's own inputs."""

    statistics: bool = False
    outputs: bool = False
    own: bool = False


@dataclass(frozen=True)
class Allotment:
    """A stack's share of the budget: the fraction of its parameters to remove, and ranks where these are given too."""

    ratio: float
    ranks: Ranks | None = None


class Factored(Protocol):
    """What a method makes of a stack."""

    @property
    def parameters(self) -> int:
        """Stored numbers."""

    def experts(self, start: int, stop: int) -> Tensor:
        """W^_BOI of experts start..stop-1."""

    def to(self, dtype: torch.dtype) -> Factored:
        """With its factors rounded to `dtype`."""

    def tensors(self) -> dict[str, Tensor]:
        """Factors by the names of their module's parameters (tdmoe/modules.py)."""

    def spec(self) -> dict[str, Any]:
        """What tdmoe.modules.linear makes the module from."""


class Method(Protocol):
    """What a method's module offers."""

    NAME: str
    DISPLAY: str
    Options: type[Any]

    def needs(self, options: Any) -> Needs:
        """What has to be collected for them."""

    def check(self, shape: Shape, options: Any, ratio: float) -> None:
        """InputError where options, ratio and stack do not fit. Called for every stack before any work."""

    def compress(
        self,
        reader: WeightSource,
        options: Any,
        allotment: Allotment,
        statistics: StackStatistics | None,
        *,
        device: str,
    ) -> Factored: ...

    def has_table(self, options: Any) -> bool:
        """Whether a point of the frontier says which ranks are best, and not only how much storage."""

    def frontier_options(self, options: Any) -> Any:
        """With what changes nothing about the frontier at its default; InputError where the method has none."""

    def frontier(
        self, reader: WeightSource, options: Any, statistics: StackStatistics | None, *, device: str
    ) -> Frontier:
        """Storage against error of the stack."""


def method(name: str) -> Method:
    """The method of that name; InputError lists the known ones."""
    if name not in METHODS:
        raise InputError(f"--method {name}: is no method; give one of {', '.join(METHODS)}")
    return cast(Method, import_module(METHODS[name]))


def parse(text: str, flags: Mapping[str, str | None] | None = None) -> tuple[Method, Any]:
    """Method and options of a spec, and of options of the same names given as `flags` beside it (None: not given)."""
    name, values = spec.split(text)
    found = method(name)
    for key, value in (flags or {}).items():
        if value is None:
            continue
        flag = f"--{key.replace('_', '-')} {value}"
        if values.setdefault(key, value) != value:
            raise InputError(f"{flag}: --method says {key}={values[key]}; give one of them")
        if key not in {field.name for field in fields(found.Options)}:
            raise InputError(f"{flag}: {name} has no such option; leave it out")
    return found, spec.options(found.Options, values, f"--method {text}")


def restore(specification: dict[str, Any], tensors: dict[str, Tensor]) -> Factored:
    """What `tensors()` and `spec()` of a Factored were taken from."""
    from tdmoe.tucker import TuckerExperts

    assert specification["kind"] == "tucker"
    return TuckerExperts(tensors["core"], *(tensors.get(name) for name in ("expert", "output", "input")))
