"""Requests of commands that run the whole model, and what those share that measure variants beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diag.compression.calibrating import Settings as CalibrationSettings
from diag.compression.checkpoints import FIELDS, OnDisk, check_folder, open_compressed
from diag.compression.factors import Recipe, Source, calibration_of
from diag.declare import parse
from diag.declare.defaults import ALL_PROJECTIONS, MEMORY_BYTES
from diag.inputs.texts import check_texts
from diag.lockstep.variant import Variant
from diag.models.open_model import OpenModel
from tdmoe.problems import InputError


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """Place where a command runs, and where its results go."""

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
        """Arguments of `OpenModel.run_folder`."""
        return {"out": self.out, "given": self.out_given, "command_line": self.command_line, "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class VariantsRequest(ModelRequest):
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
            check_folder(path)

    def layer_sets(self, available: Sequence[int]) -> list[list[int]]:
        """The sets of layers that are compressed, each holding the one before where they are a schedule's."""
        if self.schedule is None:
            return [parse.layers(self.layers, available)]
        if self.layers is not None:
            raise InputError("schedule", self.schedule, "chooses the layers", "give it or --layers, not both")
        return [parse.layers(text, available) for text in parse.nested(self.schedule, available)]


class VariantsPlan(OpenModel):
    """The dense model opened, recipes over sets of layers, and checkpoints, whose fields of `same` are the model's."""

    same: Sequence[str] = tuple(FIELDS)

    def __init__(self, request: VariantsRequest, model: str) -> None:
        """InputError where model, layers, recipes or checkpoints do not fit."""
        request.check()
        super().__init__(model, request.device, request.revision)
        with self.closing():
            self.sets = request.layer_sets(self.arch.layers)
            self.on_disk: dict[Variant, OnDisk] = {}
            for path in request.compressed:
                self._open_compressed(path)
            self.calibration = calibration_of(request.recipes, request.calibration)
            how = (request.memory, request.seed, request.revision, request.command_line)
            self.source = Source(self, model, self.sets[-1], request.projections, self.calibration, *how)
            self.source.check(request.recipes)

    def variant_on(self, found: OnDisk) -> Variant:
        """The variant that a checkpoint is."""
        return found.variant

    def variant_identity(self, variant: Variant) -> dict[str, Any]:
        """Part of a result's identity: the variant and how it is made."""
        found = {"variant": self.source.made(variant)}
        return found | ({"checkpoint": self.on_disk[variant].identity} if variant in self.on_disk else {})

    def _open_compressed(self, path: Path) -> None:
        found = open_compressed(path, self.checkpoint, self.same)
        self._opened.callback(found.checkpoint.close)
        variant = self.variant_on(found)
        if variant in self.on_disk:
            raise InputError("compressed", path, f"there is another {found.name}", "give each folder once")
        self.on_disk[variant] = found
