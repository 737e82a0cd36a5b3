"""A waterfall that lies down: a bar a step from the loss before it to the loss after it, all above the dense model.

Names stand left of the axes in at most two lines, the numbers at the bars, so that nothing is smaller than 7.5 pt where
a phone shows the figure. What was not measured keeps its row and says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from reports.attribution.ladders import Step
from reports.attribution.names import LEFT, SMALL, inches, name
from reports.drawing import COLOURS, INK, NULL_GREY, WIDTH, canvas, label, plain_numbers
from reports.formats import fixed

BETTER, WORSE, LEVEL, OTHER = COLOURS[0], COLOURS[3], "#6b7178", COLOURS[2]
ROW, HEADING = 0.33, 0.31  # inches
RIGHT, ABOVE, BELOW = 0.14, 0.62, 0.46
_PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # behind text that a line would cross


@dataclass(frozen=True)
class Bar:
    """`start` None: a whole bar, from the dense model's level; otherwise from the step before."""

    step: Step
    start: float | None = None
    note: str = ""
    colour: str = LEVEL
    name: str = ""  # where it is not the step's own


@dataclass(frozen=True)
class Group:
    """Bars under a heading."""

    heading: str
    bars: Sequence[Bar]


def chain(steps: Sequence[Step], gap: float | None) -> list[Bar]:
    """A ladder as bars: its first step whole, each other from the one before, with its change and share of the gap.

    After a step that was not measured the next one stands whole again, since what it changed is not known; so does
    MoBE's published preset, which is trained in another way and no further step.
    """
    bars: list[Bar] = []
    before: float | None = None
    for step in steps:
        if step.measured and before is not None and step.options.get("preset") != "published":
            change = step.damage - before
            note = signed(change) + (f" · {share_of(-change, gap)}" if gap else "")
            bars.append(Bar(step, before, note, BETTER if change <= 0 else WORSE))
        else:
            bars.append(whole(step))
        before = step.damage if step.measured else None
    return bars


def signed(change: float) -> str:
    """A change to a thousandth of a nat."""
    return fixed(change, 3, signed=True) if abs(change) >= 0.0005 else "0.000"


def whole(step: Step, colour: str = LEVEL, name: str = "") -> Bar:
    """From the dense model's level."""
    return Bar(step, None, fixed(step.damage, 3) if step.measured else "", colour, name)


def share_of(change: float, gap: float) -> str:
    """Of the gap, in whole per cent; tenths below one."""
    value = 100 * change / gap
    return f"{fixed(value, 0 if abs(value) >= 9.5 else 1)}\N{NO-BREAK SPACE}%"


def frame(groups: Sequence[Group], above: float = ABOVE) -> tuple[Canvas, Axes, float]:
    """Canvas, axes with a unit a row, and the canvas' height in inches."""
    rows = sum(len(group.bars) for group in groups)
    tall = ROW * rows + HEADING * len(groups)
    height = above + tall + BELOW
    figure = canvas(height)
    axes = figure.add_axes((LEFT / WIDTH, BELOW / height, (WIDTH - LEFT - RIGHT) / WIDTH, tall / height))
    axes.set_ylim(tall / ROW, 0)
    axes.grid(axis="y", visible=False)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return figure, axes, height


def draw(axes: Axes, groups: Sequence[Group], highest: float, lowest: float = 0.0) -> None:
    """The bars of all groups over [lowest, highest]; what reaches further is cut and its number kept."""
    room = highest - min(lowest, 0.0)
    axes.set_xlim(min(lowest, 0.0) - (0.02 * room if lowest < 0 else 0.0), highest)
    axes.axvline(0.0, color="#555555", linewidth=0.9, zorder=4)
    place = 0.0
    for group in groups:
        place += HEADING / ROW
        axes.text(
            -LEFT / (WIDTH - LEFT - RIGHT) + 0.03, place - 0.28, label(group.heading, 60), fontsize=8, va="bottom",
            fontweight="bold", transform=axes.get_yaxis_transform(), bbox=_PAPER, zorder=7,
        )  # fmt: skip
        for number, bar in enumerate(group.bars):
            follows = number + 1 < len(group.bars) and group.bars[number + 1].start is not None
            _bar(axes, bar, place + 0.5, highest, joined=follows)
            place += 1.0
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(plain_numbers())
    axes.set_xlabel("nats a token above the dense model")


def _bar(axes: Axes, bar: Bar, place: float, highest: float, *, joined: bool) -> None:
    name(axes, bar.name or bar.step.name, place)
    if not bar.step.measured:
        axes.text(0.015 * highest, place, label(bar.step.reason, 44), fontsize=SMALL, va="center", color=NULL_GREY,
                  style="italic")  # fmt: skip
        return
    value, start, stderr = bar.step.damage, bar.start or 0.0, bar.step.stderr()
    left, right = min(value, start), max(value, start)
    axes.barh(place, min(right, highest) - left, left=left, height=0.56, color=bar.colour, linewidth=0, zorder=2)
    if value <= highest:
        axes.errorbar(value, place, xerr=stderr, color=INK, elinewidth=1.1, capsize=2.2, capthick=1.1, zorder=5)
        if joined:
            axes.plot([value, value], [place + 0.28, place + 0.72], color=NULL_GREY, linewidth=0.8, zorder=1)
    _note(axes, bar, place, (left, right), highest)


def _note(axes: Axes, bar: Bar, place: float, ends: tuple[float, float], highest: float) -> None:
    """Right of the bar where it fits, inside where the bar is long enough, otherwise left of it."""
    left, right = ends
    text = bar.note + (" ›" if right > highest else "")
    inch = (axes.get_xlim()[1] - axes.get_xlim()[0]) / (WIDTH - LEFT - RIGHT)  # in data
    wide, stderr = (1.1 * inches(text) + 0.1) * inch, bar.step.stderr()
    if max(right, bar.step.damage + stderr) + wide <= highest:
        end = max(right, bar.step.damage + stderr) + 0.05 * inch
        axes.text(end, place, text, fontsize=SMALL, va="center", bbox=_PAPER, zorder=4)
    elif min(right, highest) - left > wide:
        end = min(right - (stderr if bar.start is None else 0.0), highest)
        axes.text(end - 0.06 * inch, place, text, fontsize=SMALL, va="center", ha="right", color="white",
                  fontweight="bold", zorder=6)  # fmt: skip
    else:
        axes.text(left - stderr - 0.05 * inch, place, text, fontsize=SMALL, va="center", ha="right", bbox=_PAPER,
                  zorder=4)  # fmt: skip
