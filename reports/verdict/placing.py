"""Short labels beside markers, each where it hides neither a marker nor another label; left out where it would."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

_WIDE, _TALL = 4.2, 7.5  # points that a character and a line take at size 7
_GAP = 2.0


@dataclass(frozen=True)
class Spot:
    """A marker at data coordinates: its radius in points, and what it is to be labelled with (nothing: no label)."""

    x: float
    y: float
    radius: float
    text: str = ""


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "_Box") -> bool:
        apart = self.right <= other.left or other.right <= self.left
        return not (apart or self.top <= other.bottom or other.top <= self.bottom)


def place(axes: Axes, spots: Sequence[Spot]) -> None:
    """Right, left, above or below, and the corners between; the limits of the axes must be final."""
    points = 72.0 / axes.figure.dpi
    centres = [tuple(points * part for part in axes.transData.transform((spot.x, spot.y))) for spot in spots]
    taken = [
        _Box(x - spot.radius, y - spot.radius, x + spot.radius, y + spot.radius)
        for spot, (x, y) in zip(spots, centres, strict=True)
    ]
    for spot, (x, y) in zip(spots, centres, strict=True):
        wide = _WIDE * len(spot.text)
        for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)):
            middle = x + across * (spot.radius + _GAP + wide / 2), y + up * (spot.radius + _GAP + _TALL / 2)
            box = _Box(middle[0] - wide / 2, middle[1] - _TALL / 2, middle[0] + wide / 2, middle[1] + _TALL / 2)
            if spot.text and not any(box.meets(other) for other in taken):
                taken.append(box)
                axes.annotate(
                    spot.text, (spot.x, spot.y), xytext=(middle[0] - x, middle[1] - y), textcoords="offset points",
                    fontsize=7, color="#444444", ha="center", va="center",
                )  # fmt: skip
                break
