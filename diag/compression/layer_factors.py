"""Factors of the layer that is walked, and of no other: read when a walk comes to it, freed when it leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn

from diag.compression.factors import Factors, Recipe
from diag.models.walk import Replaced, Walk


class Shelf:
    """The factors of a layer, while it is walked; nothing of other layers is in memory."""

    def __init__(self, walk: Walk, made: Mapping[Recipe, Factors]) -> None:
        self.walk, self.made = walk, made
        self._modules: dict[Recipe, nn.Module] = {}
        self._dense = walk.resident
        walk.resident = self._resident

    def variant(self, recipe: Recipe | None, layers: Sequence[int]) -> Replaced:
        """What a walk replaces; to be asked for a layer while that one is walked."""
        assert recipe is not None, "made of factors"
        return _Chosen(self._modules, recipe, layers)

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


class _Chosen(dict[int, nn.Module]):
    """{layer: module} of a variant, whose modules come and go."""

    def __init__(self, modules: Mapping[Recipe, nn.Module], recipe: Recipe, layers: Sequence[int]) -> None:
        super().__init__()
        self._modules, self._recipe, self._layers = modules, recipe, frozenset(layers)

    def get(self, layer: int, default: Any = None) -> Any:
        return self._modules[self._recipe] if layer in self._layers else default
