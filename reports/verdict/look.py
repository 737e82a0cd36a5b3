"""What the verdict's figures have in common: a family's colour and marker, legends, and their axis of perplexities."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from reports.drawing import COLOURS, INK, NULL_GREY, WIDTH, label
from reports.methods import NAMES
from reports.verdict.losses import Loss
from reports.verdict.subjects import plain

LINE = 0.17  # inches of a line in a legend
_NEAR = 0.005  # of the dense perplexity, within which the axis above it is linear
_FACTOR = 20.0  # times that, from which on the rest is logarithmic


@dataclass(frozen=True)
class Look:
    """How a family is drawn; the markers differ too, so that colour is never the only difference."""

    name: str
    colour: str
    marker: str
    size: float = 6.0

    def handle(self, colour: str | None = None) -> Line2D:
        """For a legend."""
        face = colour or self.colour
        edge = INK if colour else self.colour
        return Line2D(
            [], [], linestyle="none", marker=self.marker, markersize=self.size, markerfacecolor=face,
            markeredgecolor=edge, markeredgewidth=0.8, label=label(self.name, 30),
        )  # fmt: skip


_PUBLISHED = Look("TD-MoE as published", COLOURS[3], "X", 7.0)
_CONTROL = Look("control", NULL_GREY, "h", 6.0)
_LOOKS: dict[str, tuple[str, str, float]] = {
    "tdmoe": (COLOURS[0], "o", 6.0),
    "mobe": (COLOURS[2], "s", 6.0),
    "svd_llm": (COLOURS[1], "D", 5.0),
    "svd": (COLOURS[5], "d", 6.0),
    "moe_svd": (COLOURS[4], "v", 6.0),
    "d2_moe": (COLOURS[9], "P", 6.0),
    "rtn": (INK, "*", 8.5),
}


def look(loss: Loss) -> Look:
    """Of TD-MoE as published, of each family, of the controls; anything else is called by its own name."""
    if loss.is_published:
        return _PUBLISHED
    if loss.is_control:
        return _CONTROL
    return _look(loss.family)


def _look(family: str) -> Look:
    return Look(NAMES.get(family) or plain(family), *_LOOKS.get(family, (NULL_GREY, "^")))


def in_order(looks: Iterable[Look]) -> list[Look]:
    """Each once: TD-MoE as published first, then as above, then the others."""
    known = [_PUBLISHED, *map(_look, _LOOKS)]
    found = set(looks)
    rest = sorted(found - set(known), key=lambda one: (one == _CONTROL, one.name))
    return [one for one in known if one in found] + rest


def legend(figure: Canvas, handles: Sequence[Line2D], top: float, columns: int = 2) -> None:
    """From `top` inches below the upper edge."""
    height = figure.get_figheight()
    figure.legend(
        handles=list(handles), loc="upper left", bbox_to_anchor=(0.02, 1 - top / height), frameon=False, borderpad=0,
        ncols=columns, handlelength=1.6, columnspacing=1.2, labelspacing=0.35,
    )  # fmt: skip


def lines_of(count: int, columns: int = 2) -> float:
    """Inches that a legend of so many entries takes."""
    return LINE * 1.12 * math.ceil(count / columns)


def signed(figure: Canvas, model: str) -> None:
    """The model's name in the upper right corner."""
    height = figure.get_figheight()
    figure.text(0.97, 1 - 0.09 / height, label(model, 40), fontsize=7.5, color="#555555", va="top", ha="right")


def panel(figure: Canvas, bottom: float, tall: float, left: float = 0.72, right: float = 0.12) -> Axes:
    """Axes at so many inches above the lower edge."""
    height = figure.get_figheight()
    return figure.add_axes((left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, tall / height))


def above_axis(axes: Axes, seen: Sequence[float], level: float) -> None:
    """Perplexities above the dense one's, `level`: linear near 0, logarithmic beyond where they differ by much."""
    low, high = min(0.0, *seen), max(0.0, *seen)
    near = _NEAR * level
    if high > _FACTOR * near:
        axes.set_yscale("symlog", linthresh=near, linscale=0.6)
        axes.set_ylim(min(low, 0.0) - 0.5 * near, high * 1.5)
        top = math.floor(math.log10(high))
        decades = [10.0**power for power in range(math.ceil(math.log10(near)), top + 1)]
        axes.yaxis.set_major_locator(FixedLocator([0.0, *decades]))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        room = max(0.08 * (high - low), 0.1 * near)
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_signed))


def _signed(value: float, _: int | None = None) -> str:
    """A tick: 0, +1, +100, −0.5."""
    return "0" if abs(value) < 1e-12 else f"{value:+,.6g}".replace("-", "−")
