"""Figures as bytes: one style, no global state, and the same bytes for the same numbers.

Text is drawn as outlines (`svg.fonttype: path`): an SVG inside <img> may not load fonts, so outlines are what makes
labels look alike, and fit, on every reader's machine; they also leave no text of ours to be read as markup. The id salt
is fixed and the date left out, so re-rendering a run changes no byte. Coordinates keep a hundredth of a point, which
no screen shows and which makes pages of a hundred figures a third smaller.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, cast

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FuncFormatter

from reports.formats import visible
from reports.theme import GREY, INK, LOOKS, PALETTE

FONT = "DejaVu Sans"  # ships with matplotlib, hence the same outlines everywhere
__all__ = ["COLOURS", "INK", "NULL_GREY", "WIDTH", "Figure", "canvas", "label", "style", "svg"]

NULL_GREY, COLOURS = GREY, PALETTE
WIDTH = 4.4  # inches; narrow, so that 9 pt stays legible when a phone shows the figure 330 px wide

_PATH = re.compile(rb' d="[^"]*"')
_NUMBER = re.compile(rb"-?[0-9]+\.[0-9]+")

STYLE: dict[str, Any] = {
    "font.family": FONT,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "text.parse_math": False,  # a '$' in a name is a dollar sign
    "text.usetex": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "tdmoe-diag",
}


@dataclass(frozen=True)
class Figure:
    """A drawn figure with what a reader needs who cannot see it."""

    name: str
    title: str
    alt: str
    caption: str
    svg: bytes
    view: str = ""  # the table that stands below it
    tile: bool = False  # one of many of a kind


@contextmanager
def style() -> Iterator[None]:
    """Our style over matplotlib's defaults, whatever the user's own settings; restored afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        cast(dict[str, Any], matplotlib.rcParams).update(STYLE)
        yield


def canvas(height: float) -> Canvas:
    """An empty figure of our width that belongs to no window and no pyplot state."""
    figure = Canvas(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def svg(figure: Canvas) -> bytes:
    """The figure as SVG without date, creator or any other trace of when and where it was drawn."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", dpi=200, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"), None))
    return _PATH.sub(_shorter, buffer.getvalue())


def _shorter(path: re.Match[bytes]) -> bytes:
    """The same path with coordinates rounded to hundredths."""
    return _NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip(".").encode(), path[0])


@cache
def _drawable() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def label(text: str, limit: int = 48) -> str:
    """Text from outside as a label: one line, nothing invisible, nothing the font lacks, of bounded length."""
    line = " ".join(visible(text).split())
    line = "".join(character if ord(character) in _drawable() else "\ufffd" for character in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def colour(projection: str) -> str:
    """The colour of a projection, from a palette that colour-blind readers can tell apart."""
    return LOOKS[projection].colour if projection in LOOKS else PALETTE[4]


def marker(projection: str) -> str:
    """The marker of a projection, so that colour is never the only difference."""
    return LOOKS[projection].shape if projection in LOOKS else "D"


def plain_numbers() -> FuncFormatter:
    """Tick labels 0.01, 1, 1000 instead of mathematical markup."""
    return FuncFormatter(lambda value, _: f"{value:g}")


def signed_numbers() -> FuncFormatter:
    """Tick labels with their sign."""
    return FuncFormatter(lambda value, _: "0" if abs(value) < 1e-12 else f"{value:+.2g}".replace("-", "−"))
