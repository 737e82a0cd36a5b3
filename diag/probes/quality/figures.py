"""Figures of quality: perplexity and accuracy against the bits that are saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp
from typing import Any

from diag.declare.column import Row
from diag.declare.common_columns import model_name
from diag.probes.quality.columns import ACCURACY_CHANGE, LOSS_CHANGE, METRIC, PERPLEXITY, datasets, is_dense, ordered
from diag.statistics.medians import given, groups, where
from reports.plots import Level, Panel, Panels, Plot, Series

_WIDE = 4.0  # times the least perplexity, from which on the axis is logarithmic


def figures(tables: Mapping[str, Sequence[Row]], arrays: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """Each where a compressed model was measured beside the dense one."""
    rows = given(ordered(tables["quality"]), "value", "bits_saved")
    texts, tasks = _panels(rows, PERPLEXITY), _panels(rows, METRIC)
    seen = [float(y) for panel in texts for one in panel.series for y in one.y]
    seen += [level.at for panel in texts for level in panel.levels]
    found: list[Plot] = []
    if texts:
        found.append(Panels(
            "quality-perplexity", "Perplexity against bits saved",
            "Perplexity (lower is better) against the share of stored bits saved. Dashed: the dense model. Bars: one "
            "standard error of the paired difference to it on the same windows. Lines join a method's ratios, or a "
            "method and ratio over growing sets of layers.",
            panels=texts, x="bits saved", y="perplexity", percent="x", zero="x", same="x",
            log="y" if max(seen) > _WIDE * min(seen) else "", view="perplexity",
        ))  # fmt: skip
    if tasks:
        found.append(Panels(
            "quality-accuracy", "Zero-shot accuracy against bits saved",
            "Zero-shot accuracy (higher is better) against the share of stored bits saved. Dashed: the dense model. "
            "Bars: one standard error of the paired difference to it on the same documents.",
            panels=tasks, x="bits saved", y="accuracy", percent="xy", zero="x", same="x", view="accuracy",
        ))  # fmt: skip
    return found


def _panels(rows: Sequence[Row], metric: str) -> list[Panel]:
    """One a data set; a line joins one method where all have the same layers, otherwise one method and ratio."""
    growing = len({row["compressed_layers"] for row in rows if row.get("ratio") is not None}) > 1
    named = [{**row, "name": model_name(row) if growing else row["method"]} for row in rows]
    found = []
    for dataset in datasets(rows, metric):
        ours = where(named, dataset=dataset)
        lines = groups([row for row in ours if not is_dense(row)], "name")
        levels = [Level(row["value"], "dense", "dense") for row in ours if is_dense(row)]
        if lines and levels:
            found.append(Panel(dataset, [_line(name, line) for name, line in lines.items()], levels))
    return found


def _line(name: str, rows: Sequence[Row]) -> Series:
    low, high = zip(*(_ends(row) for row in rows), strict=True)
    return Series([r["bits_saved"] for r in rows], [r["value"] for r in rows], name, low=low, high=high)


def _ends(row: Row) -> Iterator[float]:
    """Ends of a row's bar: one standard error of the paired difference."""
    for sign in (-1, 1):
        if row["metric"] == PERPLEXITY:
            yield row["value"] * exp(sign * (row.get(f"{LOSS_CHANGE}_stderr") or 0.0))
        else:
            yield row["value"] + sign * (row.get(f"{ACCURACY_CHANGE}_stderr") or 0.0)
