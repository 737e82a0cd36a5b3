"""How a stack is compressed. One file a method, one row here; a module is imported when its method is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from tdmoe import spec
from tdmoe.blocks import BlockReader
from tdmoe.problems import InputError
from tdmoe.ranks import Shape

METHODS = {"tdmoe": "tdmoe.methods.tdmoe"}


@dataclass(frozen=True)
class StackStatistics:
    """Second moments of a stack's inputs: of all routed tokens, and of one expert's own where those were collected."""

    C_II: Tensor
    own: Callable[[int], Tensor] | None = None


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

    def check(self, shape: Shape, options: Any, ratio: float, *, calibrated: bool) -> None:
        """InputError where options, ratio and stack do not fit. Called for every stack before any work."""

    def compress(
        self,
        reader: BlockReader,
        options: Any,
        ratio: float,
        statistics: StackStatistics | None,
        *,
        device: str,
    ) -> Factored: ...


def method(name: str) -> Method:
    """The method of that name; InputError lists the known ones."""
    if name not in METHODS:
        raise InputError(f"--method {name}: is no method; give one of {', '.join(METHODS)}")
    return cast(Method, import_module(METHODS[name]))


def parse(text: str) -> tuple[Method, Any]:
    """Method and options of a spec."""
    name, values = spec.split(text)
    found = method(name)
    return found, spec.options(found.Options, values, f"--method {text}")


def restore(specification: dict[str, Any], tensors: dict[str, Tensor]) -> Factored:
    """What `tensors()` and `spec()` of a Factored were taken from."""
    from tdmoe.tucker import TuckerExperts

    assert specification["kind"] == "tucker"
    return TuckerExperts(tensors["core"], *(tensors.get(name) for name in ("expert", "output", "input")))
