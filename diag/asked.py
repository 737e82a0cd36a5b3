"""What requests of commands that run the whole model have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diag.compression import compressed
from diag.compression.calibrating import Settings as CalibrationSettings
from diag.compression.factors import Recipe, Source
from diag.declare import parse
from diag.declare.defaults import ALL_PROJECTIONS, MEMORY_BYTES
from diag.inputs.texts import check_texts
from diag.models.open_model import OpenModel
from tdmoe.problems import InputError


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Where a command runs, and where its results go."""

    layers: str | None = None
    device: str = "auto"
    out: Path | None = None
    out_given: bool = True  # by --out, not by the command that this one is a part of
    seed: int = 0
    fresh: bool = False
    revision: str | None = None
    command_line: str = ""

    @property
    def folder(self) -> dict[str, Any]:
        """What `OpenModel.run_folder` takes of it."""
        return {"out": self.out, "given": self.out_given, "command_line": self.command_line, "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class AskedVariants(Asked):
    """Models that a command measures beside the dense one: of recipes, and compressed checkpoints."""

    recipes: Sequence[Recipe] = ()
    schedule: str | None = None
    projections: str = ALL_PROJECTIONS
    compressed: Sequence[Path] = ()
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    memory: int = MEMORY_BYTES

    def check(self) -> None:
        """InputError where a text or a checkpoint on disk is none, whatever the model is."""
        check_texts(("calibration_text", self.calibration.text))
        for path in self.compressed:
            compressed.read(path)

    def layer_sets(self, available: Sequence[int]) -> list[list[int]]:
        """The sets of layers that are compressed, each holding the one before where they are a schedule's."""
        if self.schedule is None:
            return [parse.layers(self.layers, available)]
        if self.layers is not None:
            raise InputError("schedule", self.schedule, "chooses the layers", "give it or --layers, not both")
        return [parse.layers(text, available) for text in parse.nested(self.schedule, available)]

    def source(
        self, opened: OpenModel, model: str, layers: Sequence[int], calibration: CalibrationSettings | None
    ) -> Source:
        """Where the factors of the recipes come from."""
        how = (self.memory, self.seed, self.revision, self.command_line)
        return Source(opened, model, layers, self.projections, calibration, *how)
