"""Figures in words and numbers, for readers who cannot see them: made from their data."""

from collections.abc import Sequence
from functools import singledispatch
from math import isfinite

from reports.formats import listing, significant
from reports.plots import Forest, Heat, Mark, Panels, Plot, Series, Waterfall
from reports.theme import title

_MOST = 12  # series, rows or bars that are told


@singledispatch
def said(plot: Plot) -> str:
    """The kind of figure, its axes, and its values in short."""
    raise TypeError(f"no such kind of figure: {type(plot).__name__}")


@said.register
def _(plot: Panels) -> str:
    log = {"": "", "x": "logarithmic x axis, ", "y": "logarithmic y axis, "}.get(plot.log, "log-log, ")
    parts = []
    for panel in plot.panels:
        told = [text for one in panel.series if (text := _ends(one))]
        parts.append(": ".join(filter(None, (panel.title or panel.y, "; ".join(_few(told)) or "nothing measured"))))
    axes = " over ".join(filter(None, (plot.y, plot.x)))
    return f"{plot.title}, {log}{axes}. {'. '.join(parts)}."


def _ends(one: Series) -> str:
    """First and last point; nothing of what has no name in the legend or is a baseline or fit."""
    name = one.label or title(one.name)
    points = [(x, y) for x, y in zip(one.x, one.y, strict=True) if isfinite(x) and isfinite(y)]
    if one.label == "" or one.name in ("baseline", "fit") or not points:
        return ""
    if one.line == "none" and len(points) > 1:
        low, high = (significant(f(y for _, y in points)) for f in (min, max))
        return f"{name} {len(points)} points from {low} to {high}"
    told = [f"{significant(y)} at {significant(x)}" for x, y in dict.fromkeys((points[0], points[-1]))]
    return f"{name} {' to '.join(told)}"


@said.register
def _(plot: Forest) -> str:
    parts = []
    for heading, entries in plot.groups:
        told = [f"{entry.title} {listing(_marks(entry.marks))}" for entry in entries]
        parts.append((f"{heading}: " if heading else "") + "; ".join(_few(told)))
    return f"{plot.title}, {plot.x}. {'. '.join(parts)}."


def _marks(marks: Sequence[Mark]) -> list[str]:
    """Each by itself, but those of one label by their range."""
    told: dict[object, str] = {}
    for label in dict.fromkeys(mark.label or mark.name for mark in marks):
        same = sorted((mark for mark in marks if (mark.label or mark.name) == label), key=lambda mark: mark.value)
        told[label] = _mark(same[0]) + (f" to {significant(same[-1].value)}" if len(same) > 1 else "")
    return list(told.values())


def _mark(mark: Mark) -> str:
    name = "" if mark.name == "value" or mark.label == "" else f"{mark.label or title(mark.name)} "
    ends = "" if mark.low is None or mark.high is None else f" ({significant(mark.low)} to {significant(mark.high)})"
    return f"{name}{significant(mark.value)}{ends}"


@said.register
def _(plot: Waterfall) -> str:
    parts = []
    for heading, bars in plot.groups:
        told = [f"{b.title} {b.note if b.value is None else significant(b.value)}" for b in bars]
        parts.append((f"{heading}: " if heading else "") + ", ".join(_few(told)))
    return f"Waterfall, {plot.x}. {'. '.join(parts)}."


@said.register
def _(plot: Heat) -> str:
    over = [name for name, span in plot.groups for _ in range(span)] or [""] * len(plot.columns)
    cells = [
        (value, f"{plot.y} {row}, {f'{group} {column}'.strip()}")
        for row, line in zip(plot.rows, plot.values, strict=True)
        for group, column, value in zip(over, plot.columns, line, strict=True)
    ]
    known = sorted((value, place) for value, place in cells if value is not None)
    spread = f"Heat map of {plot.scale}, {len(plot.rows)} by {len(plot.columns)} cells."
    if not known:
        return f"{spread} No cell was measured."
    ends = [f"{significant(value)} ({place})" for value, place in (known[0], known[-1])]
    above, blank = sum(value > 0 for value, _ in known), len(cells) - len(known)
    rest = f"; {blank} cells were not measured" if blank else ""
    return f"{spread} From {ends[0]} to {ends[1]}; {above} of {len(known)} cells are above zero{rest}."


def _few(told: list[str]) -> list[str]:
    rest = len(told) - _MOST
    return [*told[:_MOST], *([f"and {rest} more"] if rest > 0 else [])]
