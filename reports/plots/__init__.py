"""The five kinds of figures as plain data: what is shown and what it is called; no inches, colours or drawing library.

`draw(plot, model)` makes the SVG. A `name` is one that `reports.theme` knows (a method's spec, a mode, a projection,
"baseline", "fit", "reference", "value"), which decides colour and shape; any other is drawn in order of appearance.
Where `alt` is left out, `reports.plots.alt` says the data in words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from reports.drawing import Figure, style

Numbers = Any  # floats, as a list or an array


@dataclass(frozen=True)
class Plot:
    """`name` is the file's; `view` names the table that stands below; `tile` sets it among many of a kind."""

    name: str
    title: str
    caption: str
    alt: str = field(default="", kw_only=True)
    view: str = field(default="", kw_only=True)
    tile: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Series:
    """Points of one name. `label` is its entry in the legend: "" none, None the name's own.

    `line`: solid, dashed, dotted, thin, steps, faint (need not be in view), or none for markers alone. `mark`: yes, no,
    star, or the name whose shape is taken. `low` and `high` are the ends of bars, `texts` stand at the points, `sizes`
    (0 to 1) are areas of markers and `shades` values on a `Scatter`'s scale of colours. `fill`: full, none, bottom.
    """

    x: Numbers
    y: Numbers
    name: str
    label: str | None = None
    line: str = "solid"
    mark: str = "yes"
    low: Numbers = ()
    high: Numbers = ()
    texts: Sequence[str] = ()
    sizes: Numbers = ()
    shades: Sequence[float | None] = ()
    fill: str = "full"


@dataclass(frozen=True)
class Level:
    """A straight line at a value of the `y` axis, or of the `x` axis."""

    at: float
    label: str = ""
    name: str = "reference"
    axis: str = "y"


@dataclass(frozen=True)
class Panel:
    """One pair of axes; `x` and `y` where they are not the figure's."""

    title: str
    series: Sequence[Series]
    levels: Sequence[Level] = ()
    x: str = ""
    y: str = ""
    note: str = ""  # at the right above it


@dataclass(frozen=True)
class Panels(Plot):
    """Curves in panels, one below the other on shared axes. `x`, `y`: labels of the axes.

    Of the letters x and y, `log` has the logarithmic axes, `zero` those from 0, `percent` shares, `whole` counts.
    """

    panels: Sequence[Panel] = field(kw_only=True)
    x: str = field(kw_only=True)
    y: str = field(kw_only=True)
    log: str = field(default="", kw_only=True)
    zero: str = field(default="", kw_only=True)
    percent: str = field(default="", kw_only=True)
    whole: str = field(default="", kw_only=True)
    same: str = field(default="xy", kw_only=True)  # axes that all panels share


@dataclass(frozen=True)
class Scatter(Panels):
    """Points in panels, `columns` side by side; `diagonal`: the line of equal values; `down`: y grows downwards."""

    columns: int = field(default=1, kw_only=True)
    diagonal: str = field(default="", kw_only=True)  # its entry in the legend
    down: bool = field(default=False, kw_only=True)
    scale: str = field(default="", kw_only=True)  # what shades mean
    sizes: str = field(default="", kw_only=True)  # what sizes mean


@dataclass(frozen=True)
class Mark:
    """A value on a line of a forest, its interval, and a thick inner part of it."""

    value: float
    name: str = "value"
    label: str | None = None
    low: float | None = None
    high: float | None = None
    inner: tuple[float, float] | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Entry:
    """A line of a forest: what it is of, its marks, and a note at its right."""

    title: str
    marks: Sequence[Mark]
    note: str = ""


@dataclass(frozen=True)
class Forest(Plot):
    """Values with intervals, a line each, under headings."""

    groups: Sequence[tuple[str, Sequence[Entry]]] = field(kw_only=True)
    x: str = field(kw_only=True)
    log: bool = field(default=False, kw_only=True)
    levels: Sequence[Level] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Bar:
    """A step: from `start`, or from 0, to `value`; None where it was not measured, with the reason in `note`."""

    title: str
    value: float | None
    start: float | None = None
    note: str = ""
    error: float = 0.0
    name: str = "level"


@dataclass(frozen=True)
class Waterfall(Plot):
    """Steps that add to or take away from a value, lying down, under headings.

    `most` cuts the axis there; `gap` (value at 0 %, value at 100 %) gives an upper axis in per cent, named `share`.
    """

    groups: Sequence[tuple[str, Sequence[Bar]]] = field(kw_only=True)
    x: str = field(kw_only=True)
    levels: Sequence[Level] = field(default=(), kw_only=True)
    most: float | None = field(default=None, kw_only=True)
    gap: tuple[float, float] | None = field(default=None, kw_only=True)
    share: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Heat(Plot):
    """A map of values about 0, None where nothing was measured, with `texts` in its cells and `groups` of columns."""

    rows: Sequence[str] = field(kw_only=True)
    columns: Sequence[str] = field(kw_only=True)
    values: Sequence[Sequence[float | None]] = field(kw_only=True)
    scale: str = field(kw_only=True)
    x: str = field(kw_only=True)
    y: str = field(kw_only=True)
    texts: Sequence[Sequence[str]] = field(default=(), kw_only=True)
    groups: Sequence[tuple[str, int]] = field(default=(), kw_only=True)


_DRAWN_BY = {Scatter: "panels", Panels: "panels", Forest: "forest", Waterfall: "waterfall", Heat: "heat"}


def draw(plot: Plot, model: str) -> Figure:
    """The figure, with the model's name in its corner."""
    from reports.plots.alt import said

    with style():
        svg = import_module(f"reports.plots.{_DRAWN_BY[type(plot)]}").draw(plot, model)
    return Figure(plot.name, plot.title, plot.alt or said(plot), plot.caption, svg, view=plot.view, tile=plot.tile)
