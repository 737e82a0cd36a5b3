"""What commands that measure variants share: the dense model opened, recipes over sets of layers, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diag.compression.checkpoints import FIELDS, OnDisk, open_compressed
from diag.compression.factors import calibration_of
from diag.compression.requests import VariantsRequest
from diag.lockstep.variant import Variant
from diag.models.open_model import OpenModel
from tdmoe.problems import InputError


class VariantsPlan(OpenModel):
    """The checked part of a plan that says which models are compared; checkpoints have the fields of `same` alike."""

    same: Sequence[str] = tuple(FIELDS)

    def __init__(self, request: VariantsRequest, model: str) -> None:
        """InputError where model, layers, recipes or checkpoints do not fit."""
        super().__init__(model, request.device, request.revision)
        with self.closing():
            self.sets = request.layer_sets(self.arch.layers)
            self.on_disk: dict[Variant, OnDisk] = {}
            for path in request.compressed:
                self._open_compressed(path)
            self.calibration = calibration_of(request.recipes, request.calibration)
            self.source = request.source(self, model, self.sets[-1], self.calibration)
            self.source.check(request.recipes)

    def variant_on(self, found: OnDisk) -> Variant:
        """The variant that a checkpoint is."""
        return found.variant

    def variant_identity(self, variant: Variant) -> dict[str, Any]:
        """Part of a result's identity: the variant and how it is made."""
        found = {"variant": self.source.made(variant)}
        if variant in self.on_disk:
            found["checkpoint"] = self.on_disk[variant].identity
        return found

    def _open_compressed(self, path: Path) -> None:
        found = open_compressed(path, self.checkpoint, self.same)
        self._opened.callback(found.checkpoint.close)
        if found.name in {other.name for other in self.on_disk.values()}:
            raise InputError(
                f"--compressed {path}: there is another {found.name}; give each folder once, by its own name"
            )
        self.on_disk[self.variant_on(found)] = found
