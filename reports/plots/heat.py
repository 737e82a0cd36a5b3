"""A map of values about 0: blue below, red above, white at 0, hatched where nothing was measured."""

import numpy as np
import seaborn
from matplotlib.axes import Axes

from reports.drawing import label, signed_numbers, svg
from reports.plots import Heat
from reports.plots.frame import SMALL, Frame
from reports.theme import INK

_FEW = 24  # rows up to which cells hold their text
_COLOURS = seaborn.diverging_palette(250, 20, s=80, l=62, as_cmap=True)  # no darker than dark text can be read on


def few(rows: int) -> bool:
    """Tell whether cells hold their text."""
    return rows <= _FEW


def draw(plot: Heat, model: str) -> bytes:
    """The figure as SVG."""
    small = few(len(plot.rows))
    tall = len(plot.rows) * (0.22 if small else 0.09)
    frame = Frame(model, plot.title, [0.09, tall], gap=0.62, left=0.62, right=0.12)
    bar, axes = frame.axes(0), frame.axes(1)
    values = np.array([[np.nan if v is None else v for v in row] for row in plot.values], dtype=float)
    measured = np.abs(values[np.isfinite(values)])
    limit = max(float(measured.max()) if measured.size else 0.0, 1e-3)
    axes.patch.set(facecolor="#f1f1f1", hatch="//////", edgecolor="#b5b5b5", linewidth=0)
    axes.grid(False)
    seaborn.heatmap(
        values, ax=axes, cbar_ax=bar, cmap=_COLOURS, vmin=-limit, vmax=limit, fmt="",
        annot=np.array(plot.texts, dtype=object) if small and plot.texts else None,
        annot_kws={"fontsize": 6.5, "color": INK}, linewidths=0.4 if small else 0, linecolor="white",
        rasterized=not small, cbar_kws={"orientation": "horizontal", "format": signed_numbers()}, xticklabels=False,
        yticklabels=False,
    )  # fmt: skip
    bar.set_title(label(plot.scale, 60), fontsize=8, pad=3)
    bar.tick_params(labelsize=7, length=2, pad=1)
    bar.grid(False)
    _edges(axes, plot, tall)
    return svg(frame.figure)


def _edges(axes: Axes, plot: Heat, tall: float) -> None:
    step = max(1, int(np.ceil(0.15 * len(plot.rows) / tall)))
    rows = range(0, len(plot.rows), step)
    axes.set_yticks([row + 0.5 for row in rows], [plot.rows[row] for row in rows], rotation=0, fontsize=SMALL)
    places = [column + 0.5 for column in range(len(plot.columns))]
    axes.set_xticks(places, plot.columns, rotation=0, fontsize=6.5 if len(places) > 6 else 8)
    axes.tick_params(length=2, pad=2)
    axes.set(xlabel=plot.x, ylabel=plot.y)
    start = 0
    for name, span in plot.groups:
        place = start + span / 2, -0.06 / tall * len(plot.rows)
        axes.text(*place, label(name, 16), ha="center", va="bottom", fontweight="bold")
        if start:
            axes.axvline(start, color="white", linewidth=3)
        start += span
