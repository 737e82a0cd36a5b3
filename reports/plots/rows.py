"""Figures that lie down: names in at most two lines left of the axes, a row each, numbers at the right of the marks."""

from collections.abc import Sequence
from functools import cache
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath

from reports.drawing import label
from reports.plots.frame import SMALL, Frame

LEFT, HEADING = 1.6, 0.31  # inches
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # behind text that a line would cross
_LETTERS = 27  # of a line left of the axes


class Rows:
    """A frame with one pair of axes, a unit a row, and headings between groups of rows."""

    def __init__(
        self,
        model: str,
        title: str,
        groups: Sequence[tuple[str, int]],
        handles: Sequence[Line2D],
        *,
        row: float = 0.36,
        right: float = 0.14,
        above: float = 0.0,
    ) -> None:
        tall = sum(row * count + (HEADING if heading else 0.0) for heading, count in groups)
        self.frame = Frame(model, title, [tall], handles, left=LEFT, right=right, above=above)
        self.axes: Axes = self.frame.axes(0)
        self.wide = self.axes.get_position().width * self.frame.figure.get_figwidth()
        self.axes.set_ylim(tall / row, 0)
        self.axes.grid(axis="y", visible=False)
        self.axes.set_yticks([])
        self.axes.spines["left"].set_visible(False)
        self._step, self._at = HEADING / row, 0.0

    def heading(self, text: str) -> None:
        """A heading above the rows that follow; nothing without a text."""
        if text:
            self._at += self._step
            self.axes.text(
                -LEFT / self.wide + 0.03, self._at - 0.28, label(text, 60), fontsize=8, va="bottom", fontweight="bold",
                transform=self.axes.get_yaxis_transform(), bbox=PAPER, zorder=7,
            )  # fmt: skip

    def row(self, text: str) -> float:
        """The place of the next row, which is called so."""
        place, self._at = self._at + 0.5, self._at + 1.0
        lines = wrap(label(text, 2 * _LETTERS), _LETTERS)[:2]
        self.axes.annotate(
            "\n".join(lines), (0, place), xytext=(-5, 0), xycoords=self.axes.get_yaxis_transform(),
            textcoords="offset points", ha="right", va="center", fontsize=SMALL, linespacing=1.05,
        )  # fmt: skip
        return place


@cache
def inches(text: str) -> float:
    """Width of a text in small type."""
    return float(TextPath((0, 0), text, size=SMALL).get_extents().width) / 72 if text.strip() else 0.0
