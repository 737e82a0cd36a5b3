"""Probe `drift`: how far the residual stream of compressed models is from the dense model's, layer by layer.

A part of the run is one variant: all chosen layers compressed together, or one of them alone, by a method at a ratio; a
checkpoint on disk; or the dense model itself in another dtype, which is what rounding alone does. Its rows are the
decoder layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diag.compression.factors import Source
from diag.lockstep.variant import Recipe, Variant
from diag.probes.drift.columns import ALL, CAST, ONE
from diag.probes.drift.statistics import QUANTITIES, Sums
from diag.runs.folder import Part

NAME = "drift"
VERSION = 3
SCOPES = (ONE, ALL)

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A variant, and whether it is one layer alone or all that were chosen."""

    variant: Variant
    scope: str = ALL

    @property
    def is_cast(self) -> bool:
        """Tell whether it is the dense model in another dtype."""
        return self.variant.method.startswith(CAST) and not self.variant.layers

    @property
    def part(self) -> Part:
        """The unit of work and of resuming."""
        return Part(NAME, self.variant.part_name(self.scope), tuple(self.labels.items()))

    @property
    def labels(self) -> Row:
        """The columns that tell it apart."""
        found = self.variant.labels
        return {
            **{"method": found["method"], "ratio": found["ratio"], "scope": self.scope},
            **{"compressed_layers": found["compressed_layers"], "variant": self.variant.id},
        }


def cases(
    source: Source, recipes: Sequence[Recipe], sets: Sequence[Sequence[int]], scopes: Sequence[str]
) -> list[Case]:
    """Every recipe: each layer of the largest (last) set alone, and every set together."""
    found = []
    for recipe in recipes:
        for scope in scopes:
            of_scope = [[layer] for layer in sets[-1]] if scope == ONE else sets
            found += [Case(source.variant(recipe, layers), scope) for layers in of_scope]
    return found


@dataclass(frozen=True)
class Circumstances:
    """Facts that all rows of a run share: columns, layers that have a router, whether its logits are shown."""

    columns: Row
    routers: frozenset[int]
    shown: bool


def rows(case: Case, sums: Sums, number: int, about: Circumstances, known: Row) -> list[Row]:
    """A row a layer; `known` has the columns of the case alone."""
    variant, layers = case.variant, sums.count_VL.shape[1]
    common = case.labels | about.columns | known
    common |= {"projections": variant.projections, "checkpoint": variant.checkpoint}
    found = []
    for layer in range(layers):
        row = common | {"layer": layer, "after_last": int(layer == max(variant.layers, default=layers - 1))}
        for name, (mean, stderr) in zip(QUANTITIES, sums.means(number, layer), strict=True):
            row |= {name: mean, "angle_stderr" if name == "angle_deg" else f"{name}_stderr": stderr}
        found.append(row | {"status": _status(row, layer, about)})
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
