"""Probe `drift`: how far the residual stream of compressed models is from the dense model's, layer by layer.

A part of the run is one variant: all chosen layers compressed together, or one of them alone, by a method at a ratio; a
checkpoint on disk; or the dense model itself in another dtype, which is what rounding alone does. Its rows are the
decoder layers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diag.compression.factors import Recipe
from diag.declare import parse
from diag.probes.drift.statistics import QUANTITIES, Sums
from diag.runs.folder import Part, digest

NAME = "drift"
VERSION = 3
COLUMNS = (
    *("method", "ratio", "scope", "compressed_layers", "layer", "angle_deg", "angle_stderr", "norm_ratio"),
    *("routing_agreement", "routing_js", "tokens", "status"),
    *("after_last", "norm_ratio_stderr", "routing_agreement_stderr", "routing_js_stderr", "windows", "text", "dtype"),
    *("bits_saved", "projections", "checkpoint", "calibration", "bits_saved_of"),
)
TABLES = {NAME: COLUMNS}
ALL, ONE = "all", "one"
SCOPES = (ONE, ALL)
CAST = "cast:dtype="  # the dense model itself in another dtype

Row = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """`recipe` where it is made of factors, `checkpoint` where it lies on disk; neither for the dense model rounded.

    `layers` are those that are compressed; none where that is not known.
    """

    method: str
    ratio: float | None = None
    scope: str = ALL
    layers: tuple[int, ...] = ()
    projections: str = ""
    checkpoint: str = ""

    @property
    def recipe(self) -> Recipe | None:
        return None if self.checkpoint or self.is_cast else Recipe(self.method, self.ratio)

    @property
    def is_cast(self) -> bool:
        return self.method.startswith(CAST)

    @property
    def part(self) -> Part:
        """The unit of work and of resuming."""
        labels = self.labels
        words = [self.checkpoint or self.method.partition(":")[0], self.scope, labels["compressed_layers"]]
        short = digest([*labels.values(), self.projections, self.checkpoint])[:8]
        said = re.sub(r"[^a-z0-9.-]+", "-", "-".join(filter(None, words)).lower()).strip("-.")
        return Part(NAME, f"{said[:80] or 'variant'}-{short}", tuple(labels.items()))

    @property
    def labels(self) -> Row:
        """The columns that tell it apart."""
        layers = parse.spans(self.layers)
        return {"method": self.method, "ratio": self.ratio, "scope": self.scope, "compressed_layers": layers}


def variants(
    recipes: Sequence[Recipe], sets: Sequence[Sequence[int]], scopes: Sequence[str], projections: str
) -> list[Variant]:
    """Every recipe: each layer of the largest (last) set alone, and every set together."""
    found = []
    for recipe in recipes:
        for scope in scopes:
            of_scope = [[layer] for layer in sets[-1]] if scope == ONE else sets
            found += [Variant(recipe.method, recipe.ratio, scope, tuple(s), projections) for s in of_scope]
    return found


@dataclass(frozen=True)
class Circumstances:
    """What all rows of a run have in common. `routers` are the layers that have one; `shown`: its logits are known.

    `counted` is what bits saved are of.
    """

    windows: int
    window: int
    text: str
    dtype: str
    routers: frozenset[int]
    shown: bool
    counted: str


def rows(
    variant: Variant, sums: Sums, number: int, about: Circumstances, bits_saved: float | None, calibration: str
) -> list[Row]:
    """Of all layers."""
    last = max(variant.layers, default=sums.count_VL.shape[1] - 1)
    found = []
    for layer in range(sums.count_VL.shape[1]):
        means = dict(zip(QUANTITIES, sums.means(number, layer), strict=True))
        row: Row = dict.fromkeys(COLUMNS) | variant.labels
        for name, (mean, stderr) in means.items():
            row[name] = mean
            row["angle_stderr" if name == "angle_deg" else f"{name}_stderr"] = stderr
        row |= {
            **{"layer": layer, "after_last": int(layer == last), "bits_saved": bits_saved},
            **{"tokens": about.windows * about.window, "windows": about.windows, "text": about.text},
            **{"dtype": about.dtype, "projections": variant.projections, "checkpoint": variant.checkpoint},
            **{"calibration": calibration, "bits_saved_of": about.counted},
            "status": _status(row, layer, about),
        }
        found.append({column: row[column] for column in COLUMNS})
    return found


def _status(row: Row, layer: int, about: Circumstances) -> str:
    """Why cells are empty: the stream has no direction, the layer no router, or routers that cannot be compared."""
    if row["angle_deg"] is None or row["norm_ratio"] is None:
        return "not_finite"
    if layer not in about.routers:
        return "dense_layer"
    if row["routing_agreement"] is None:
        return "other_experts"
    if row["routing_js"] is None:
        return "other_experts" if about.shown else "no_router_logits"
    return "ok"
