"""Figures of experts: price share over depth, error over the expert rank, and similarity of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import Any

import numpy as np

from diag.declare.column import Row
from diag.probes.experts.columns import MEASURES, SHARES, metric_error
from diag.statistics.medians import given, groups, where
from reports.formats import percent
from reports.plots import Entry, Forest, Level, Mark, Panel, Panels, Plot, Series
from reports.theme import order

_APART = 0.13  # layers between the projections of one layer


def figures(tables: Mapping[str, Sequence[Row]], arrays: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """One over depth, and for each layer its curves and its similarities."""
    points, similar = given(tables["experts"], "metric_error"), given(tables["similarity"], "measure")
    found: list[Plot] = []
    if priced := given(tables["binding"], "price_share"):
        found.append(depth(priced))
    for layer in sorted({row["layer"] for row in (*points, *similar)}):
        ours = where(points, layer=layer)
        if where(ours, point="curve"):
            found.append(curves(layer, ours, metric_error(points)))
        if groups_of := list(_alike(where(similar, layer=layer), arrays)):
            found.append(similarity(layer, groups_of))
    return found


def depth(rows: Sequence[Row]) -> Panels:
    """Price share of every stack with its interval and its null, a panel a ratio."""
    projections = sorted({row["projection"] for row in rows}, key=order)
    shifts = {name: _APART * (n - (len(projections) - 1) / 2) for n, name in enumerate(projections)}
    panels = []
    for ratio, ours in groups(rows, "ratio").items():
        lines = []
        for name, stacks in groups(ours, "projection", projections).items():
            x = [row["layer"] + shifts[name] for row in stacks]
            low, high, null = ([nan if row.get(f"price_share_{end}") is None else row[f"price_share_{end}"]
                                for row in stacks] for end in ("low", "high", "null"))  # fmt: skip
            lines.append(Series(x, [row["price_share"] for row in stacks], name, line="none", low=low, high=high))
            lines.append(Series(x, null, "control", "independent experts", "none", fill="none"))
        panels.append(Panel(f"{percent(ratio, 0)} of the parameters removed", lines, [Level(0.5)]))
    return Panels(
        "experts-depth", "The expert mode's price over depth",
        "Price of a stored parameter in the expert mode, over that plus its price in the cheapest other mode, at the "
        "best triple that keeps all experts. Above 0.5 (dotted) experts should be cut last, below it first. Bars: "
        "95 % intervals, by leaving out groups of experts. Grey: independent experts, each rotated among its hidden "
        "units.",
        panels=panels, x="layer", y="price share", whole="x", view="binding",
    )  # fmt: skip


def curves(layer: int, rows: Sequence[Row], error: str) -> Panels:
    """Least error by expert rank, a panel a projection, a line a ratio, the published triples as open marks."""
    panels = [
        Panel(name, [line for ratio, ours in groups(stack, "ratio").items() for line in _lines(ratio, ours)])
        for name in sorted({row["projection"] for row in rows}, key=order)
        if (stack := where(rows, projection=name))
    ]
    return Panels(
        f"experts-L{layer:03d}", f"Layer {layer}: error over the expert rank",
        f"Least relative {error} at constant storage by rank of the expert mode, the other ranks the best ones at each "
        "point, exact from the table of all triples. A star marks the least of all. Open marks: the published triples, "
        "which never look at the weights.",
        panels=panels, x="expert rank, the other ranks re-optimised", y=f"relative {error}", whole="x", zero="y",
        tile=True,
    )  # fmt: skip


def _lines(ratio: float, rows: Sequence[Row]) -> Iterator[Series]:
    name = f"{percent(ratio, 0)} removed"
    curve = sorted(where(rows, point="curve"), key=lambda row: row["rank_expert"])
    if curve:
        least = min(curve, key=lambda row: row["metric_error"])
        yield _series(curve, name, f"{name}, best ranks", mark="no")
        yield _series([least], name, "", "none", "star")
    for mode in ("preserve", "compress"):
        if made := where(rows, point="headline", allocation="published", expert_mode=mode):
            yield _series(made, name, f"published {mode}", "none", mode, fill="none")


def _series(
    rows: Sequence[Row], name: str, label: str, line: str = "solid", mark: str = "", fill: str = "full"
) -> Series:
    x, y = ([row[column] for row in rows] for column in ("rank_expert", "metric_error"))
    return Series(x, y, name, label, line, mark, fill=fill)


def similarity(layer: int, measures: Sequence[tuple[str, Sequence[Entry]]]) -> Forest:
    """Quantiles over the pairs of every projection, a group a measure, beside independent experts."""
    return Forest(
        f"similarity-L{layer:03d}", f"Layer {layer}: similarity of experts",
        "Pairs of experts: thin line 5 to 95 % of them, thick line the middle half, dot the median. Grey: every expert "
        "rotated at random, so that each keeps its singular values and nothing is shared. 1 means equal. Hollow dots: "
        "the arbitrary order of the experts' hidden units plays a part.",
        groups=measures, x="similarity (no unit)", tile=True,
    )  # fmt: skip


def _alike(rows: Sequence[Row], arrays: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Sequence[Entry]]]:
    for measure, ours in groups(rows, "measure", SHARES).items():
        entries = []
        for row in sorted(ours, key=lambda row: order(row["projection"])):
            values = arrays.get(f"experts-L{row['layer']:03d}-{row['projection']}", {})
            null, pairs = (np.asarray(values.get(key, ()), dtype=float) for key in (f"{measure}_null", measure))
            marks = [_mark(null, "control", "independent, same spectra")] if null.size else []
            marks += [_mark(pairs, row["projection"], "", hollow=not row.get("order_free"))] if pairs.size else []
            entries += [Entry(row["projection"], marks)] if marks else []
        if entries:
            yield MEASURES[measure], entries


def _mark(values: np.ndarray, name: str, label: str, *, hollow: bool = False) -> Mark:
    low, quarter, middle, three, high = (float(q) for q in np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95)))
    return Mark(middle, name, label, low, high, (quarter, three), hollow)
