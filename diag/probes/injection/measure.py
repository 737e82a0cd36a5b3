"""`tdmoe-diag injection`: which error of the experts predicts the damage, by intervention.

Residuals of prescribed norms (tdmoe/runtime/injection.py) are added to the dense experts of all layers, or of one.
The response is the change of the mean held-out cross-entropy in nats, window by window against the unchanged model:

    response = (L(W + s E) + L(W - s E)) / 2 - L(W)      drawn families: E and -E are equally likely, so this has the
                                                         same mean as L(W + s E) - L(W), without the first-order term
    response = L(W + s E) - L(W)                         what a method leaves, rescaled: it has its own sign

A part is one draw of one family in one place: all designs and sizes share it. Weights are float32 inside a run, and as
they were after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diag.compression.calibrated import layer_sums, statistics_of
from diag.probes.injection.columns import CONTRASTS, NAME, TABLES
from diag.runs.folder import Part, digest
from diag.runs.results import Row
from diag.statistics.evaluation import mean, model_losses
from tdmoe import methods
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import whole_stack
from tdmoe.problems import WeightError
from tdmoe.runtime.injection import Injector, Norms, Place, directions, draw, errors
from tdmoe.stacks import joint
from tdmoe.stacks.architecture import Architecture

__all__ = ["CONTRASTS", "NAME", "TABLES", "Settings", "Site", "Source"]

VERSION = 1
CONTRASTS_VERSION = 4  # of the statistics alone
BATCH_TOKENS = 2048  # through the model at once

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Site:
    """Places that are injected together: `scope` is all, or one layer."""

    scope: str
    layers: tuple[int, ...]
    projections: tuple[str, ...]

    @property
    def places(self) -> list[Place]:
        return [(layer, projection) for layer in self.layers for projection in self.projections]

    @property
    def labels(self) -> Row:
        """Columns of the scope; `layer` is empty where it is all of them."""
        layer = self.layers[0] if self.scope == "one" else None
        return {"scope": self.scope, "layer": layer, "projection": ",".join(self.projections)}

    @property
    def summary(self) -> Part:
        """The part that holds its statistics."""
        return Part(CONTRASTS, self.name, tuple(self.labels.items()))

    @property
    def name(self) -> str:
        """Name in its parts' files."""
        where = f"l{self.layers[0]:03d}" if self.scope == "one" else "all"
        return f"{where}-{'.'.join(self.projections)}"


@dataclass(frozen=True)
class Source:
    """Origin of a part's residual: draw `seed` of a family, or a method (seed None)."""

    family: str
    seed: int | None


@dataclass(frozen=True)
class Settings:
    """Settings that change the result of a part, beside its site and source."""

    designs: tuple[str, ...]
    sizes: tuple[float, ...]
    ratio: float
    text: str
    windows: int
    window: int
    moments: str  # digest of the statistics
    seed: int


def part(site: Site, source: Source, number: int) -> Part:
    """`number` tells methods apart, whose specs are no file names."""
    kind = source.family.replace("_", "-") if source.seed is not None else "method"
    labels = {"family": source.family, **site.labels, "seed": source.seed}
    return Part(NAME, f"{site.name}-{kind}-{number}", tuple(labels.items()))


@dataclass
class LoadedModel:
    """The loaded model, its windows and statistics; measures one part after the other."""

    model: Any
    windows_WT: Tensor
    statistics: Path
    checkpoint: Checkpoint
    arch: Architecture
    memory: int

    def __post_init__(self) -> None:
        self.dense_W = self.losses()
        self._site: Site | None = None

    def losses(self) -> Vector:
        """(W,): mean next-token cross-entropy of every window in nats."""
        with full_precision():
            return model_losses(self.model, self.windows_WT, batch=max(1, BATCH_TOKENS // self.windows_WT.shape[1]))

    def measure(self, site: Site, source: Source, settings: Settings, seed: int) -> tuple[list[Row], Vector]:
        """Rows of the table, and (R, W) change of every window's loss."""
        self._move_to(site)
        if source.seed is None:
            residuals = {place: self._left_by(source.family, settings.ratio, place) for place in site.places}
        else:
            residuals = self._drawn(site, source.family, seed)
        norms = {place: Norms.of(X_EOI, *self._moments(place)) for place, X_EOI in residuals.items()}
        rows, changes = [], []
        for design in settings.designs:
            scales = {place: norms[place].scale(self._whole[place], design) for place in site.places}
            unit = errors(scales, norms, self._whole)
            for size in settings.sizes:
                signs = (size,) if source.seed is None else (size, -size)
                losses = []
                for signed in signs:
                    with self._injector.injected(residuals, scales, signed):
                        losses.append(self.losses())
                change_W = np.mean(losses, 0) - self.dense_W
                odd = None if len(losses) == 1 else float((losses[0] - losses[1]).mean() / 2)
                found = unit.times(size)
                rows.append(
                    {"design": design, "family": source.family, **site.labels, "size": size, "seed": source.seed}
                    | {f"{name}_error": getattr(found, name) for name in ("weight", "functional", "operator")}
                    | {"functional_error_expert": found.functional_expert}
                    | {"loss_change": float(change_W.mean()), "loss_change_stderr": mean(change_W).stderr}
                    | {"tokens": self.windows_WT.numel(), "loss_dense": float(self.dense_W.mean())}
                    | {"loss_change_odd": odd}
                    | {"status": "ok" if found.functional_expert is not None else "no_statistics_of_each_expert"}
                )
                changes.append(change_W)
        for row in rows:
            if not np.isfinite(row["loss_change"]):
                raise WeightError(
                    f"{source.family} of size {row['size']} in design {row['design']}: the loss is not finite; give "
                    "smaller --sizes"
                )
        return rows, np.stack(changes)

    def _move_to(self, site: Site) -> None:
        """Keep what is the same for all parts of a site."""
        if site == self._site:
            return
        self._injector = Injector(self.model, site.places)
        self._whole = {place: Norms.of(W_EOI, *self._moments(place)) for place, W_EOI in self._injector.weights.items()}
        self._site = site

    def _moments(self, place: Place) -> tuple[Tensor, Callable[[int], Tensor] | None]:
        """C, and every expert's own."""
        layer, projection = place
        sums = layer_sums(self.statistics, layer)
        return sums.moment(projection), sums.own_moments(projection) if sums.has_own(projection) else None

    def _drawn(self, site: Site, family: str, seed: int) -> dict[Place, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for place in site.places:
            shape = self._injector.weights[place].shape
            V_II = directions(self._moments(place)[0])
            found[place] = draw(family, (shape[0], shape[1], shape[2]), V_II, generator)
        return found

    def _left_by(self, text: str, ratio: float, place: Place) -> Tensor:
        """W^ - W of a method, its factors not rounded."""
        method, options = methods.parse(text)
        stack = joint.open_named(self.checkpoint, self.arch, *place)
        reader, statistics = joint.reader(stack, self.memory), statistics_of(self.statistics, stack)
        made = method.compress(reader, options, methods.Allotment(ratio), statistics, device="cpu")
        left_EOI: Tensor = made.members(0, stack.shape[0]).float() - whole_stack(reader, device="cpu")
        return left_EOI


def check_method(text: str, ratio: float, stacks: Sequence[joint.Stack]) -> methods.Needs:
    """Needs of a method; InputError where it does not fit the stacks, or not stacks by themselves."""
    method, options = methods.parse(text)
    method.check_alone(options)
    for stack in stacks:
        method.check(stack.shape, options, ratio)
    return method.needs(options)


def identity(site: Site, source: Source, settings: Settings) -> Row:
    """Identity of a part's result."""
    found: dict[str, Any] = {
        "probe_version": VERSION,
        "settings": digest([asdict(site), asdict(source), asdict(settings)]),
    }
    versions = methods.versions([source.family] if source.seed is None else [])
    return found | ({"methods": versions} if versions else {})
