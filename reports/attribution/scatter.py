"""The loss above dense against each error, a panel an error and a point a model, both axes logarithmic."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from reports.attribution.ladders import MOBE, TDMOE, Attribution, Step
from reports.attribution.names import SMALL
from reports.attribution.shares import ANGLE, ERRORS, correlation
from reports.drawing import COLOURS, WIDTH, Figure, canvas, label, plain_numbers, svg
from reports.formats import fixed
from reports.run import Row, given

SCATTER = "attribution-errors"
_LOOKS = {TDMOE: ("TD-MoE", "o", COLOURS[0]), MOBE: ("MoBE", "s", COLOURS[2]), "": ("others", "^", "#8b9097")}
_COLUMNS, _PANEL, _GAP, _LEFT, _BETWEEN, _RIGHT, _ABOVE, _BELOW = 2, 1.25, 0.5, 0.7, 0.2, 0.1, 0.74, 0.3  # inches
_LEAST = 3  # points, below which a panel shows nothing


@dataclass(frozen=True)
class _Panel:
    error: str
    points: Sequence[tuple[float, float, str]]  # error, damage, family


def scatter_figure(model: str, found: Attribution) -> Figure | None:
    """None where no error has as many points as a panel needs."""
    panels = [panel for error in ERRORS if len((panel := _Panel(error, _points(found, error))).points) >= _LEAST]
    if not panels:
        return None
    lines = -(-len(panels) // _COLUMNS)
    height = _ABOVE + lines * _PANEL + (lines - 1) * _GAP + _BELOW
    wide = (WIDTH - _LEFT - _BETWEEN - _RIGHT) / _COLUMNS
    damages = [damage for panel in panels for _, damage, _ in panel.points]
    limits = (min(damages) / 1.6, max(damages) * 1.6)
    figure = canvas(height)
    for number, panel in enumerate(panels):
        line, column = divmod(number, _COLUMNS)
        bottom = _BELOW + (lines - 1 - line) * (_PANEL + _GAP)
        left = _LEFT + column * (wide + _BETWEEN)
        axes = figure.add_axes((left / WIDTH, bottom / height, wide / WIDTH, _PANEL / height))
        _draw(axes, panel, limits)
        axes.set_title(_name(panel.error), loc="left", pad=3, fontsize=SMALL)
        if row := _row(panel.error, found.predictors):
            axes.set_title(fixed(row["rank_correlation"], 2), loc="right", pad=3, fontsize=SMALL)
        axes.tick_params(labelleft=column == 0)
    middle = (_BELOW + height - _ABOVE) / 2 / height
    figure.text(0.012, middle, "nats a token above the dense model", rotation=90, va="center")
    handles = [
        Line2D([], [], marker=shape, color=tone, linewidth=0, markersize=5, label=name)
        for family, (name, shape, tone) in _LOOKS.items()
        if any(family == point[2] for panel in panels for point in panel.points)
    ]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.01, 1 - 0.28 / height), ncols=3, frameon=False,
                  borderpad=0, handletextpad=0.2, columnspacing=1.2)  # fmt: skip
    figure.text(0.02, 1 - 0.07 / height, "Loss against each error", fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.08 / height, label(model, 24), fontsize=SMALL, color="#555555", va="top", ha="right")
    hidden = _hidden(found)
    return Figure(
        name=SCATTER,
        title="Loss against each error",
        alt=f"Log-log panels of the loss above dense against errors of {len(panels[0].points)} models. "
        + "; ".join(_said(panel.error, found.predictors) for panel in panels)
        + ".",
        caption=(
            "Loss above the dense model's against each error, both axes logarithmic, a symbol a model; at the right "
            "above each panel the rank correlation. The closer to one rising line, the better an error predicts. "
            "Errors are means over all projections that any of the models compresses."
            + (f" {fixed(hidden, 0)} models that do not add to the loss are not shown." if hidden > 1 else "")
            + (" One model that does not add to the loss is not shown." if hidden == 1 else "")
        ),
        svg=svg(figure),
    )


def _compressed(found: Attribution) -> list[Step]:
    return [step for step in found.everything if step.measured]


def _hidden(found: Attribution) -> int:
    return sum(step.damage <= 0 for step in _compressed(found))


def _points(found: Attribution, error: str) -> list[tuple[float, float, str]]:
    """What a logarithmic scale can show; errors are over all projections that any model compresses."""
    whole = max(map(_projections, _compressed(found)), default=1)
    points = []
    for step in _compressed(found):
        value = step.value(error)
        if value is not None and value > 0 and step.damage > 0:
            share = 1.0 if error == ANGLE else _projections(step) / whole
            points.append((share * value, step.damage, step.family if step.family in _LOOKS else ""))
    return points


def _projections(step: Step) -> int:
    return len(str(step.row.get("projections") or "one").split(","))


def _draw(axes: Axes, panel: _Panel, limits: tuple[float, float]) -> None:
    for family, (_, shape, tone) in _LOOKS.items():
        chosen = [(x, y) for x, y, of in panel.points if of == family]
        axes.plot([x for x, _ in chosen], [y for _, y in chosen], shape, color=tone, markersize=4.5, alpha=0.9,
                  markeredgecolor="white", markeredgewidth=0.5, zorder=3)  # fmt: skip
    errors = [x for x, _, _ in panel.points]
    axes.set(xscale="log", yscale="log", ylim=limits, xlim=(min(errors) / 1.2, max(errors) * 1.2))
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 30 else (1,), numticks=7))
        axis.set_major_formatter(plain_numbers())
        axis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=SMALL)


def _name(error: str) -> str:
    return ERRORS[error] + (", °" if error == ANGLE else "")


def _row(error: str, rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.get("error") == error and given(row, "rank_correlation")), None)


def _said(error: str, rows: Sequence[Row]) -> str:
    row = _row(error, rows)
    return f"{_name(error)}: rank correlation {correlation(row)}" if row else _name(error)
