"""Perplexity against bits saved, by method, ratio and set of layers, with the front of `reports.verdict.frontier`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.drawing import INK, NULL_GREY, Figure, canvas, label, style, svg
from reports.formats import EMPTY, fixed, listing, percent, significant
from reports.intervals import with_error
from reports.sections import Block
from reports.tables import Cell, Table
from reports.verdict.compared import Comparison
from reports.verdict.frontier import undominated
from reports.verdict.look import Look, above_axis, in_order, legend, lines_of, look, panel, signed
from reports.verdict.losses import Loss, perplexity
from reports.verdict.protocol import Column
from reports.verdict.subjects import Subject, plain

_PANEL, _GAP, _ABOVE, _BELOW = 1.75, 0.72, 0.3, 0.5  # inches
_MOST = 3  # texts
_TOLD = 8  # names in a caption


@dataclass(frozen=True)
class Point:
    """A model on a text: `reach` is how far its bar goes down and up, of the paired difference to the dense model."""

    loss: Loss
    name: str
    saved: float
    perplexity: float
    reach: tuple[float, float]

    @property
    def look(self) -> Look:
        return look(self.loss)


def pareto_block(subject: Subject, found: Comparison) -> Block | None:
    """Figure and table; None where no text has a compressed model beside the dense one."""
    columns = _columns(found)
    if not columns:
        return None
    with style():
        drawn = _draw(subject.name, found, columns)
    said = [f"on {found.names[c]}: {_named(front(points(found, c)))}" for c in columns]
    anchor = subject.anchor("pareto")
    figure = Figure(
        name=anchor,
        title="Perplexity against bits saved",
        alt=f"Perplexity against bits saved. {_alt(found, columns)}",
        caption=(
            "Perplexity above the dense model's (lower is better; the axis is logarithmic away from 0) against the "
            "share of stored bits saved. Dashed: the dense model. Stepped line: the front, what no other measured "
            f"model beats in both; {'; '.join(said)}. Bars: one standard error of the paired difference to the dense "
            "model. A dotted line joins one method's ratios. All texts have one scale of bits."
        ),
        svg=drawn,
    )
    return Block(
        anchor, subject.title("Perplexity against bits saved"), _table(found, columns), figure=figure, folded=True
    )


def _columns(found: Comparison) -> list[Column]:
    """Those that hold most models, in their order."""
    able = [c for c in found.columns if points(found, c) and _dense(found, c) is not None]
    most = sorted(able, key=lambda column: -len(points(found, column)))[:_MOST]
    return [column for column in able if column in most]


def points(found: Comparison, column: Column) -> list[Point]:
    """Every compressed model of a text that has a perplexity and known bits, by bits saved."""
    listed = []
    for model in found.models:
        loss = model.losses.get(column)
        value = None if loss is None else perplexity(loss)
        if loss is None or value is None or loss.bits_saved is None:
            continue
        error = loss.stderr or 0.0
        reach = (value * -math.expm1(-error), value * math.expm1(error))
        listed.append(Point(loss, model.name, loss.bits_saved, value, reach))
    return sorted(listed, key=lambda p: (p.saved, p.perplexity, p.name, p.loss.layers))


def front(listed: Sequence[Point]) -> list[Point]:
    """Those that nothing beats, by bits saved; nothing that changes no bits is among them."""
    return undominated([(p.saved, p.perplexity, p) for p in listed if p.saved > 0])[::-1]


def _dense(found: Comparison, column: Column) -> float | None:
    loss = found.dense.get(column)
    return None if loss is None else perplexity(loss)


def _draw(model: str, found: Comparison, columns: Sequence[Column]) -> bytes:
    looks = in_order(p.look for c in columns for p in points(found, c))
    handles = [
        Line2D([], [], color=NULL_GREY, linewidth=1.1, linestyle=(0, (4, 2)), label="dense"),
        Line2D([], [], color=INK, linewidth=1.1, label="front"),
        *(one.handle() for one in looks),
    ]
    above = _ABOVE + lines_of(len(handles)) + 0.24
    height = above + len(columns) * _PANEL + (len(columns) - 1) * _GAP + _BELOW
    figure = canvas(height)
    limits = _limits([p for c in columns for p in points(found, c)])
    for number, column in enumerate(columns):
        axes = panel(figure, _BELOW + (len(columns) - 1 - number) * (_PANEL + _GAP), _PANEL)
        _panel(axes, found, column, limits)
        dense = significant(_dense(found, column), 4)
        axes.set_title(label(f"{found.names[column]}, dense {dense}", 56), loc="left", pad=3)
        axes.set_ylabel("perplexity above dense")
        axes.set_xlabel("bits saved, %")
    legend(figure, handles, _ABOVE)
    signed(figure, model)
    return svg(figure)


def _limits(listed: Sequence[Point]) -> tuple[float, float]:
    """Per cent of bits that all panels show."""
    saved = [100 * p.saved for p in listed]
    least, most = min(0.0, *saved), max(1.0, *saved)
    room = 0.05 * (most - least)
    return least - room, most + room


def _panel(axes: Axes, found: Comparison, column: Column, limits: tuple[float, float]) -> None:
    listed, level = points(found, column), _dense(found, column)
    assert level is not None, "chosen by it"
    axes.axhline(0.0, color=NULL_GREY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=2)
    best = front(listed)
    if best:
        heights = [p.perplexity - level for p in best]
        places = [limits[0], *(100 * p.saved for p in best)]
        axes.step(places, [heights[0], *heights], where="pre", color=INK, linewidth=1.1, zorder=3)
    for series in _series(listed):
        axes.plot(
            [100 * p.saved for p in series], [p.perplexity - level for p in series], color=series[0].look.colour,
            linewidth=1, linestyle=":", zorder=2,
        )  # fmt: skip
    for point in listed:
        one = point.look
        axes.errorbar(
            [100 * point.saved], [point.perplexity - level], yerr=[[point.reach[0]], [point.reach[1]]],
            color=one.colour, marker=one.marker, markersize=one.size, markeredgecolor="white", markeredgewidth=0.4,
            elinewidth=1, capsize=2, zorder=5 if point.loss.is_published else 4,
        )  # fmt: skip
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    above_axis(axes, [p.perplexity - level + end for p in listed for end in (-p.reach[0], p.reach[1])], level)


def _series(listed: Sequence[Point]) -> list[list[Point]]:
    """The ratios of one method over the same layers."""
    found: dict[tuple[str, str, str], list[Point]] = {}
    for point in listed:
        if point.loss.ratio is not None:
            series = point.name.rpartition(" at ")[0]
            found.setdefault((series, point.loss.method, point.loss.layers), []).append(point)
    return [series for series in found.values() if len({p.loss.ratio for p in series}) > 1]


def _named(best: Sequence[Point]) -> str:
    names = [p.name for p in best]
    rest = len(names) - _TOLD
    return listing(names[:_TOLD] + ([f"{rest} more"] if rest > 0 else [])) if names else "none"


def _alt(found: Comparison, columns: Sequence[Column]) -> str:
    said = []
    for column in columns:
        told = [f"{p.name} {significant(p.perplexity, 4)} at {percent(p.saved)}" for p in points(found, column)]
        more = f" and {fixed(len(told) - 12, 0)} more" if len(told) > 12 else ""
        dense = significant(_dense(found, column), 4)
        said.append(f"{found.names[column]}: dense {dense}, {', '.join(told[:12])}{more}.")
    return " ".join(said)


def _table(found: Comparison, columns: Sequence[Column]) -> Table:
    by_column = [{(p.saved, p.name, p.loss.layers): p for p in points(found, c)} for c in columns]
    best = [{id(p.loss) for p in front(points(found, c))} for c in columns]
    lines = []
    for key in sorted({key for listed in by_column for key in listed}):
        saved, name, layers = key
        cells = [Cell(name), Cell(plain(layers) or EMPTY), Cell(percent(saved))]
        for listed, chosen in zip(by_column, best, strict=True):
            point = listed.get(key)
            cells.append(Cell(EMPTY, "not measured") if point is None else _cell(point, id(point.loss) in chosen))
        lines.append(cells)
    headings = ("method", "layers", "bits saved", *(found.names[c] for c in columns))
    caption = "Perplexity and nats a token above the dense model ± paired standard error, by bits saved"
    return Table(caption, headings, lines)


def _cell(point: Point, chosen: bool) -> Cell:
    loss = point.loss
    added = f", {with_error(loss.damage, loss.stderr, signed=True)}" if loss.measured else ""
    return Cell(f"{significant(point.perplexity, 4)}{added}", "on the front" if chosen else "")
