"""Parts that all kinds of figures share: canvas and panels in inches, legend, model, axes that suit their values."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from reports.drawing import WIDTH, canvas, label, plain_numbers
from reports.plots import Level
from reports.theme import Look, looks

SMALL = 7.5  # points
LINE = 0.155  # inches of a line in a legend
_WIDE = 36  # letters of a legend's entry from which on it has a line of its own
_NEAR = 30.0  # times the least value, within which a logarithmic axis has ticks at 1, 2, 5


class Frame:
    """A canvas with the legend above, and room for panels of given heights below; all sizes in inches."""

    def __init__(
        self,
        model: str,
        title: str,
        heights: Sequence[float],
        handles: Sequence[Line2D] = (),
        *,
        left: float = 0.66,
        right: float = 0.14,
        below: float = 0.5,
        gap: float = 0.4,
        above: float = 0.0,
    ) -> None:
        columns = 1 if any(len(str(h.get_label())) > _WIDE for h in handles) else 2 if len(handles) > 1 else 1
        lines = math.ceil(len(handles) / columns)
        top = 0.34 + LINE * lines + (0.12 if handles else 0.0) + 0.16 + above
        self.height = top + sum(heights) + gap * (len(heights) - 1) + below
        self.left, self.right = left, right
        self.figure: Canvas = canvas(self.height)
        places = np.cumsum([0.0, *(tall + gap for tall in heights)])
        self._boxes = [(self.height - top - place - tall, tall) for place, tall in zip(places, heights, strict=False)]
        self.figure.text(0.02, 1 - 0.07 / self.height, label(title, 48), fontweight="bold", va="top")
        self.figure.text(
            0.98, 1 - 0.09 / self.height, label(model, 24), fontsize=SMALL, color="#555555", va="top", ha="right"
        )
        if handles:
            self.figure.legend(
                handles=list(handles), loc="upper left", bbox_to_anchor=(0.02, 1 - 0.32 / self.height), frameon=False,
                ncols=columns, borderpad=0, handlelength=2.2, columnspacing=1.2, labelspacing=0.3, fontsize=SMALL,
            )  # fmt: skip

    def axes(self, line: int, column: int = 0, columns: int = 1, between: float = 0.2) -> Axes:
        """The panel of that line, in one of several columns."""
        bottom, tall = self._boxes[line]
        wide = (WIDTH - self.left - self.right - between * (columns - 1)) / columns
        left = self.left + column * (wide + between)
        return self.figure.add_axes((left / WIDTH, bottom / self.height, wide / WIDTH, tall / self.height))


def handle(look: Look, text: str, **how: Any) -> Line2D:
    """An entry of a legend."""
    pattern = (0, look.dash) if look.dash else "-"
    known: dict[str, Any] = {
        "color": look.colour,
        "marker": look.shape,
        "markersize": 4.5,
        "linewidth": 1.5,
        "linestyle": pattern,
    }
    known["markerfacecolor"] = "white" if look.hollow else look.colour
    return Line2D([], [], label=label(text, 60), **(known | how))


def named(names: Iterable[str], levels: Iterable[Level]) -> dict[str, Look]:
    """The looks of a figure's names and of its straight lines."""
    return looks([*names, *(level.name for level in levels)])


def straight(axes: Axes, levels: Sequence[Level], known: dict[str, Look]) -> None:
    """Straight lines at values of an axis."""
    for level in levels:
        look = known[level.name]
        draw = axes.axhline if level.axis == "y" else axes.axvline
        draw(level.at, color=look.colour, linewidth=0.9, linestyle=(0, look.dash) if look.dash else "-", zorder=1)


def level_handles(levels: Iterable[Level], known: dict[str, Look]) -> list[Line2D]:
    """Entries of those that are named."""
    found = {level.label: level for level in levels if level.label}
    return [handle(known[one.name], text, linewidth=0.9, marker="") for text, one in found.items()]


def scale(axes: Axes, letter: str, values: Sequence[float], kind: str, room: float = 0.06) -> None:
    """Limits and ticks of the `letter` axis that show these values; `kind`: log, zero, percent, whole, joined."""
    axis = axes.xaxis if letter == "x" else axes.yaxis
    seen = np.asarray([v for v in values if math.isfinite(v) and ("log" not in kind or v > 0)], dtype=float)
    if seen.size == 0:
        seen = np.array([0.1, 1.0])
    low, high = float(seen.min()), float(seen.max())
    limit = axes.set_xlim if letter == "x" else axes.set_ylim
    if "log" in kind:
        axes.set(**{f"{letter}scale": "log"})
        wide = max((high / low) ** room, 1.08)
        limit(low / wide, high * wide)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _NEAR * low else (1,), numticks=8))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(plain_numbers())
        return
    low = min(low, 0.0) if "zero" in kind else low
    extra = room * (high - low) or 0.02 * abs(high) or 1.0
    limit(low - (0.0 if "zero" in kind and low == 0 else extra), high + extra)
    axis.set_major_locator(MaxNLocator(6, integer="whole" in kind))
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0) if "percent" in kind else plain_numbers())
