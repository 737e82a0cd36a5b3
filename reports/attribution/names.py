"""Names of rows left of a figure's axes, broken into lines by the widths of their letters."""

from functools import cache

from matplotlib.axes import Axes
from matplotlib.font_manager import findfont, get_font

from reports.drawing import FONT, label

SMALL = 7.5  # points
LEFT = 1.6  # inches that names have
_ROOM, _LINES = 1.46, 2  # inches of a line, and lines


@cache
def _advance(character: str) -> float:
    """Inches of one character at SMALL."""
    font = get_font(findfont(FONT))
    font.set_size(SMALL, 72)
    return float(font.load_char(ord(character)).linearHoriAdvance) / 65536 / 72


def inches(text: str) -> float:
    """Width at SMALL; of letters that the font has."""
    return sum(map(_advance, text))


def wrapped(text: str) -> str:
    """At most two lines that fit, broken at spaces where there are any; what is left out is an ellipsis."""
    lines = [""]
    for word in label(text, 90).split():
        joined = f"{lines[-1]} {word}".strip()
        if inches(joined) <= _ROOM:
            lines[-1] = joined
        else:
            lines += [word] if lines[-1] else []
            lines[-1] = word
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1]} …"]
    return "\n".join(map(_cut, lines))


def _cut(line: str) -> str:
    """The line, or as much of it as fits."""
    if inches(line) <= _ROOM:
        return line
    while inches(f"{line}…") > _ROOM:
        line = line[:-1]
    return f"{line}…"


def name(axes: Axes, text: str, place: float) -> None:
    """At the height `place` of the axes' data."""
    axes.annotate(
        wrapped(text), (0, place), xytext=(-5, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        ha="right", va="center", fontsize=SMALL, linespacing=1.05,
    )  # fmt: skip
