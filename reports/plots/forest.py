"""A forest: a row a subject, on it its values with their intervals, and a number at the right."""

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.drawing import plain_numbers, svg
from reports.plots import Forest, Mark
from reports.plots.frame import SMALL, handle, level_handles, named, scale, straight
from reports.plots.rows import Rows, inches
from reports.theme import Look


def draw(plot: Forest, model: str) -> bytes:
    """The figure as SVG."""
    entries = [entry for _, found in plot.groups for entry in found]
    marks = [mark for entry in entries for mark in entry.marks]
    known = named([mark.name for mark in marks], plot.levels)
    labels = {_title(mark, known): mark for mark in reversed(marks) if _title(mark, known)}
    handles = [_handle(mark, text, known) for text, mark in reversed(labels.items())]
    right = max([0.0, *(inches(line) for entry in entries for line in entry.note.split("\n"))]) + 0.2
    rows = Rows(
        model, plot.title, [(heading, len(found)) for heading, found in plot.groups],
        handles + level_handles(plot.levels, known), right=right,
    )  # fmt: skip
    axes = rows.axes
    straight(axes, plot.levels, known)
    for heading, found in plot.groups:
        rows.heading(heading)
        for entry in found:
            place = rows.row(entry.title)
            for mark in entry.marks:
                _mark(axes, mark, place, known[mark.name])
            axes.annotate(
                entry.note, (1, place), xytext=(8, 0), xycoords=axes.get_yaxis_transform(),
                textcoords="offset points", va="center", fontsize=SMALL, linespacing=1.1,
            )  # fmt: skip
    values = [v for m in marks for v in (m.value, m.low, m.high) if v is not None] + [lv.at for lv in plot.levels]
    scale(axes, "x", values, "log" if plot.log else "")
    axes.xaxis.set_major_formatter(plain_numbers())
    axes.set_xlabel(plot.x)
    return svg(rows.frame.figure)


def _title(mark: Mark, known: dict[str, Look]) -> str:
    return known[mark.name].title if mark.label is None else mark.label


def _handle(mark: Mark, text: str, known: dict[str, Look]) -> Line2D:
    line = 1.6 if mark.low is not None else 0
    return handle(known[mark.name], text, linewidth=line, linestyle="-", marker=known[mark.name].shape or "o",
                  fillstyle="none" if mark.hollow else "full")  # fmt: skip


def _mark(axes: Axes, mark: Mark, place: float, look: Look) -> None:
    if mark.low is not None and mark.high is not None:
        axes.plot([mark.low, mark.high], [place] * 2, color=look.colour, linewidth=1.4, solid_capstyle="butt", zorder=3)
    if mark.inner is not None:
        axes.plot(mark.inner, [place] * 2, color=look.colour, linewidth=5, solid_capstyle="butt", zorder=3)
    axes.plot(mark.value, place, look.shape or "o", color=look.colour, markersize=5, zorder=4, markeredgewidth=1.2,
              markerfacecolor="white" if mark.hollow else look.colour)  # fmt: skip
