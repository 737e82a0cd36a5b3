"""A model that is measured, known before anything runs: the dense one, a compressed one, or a checkpoint on disk.

A variant says what was done (a method's spec at a ratio), to which layers and projections, on what calibration, with
which seed. Its `id` is made of these alone, NAME-RATIO-HASH, so that the same compressed model has the same id in every
table, and two different ones of a dense model have two.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from typing import Any

from diag.declare import parse
from diag.runs.folder import digest
from tdmoe import methods

DENSE = "dense"
HASH = 8  # hexadecimal digits
NAME = 80  # characters of the readable part


@dataclass(frozen=True)
class Recipe:
    """Instructions to compress experts: a canonical spec, and the ratio, None where the spec fixes the storage."""

    method: str
    ratio: float | None

    @property
    def name(self) -> str:
        """Text for people."""
        return self.method if self.ratio is None else f"{self.method} at {self.ratio:g}"


@dataclass(frozen=True)
class Variant:
    """A compressed model; DENSE where nothing was done.

    `layers` are those that are compressed, none where that is not known. `calibration` tells what the method saw of
    texts, empty where it needs none. `source` is what else its weights depend on: the layers that share its budget, or
    the identity of the `checkpoint`, which is a folder's name.
    """

    method: str = DENSE
    ratio: float | None = None
    layers: tuple[int, ...] = ()
    projections: str = ""
    calibration: str = ""
    seed: int = 0
    source: str = ""
    checkpoint: str = ""

    @property
    def id(self) -> str:
        """Short name, the same for the same fields; the rest of a file's name or a table's cell."""
        if self.method == DENSE and not self.checkpoint:
            return DENSE
        return f"{file_name(self._name)}-{digest(astuple(self))[:HASH]}"

    @property
    def _name(self) -> str:
        name = self.checkpoint or self.method.partition(":")[0]
        return name if self.ratio is None else f"{name}-{self.ratio:g}"

    def part_name(self, *words: str) -> str:
        """Name of a unit of work on this variant that `words` tell from others, as a file may have it."""
        layers = parse.spans(self.layers)
        readable = "-".join(filter(None, [self._name, layers and f"l{layers}", *words]))
        return f"{file_name(readable)}-{digest([self.id, *words])[:HASH]}"

    @property
    def recipe(self) -> Recipe | None:
        """Recipe of its factors; None for the dense model, in another dtype too, and for checkpoints."""
        return Recipe(self.method, self.ratio) if self.layers and not self.checkpoint else None

    @property
    def labels(self) -> dict[str, Any]:
        """Columns of a table that describe it."""
        return {"method": self.method, "ratio": self.ratio, "compressed_layers": parse.spans(self.layers)}


def needs_calibration(recipe: Recipe) -> bool:
    """Tell whether its factors depend on one."""
    method, options = methods.parse(recipe.method)
    return method.needs(options).statistics


def shares_budget(recipe: Recipe) -> bool:
    """Tell whether a layer's factors depend on what other layers are compressed."""
    _, options = methods.parse(recipe.method)
    return getattr(options, "across", "uniform") != "uniform" or getattr(options, "dense_layers", 0) > 0


def file_name(text: str) -> str:
    """Lower-case letters, digits, dots and dashes alone, as names of files and of parts have them."""
    return re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")[:NAME] or "model"
