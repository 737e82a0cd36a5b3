"""Curves and points in panels: `Panels` one below the other, `Scatter` also side by side with a scale of colours."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D

from reports.drawing import label, plain_numbers, svg
from reports.plots import Level, Panel, Panels, Scatter, Series
from reports.plots.frame import SMALL, Frame, handle, level_handles, named, scale, straight
from reports.theme import GREY, INK, Look, looks

_PATTERNS = {"dashed": (0, (4, 2)), "dotted": (0, (1, 1.5)), "faint": (0, (1, 1.5))}
_WIDTHS = {"dashed": 0.9, "thin": 0.7, "dotted": 1.1, "faint": 1.0}
_MANY = 24  # points from which on a line has a marker here and there
_SHADES = "cividis"  # even in lightness, and the same to colour-blind readers


def draw(plot: Panels, model: str) -> bytes:
    """The figure as SVG."""
    series = [one for panel in plot.panels for one in panel.series]
    levels = [level for panel in plot.panels for level in panel.levels]
    diagonal = [Level(0.0, plot.diagonal, "fit")] if isinstance(plot, Scatter) and plot.diagonal else []
    known = named([one.name for one in series], [*levels, *diagonal])
    columns = min(plot.columns, len(plot.panels)) if isinstance(plot, Scatter) else 1
    lines = -(-len(plot.panels) // columns)
    own = any(panel.x for panel in plot.panels)
    shades = [v for one in series for v in one.shades if v is not None]
    frame = Frame(
        model, plot.title, [2.4 if lines == 1 and columns == 1 else 1.5] * lines,
        _handles(series, known) + level_handles([*levels, *diagonal], known),
        gap=0.66 if own else 0.4 if any(p.title for p in plot.panels) else 0.16, below=1.05 if shades else 0.5,
    )  # fmt: skip
    norm = _norm(shades)
    placed: list[Axes] = []
    for number, panel in enumerate(plot.panels):
        line, column = divmod(number, columns)
        axes = frame.axes(line, column, columns, between=0.2 if "y" in plot.same else 0.5)
        for one in panel.series:
            _series(axes, one, known, norm)
        straight(axes, panel.levels, known)
        axes.set_title(label(panel.title, 60), loc="left", pad=3, fontsize=9 if columns == 1 else SMALL)
        axes.set_title(label(panel.note, 24), loc="right", pad=3, fontsize=SMALL)
        placed.append(axes)
    for letter in "xy":
        _scale(plot, placed, letter)
    _edges(plot, placed, columns)
    if norm is not None and isinstance(plot, Scatter):
        _bar(frame, norm, plot.scale)
    return svg(frame.figure)


def _scale(plot: Panels, placed: Sequence[Axes], letter: str) -> None:
    kind = " ".join(name for name in ("log", "zero", "percent", "whole") if letter in getattr(plot, name))
    values = [_seen(panel, letter) for panel in plot.panels]
    together = [v for found in values for v in found]
    diagonal = isinstance(plot, Scatter) and plot.diagonal
    for axes, found in zip(placed, values, strict=True):
        scale(axes, letter, together if letter in plot.same else found, kind)
        if diagonal and letter == "y":
            ends = axes.get_xlim()
            axes.plot(ends, ends, color=INK, linewidth=0.8, zorder=1, scalex=False, scaley=False)
        if isinstance(plot, Scatter) and plot.down and letter == "y":
            axes.invert_yaxis()


def _seen(panel: Panel, letter: str) -> list[float]:
    """Values that have to be in view: not of faint lines, which may fall to nothing."""
    found = [float(v) for one in panel.series if one.line != "faint" for v in getattr(one, letter)]
    if letter == "y":
        found += [float(v) for one in panel.series for v in (*one.low, *one.high)]
    return found + [level.at for level in panel.levels if level.axis == letter]


def _edges(plot: Panels, placed: Sequence[Axes], columns: int) -> None:
    """Names of the axes and ticks where they are needed."""
    shared = "x" in plot.same and not any(panel.x for panel in plot.panels)
    for number, (axes, panel) in enumerate(zip(placed, plot.panels, strict=True)):
        last = number + columns >= len(placed)
        if last or not shared:
            axes.set_xlabel(panel.x or (plot.x if last else ""), labelpad=1)
        axes.tick_params(labelbottom=last or not shared, labelleft=number % columns == 0 or "y" not in plot.same)
        if number % columns == 0:
            axes.set_ylabel(panel.y or plot.y)


def _handles(series: Sequence[Series], known: dict[str, Look]) -> list[Line2D]:
    found: dict[tuple[str, str], Series] = {}
    for one in series:
        text = known[one.name].title if one.label is None else one.label
        if text:
            found.setdefault((text, one.line), one)
    return [handle(known[one.name], text, **_how(one, known)) for (text, _), one in found.items()]


def _how(one: Series, known: dict[str, Look]) -> dict[str, Any]:
    """Line and marker of a series."""
    look = known[one.name]
    shape = {"yes": look.shape, "no": "", "star": "*"}.get(one.mark)
    if shape is None:
        shape = looks([one.mark])[one.mark].shape
    dash = (0, look.dash) if look.dash else "-"
    return {
        "color": look.colour,
        "linestyle": _PATTERNS.get(one.line, dash),
        "linewidth": 0 if one.line == "none" else _WIDTHS.get(one.line, 1.5),
        "marker": "" if one.line in ("thin", "faint") else shape,
        "markersize": 9 if one.mark == "star" else 4,
        "fillstyle": "none" if look.hollow and one.fill == "full" else one.fill,
        "markeredgewidth": 1.0,
    }


def _series(axes: Axes, one: Series, known: dict[str, Look], norm: Normalize | None) -> None:
    how = _how(one, known)
    if len(one.low):
        ends = [(x, y) for x, low, high in zip(one.x, one.low, one.high, strict=True)
                for y in (low, high, np.nan)]  # fmt: skip
        axes.plot(*np.array([(x, y) for x, y in ends]).T, color=how["color"], linewidth=1, zorder=2)
    if len(one.sizes) or len(one.shades):
        sizes = [24.0 + 260.0 * max(0.0, size) for size in one.sizes] or 40
        faces: Any = [_shade(norm, value) for value in one.shades] or ("none" if one.fill == "none" else how["color"])
        edge = INK if len(one.shades) else how["color"]
        axes.scatter(one.x, one.y, s=sizes, marker=how["marker"] or "o", c=faces, edgecolors=edge, linewidths=0.8,
                     zorder=3)  # fmt: skip
    else:
        steps = "steps-post" if one.line == "steps" else "default"
        alpha = 0.6 if one.line == "faint" or (one.line == "none" and len(one.x) > _MANY) else 1.0
        every = 0.17 if one.line != "none" and len(one.x) > _MANY else None
        axes.plot(one.x, one.y, drawstyle=steps, alpha=alpha, markevery=every, zorder=3, **how)
    for x, y, text in zip(one.x, one.y, one.texts, strict=False):
        axes.annotate(label(text, 24), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=6.5)


def _norm(known: Sequence[float]) -> Normalize | None:
    if not known:
        return None
    low, high = min(known), max(known)
    return LogNorm(low, high) if 0 < 4 * low < high else Normalize(low, high if high > low else low + 1e-3)


def _shade(norm: Normalize | None, value: float | None) -> tuple[float, ...]:
    """White where there is no value."""
    if norm is None or value is None:
        return (1.0, 1.0, 1.0, 1.0)
    return tuple(float(part) for part in colormaps[_SHADES](norm(value)))


def _bar(frame: Frame, norm: Normalize, text: str) -> None:
    axes = frame.figure.add_axes((0.4, 0.3 / frame.height, 0.55, 0.1 / frame.height))
    frame.figure.colorbar(ScalarMappable(norm, _SHADES), cax=axes, orientation="horizontal")
    axes.xaxis.set_major_formatter(plain_numbers())
    axes.tick_params(labelsize=SMALL, pad=1)
    axes.grid(False)
    axes.text(
        -0.04, 0.5, label(text, 30), transform=axes.transAxes, ha="right", va="center", fontsize=SMALL, color=GREY
    )
