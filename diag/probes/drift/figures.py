"""Figures of drift: angle, length and routing over depth, layers together against each alone, growing sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from diag.declare.column import Row
from diag.probes.drift.columns import accumulated, growing, largest, named
from diag.statistics.medians import given, groups
from reports.plots import Entry, Forest, Level, Mark, Panel, Panels, Plot, Series
from reports.theme import title


def figures(tables: Mapping[str, Sequence[Row]], arrays: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """Figures that the table allows."""
    rows = named(tables["drift"])
    shown = largest(rows)
    drawn = (depth(shown), routing(shown), together(accumulated(rows)), sets(growing(rows)))
    return [plot for plot in drawn if plot is not None]


def depth(shown: Sequence[Row]) -> Panels | None:
    """Angle and length at every layer's output."""
    panels = _over_layers(shown, {"angle_deg": "angle, °", "norm_ratio": "norm ratio"})
    return None if not panels else Panels(
        "drift-depth", "Angle and norm ratio over depth",
        "Angle between the residual streams of compressed and dense model at every decoder layer's output (0° is no "
        "drift), and ratio of their lengths (1 is no change), means over tokens. All chosen layers are compressed "
        "together. Grey: the dense model rounded.",
        panels=panels, x="decoder layer", y="", whole="x", same="x", view="depth",
    )  # fmt: skip


def routing(shown: Sequence[Row]) -> Panels | None:
    """Equal experts and distance of the routers."""
    panels = _over_layers(
        shown,
        {
            "routing_agreement": "same experts, share of a token's",
            "routing_js": "Jensen-Shannon distance of the routers",
        },
    )
    return None if not panels else Panels(
        "drift-routing", "Routing over depth",
        "Share of a token's experts that the dense model chooses too, and Jensen-Shannon distance (base 2, from 0 to "
        "1) of the routers' softmax distributions, means over tokens. A router reads the stream before its own layer's "
        "experts change it. Grey: the dense model rounded.",
        panels=panels, x="decoder layer", y="", whole="x", same="x", view="routing",
    )  # fmt: skip


def _over_layers(shown: Sequence[Row], columns: Mapping[str, str]) -> list[Panel]:
    """A panel a column that was measured; a line has a gap where a layer has no value."""
    lines = {model: sorted(ours, key=lambda row: int(row["layer"])) for model, ours in groups(shown, "model").items()}
    return [
        Panel(label, [
            Series([row["layer"] for row in ours], [nan if row.get(column) is None else row[column] for row in ours],
                   model)
            for model, ours in lines.items() if given(ours, column)
        ])
        for column, label in columns.items() if given(shown, column)
    ]  # fmt: skip


def together(sums: Sequence[Row]) -> Forest | None:
    """Angle of all layers, beside those of each alone and what these come to."""
    entries = [
        Entry(title(found["model"]), [
            *(Mark(angle, "control", "each layer alone") for angle in found["alone"].values()),
            Mark(found["independent"], "root sum square of these", hollow=True),
            Mark(found["aligned"], "sum of these"),
            Mark(found["together"], "all layers together"),
        ])
        for found in sums
    ]  # fmt: skip
    return None if not sums else Forest(
        "drift-accumulated", "Local against accumulated",
        "Angle after the last compressed layer: of each layer compressed alone, of what these come to if independent "
        "(root sum square) or all in one direction (sum), and of all layers compressed together.",
        groups=[("", entries)], x="angle after the last compressed layer, °",
        levels=[Level(0.0, axis="x")], view="accumulated",
    )  # fmt: skip


def sets(found: Mapping[str, Sequence[Row]]) -> Panels | None:
    """Angle over the number of layers."""
    lines = [Series([r["size"] for r in ours], [r["angle_deg"] for r in ours], model) for model, ours in found.items()]
    return None if not lines else Panels(
        "drift-sets", "Angle against compressed layers",
        "Angle after the last compressed layer against the number of layers compressed together.",
        panels=[Panel("", lines)], x="layers compressed together", y="angle, °", zero="y", whole="x", view="variants",
    )  # fmt: skip
