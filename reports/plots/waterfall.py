"""A waterfall that lies down: a bar a step, from the value before it to the value after it.

What was not measured keeps its row and says why; a bar beyond the end of the axis is cut and its number kept.
"""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reports.drawing import label, plain_numbers, svg
from reports.plots import Bar, Waterfall
from reports.plots.frame import SMALL, level_handles, named, straight
from reports.plots.rows import PAPER, Rows, inches
from reports.theme import GREY, INK, Look

_CLEAR = 1.04  # of the highest bar, where the axis ends


def draw(plot: Waterfall, model: str) -> bytes:
    """The figure as SVG."""
    bars = [bar for _, found in plot.groups for bar in found]
    known = named([bar.name for bar in bars], plot.levels)
    ends = [e for bar in bars if bar.value is not None for e in (bar.value - bar.error, bar.value + bar.error)]
    highest = (plot.most if plot.most is not None else max([1e-6, *ends])) * _CLEAR
    lowest = min([0.0, *ends])
    rows = Rows(
        model, plot.title, [(heading, len(found)) for heading, found in plot.groups],
        level_handles(plot.levels, known), row=0.33, above=0.3 if plot.gap else 0.0,
    )  # fmt: skip
    axes = rows.axes
    axes.set_xlim(lowest - (0.02 * (highest - lowest) if lowest < 0 else 0.0), highest)
    axes.axvline(0.0, color="#555555", linewidth=0.9, zorder=4)
    straight(axes, plot.levels, known)
    for heading, found in plot.groups:
        rows.heading(heading)
        for number, bar in enumerate(found):
            joined = number + 1 < len(found) and found[number + 1].start is not None
            _bar(axes, bar, rows.row(bar.title), known[bar.name], rows.wide, joined=joined)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(plain_numbers())
    axes.set_xlabel(plot.x)
    if plot.gap is not None:
        start, gap = plot.gap[0], plot.gap[0] - plot.gap[1]
        shares = (lambda value: 100 * (start - value) / gap, lambda share: start - share * gap / 100)
        top = axes.secondary_xaxis("top", functions=shares)
        top.set_xticks([0, 25, 50, 75, 100])
        top.set_xlabel(plot.share, labelpad=3)
    return svg(rows.frame.figure)


def _bar(axes: Axes, bar: Bar, place: float, look: Look, wide: float, *, joined: bool) -> None:
    highest = axes.get_xlim()[1]
    if bar.value is None:
        axes.text(0.015 * highest, place, label(bar.note, 44), fontsize=SMALL, va="center", color=GREY, style="italic")
        return
    left, right = sorted((bar.value, bar.start or 0.0))
    axes.barh(place, min(right, highest) - left, left=left, height=0.56, color=look.colour, linewidth=0, zorder=2)
    if bar.value <= highest:
        axes.errorbar(bar.value, place, xerr=bar.error, color=INK, elinewidth=1.1, capsize=2.2, zorder=5)
        if joined:
            axes.plot([bar.value] * 2, [place + 0.28, place + 0.72], color=GREY, linewidth=0.8, zorder=1)
    _note(axes, bar, place, (left, right), wide)


def _note(axes: Axes, bar: Bar, place: float, ends: tuple[float, float], wide: float) -> None:
    """Right of the bar where it fits, inside where the bar is long enough, otherwise left of it."""
    (left, right), (lowest, highest) = ends, axes.get_xlim()
    text = bar.note + (" ›" if right > highest else "")
    inch = (highest - lowest) / wide
    room, end = (1.1 * inches(text) + 0.1) * inch, max(right, (bar.value or 0.0) + bar.error)
    if end + room <= highest:
        axes.text(end + 0.05 * inch, place, text, fontsize=SMALL, va="center", bbox=PAPER, zorder=4)
    elif min(right, highest) - left > room:
        inner = min(right - (bar.error if bar.start is None else 0.0), highest) - 0.06 * inch
        axes.text(
            inner, place, text, fontsize=SMALL, va="center", ha="right", color="white", fontweight="bold", zorder=6
        )
    else:
        before = left - bar.error - 0.05 * inch
        axes.text(before, place, text, fontsize=SMALL, va="center", ha="right", bbox=PAPER, zorder=4)
