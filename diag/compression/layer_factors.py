"""Factors of the layer that is walked, and of no other: read when a walk comes to it, freed when it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self, TypeVar

from torch import nn

from diag.compression.factors import Factors
from diag.lockstep.variant import Recipe
from diag.lockstep.walk import Replaced, Walk

Key = TypeVar("Key")


class LayerFactors:
    """The factors of a layer, while it is walked; nothing of other layers is in memory. Use as a context manager."""

    def __init__(self, walk: Walk, made: Mapping[Recipe, Factors]) -> None:
        self.walk, self.made = walk, made
        self._modules: dict[Recipe, nn.Module] = {}
        self._dense = walk.resident
        walk.resident = self._resident

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.walk.resident = self._dense

    def of(self, recipe: Recipe, layers: Sequence[int]) -> Replaced:
        """Modules that a walk puts in; to be asked for a layer while that one is walked."""
        return _LayerModules(self._modules, recipe, layers)

    def _resident(self, layer: int) -> AbstractContextManager[None]:
        return self._filled(layer) if layer in self.walk.experts else nullcontext()

    @contextmanager
    def _filled(self, layer: int) -> Iterator[None]:
        with self._dense(layer):
            for recipe, factors in self.made.items():
                if layer in factors.stacks:
                    self._modules[recipe] = factors.module(self.walk.experts[layer], layer)
            try:
                yield
            finally:
                self._modules.clear()


class _LayerModules(dict[int, nn.Module]):
    """{layer: module} of a variant, whose modules come and go."""

    def __init__(self, modules: Mapping[Recipe, nn.Module], recipe: Recipe, layers: Sequence[int]) -> None:
        super().__init__()
        self._modules, self._recipe, self._layers = modules, recipe, frozenset(layers)

    def get(self, layer: int, default: Any = None) -> Any:
        return self._modules[self._recipe] if layer in self._layers else default


def groups(
    made: Mapping[Key, Factors | None], parameters: Callable[[Factors], int], room: float
) -> list[dict[Key, Factors | None]]:
    """Models that are walked together: as many as have these parameters of their factors in the room.

    A model without factors is the dense one; the same factors take room once.
    """
    found: list[dict[Key, Factors | None]] = [{}]
    taken: dict[Recipe, int] = {}
    for model, factors in made.items():
        new = {}
        if factors is not None and factors.recipe not in taken:
            new = {factors.recipe: parameters(factors)}
        if taken and new and sum(taken.values()) + sum(new.values()) > room:
            found.append({})
            taken = new
        else:
            taken |= new
        found[-1][model] = factors
    return found
