"""The residual stream after the last compressed layer: angle against norm ratio, as Figure 5 of *Rethinking* has it.

A model is a marker: its shape is the method, its area the bits saved, its colour the loss that it adds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from reports.drawing import INK, NULL_GREY, Figure, canvas, label, plain_numbers, style, svg
from reports.formats import EMPTY, fixed, percent
from reports.intervals import with_error
from reports.run import Row, given
from reports.sections import Block
from reports.tables import Cell, Table
from reports.verdict.compared import Compared, Comparison
from reports.verdict.look import in_order, legend, lines_of, look, panel, signed
from reports.verdict.losses import Loss
from reports.verdict.placing import Spot
from reports.verdict.placing import place as label_markers
from reports.verdict.protocol import Column
from reports.verdict.subjects import Subject, plain

_PANEL, _ABOVE, _BELOW, _BAR = 2.5, 0.3, 0.5, 0.62  # inches
_COLOURS = "cividis"  # even in lightness, and the same to colour-blind readers
_LEAST_LOSS = 1e-3  # nats; below it the colour is that of this one
_LABELLED = 40  # markers that are labelled at most


@dataclass(frozen=True)
class Place:
    """A model in the plane; `damage` is None where no text was read with it."""

    model: Compared
    row: Row
    loss: Loss | None

    @property
    def angle(self) -> float:
        return float(self.row["angle_deg"])

    @property
    def norm(self) -> float:
        return float(self.row["norm_ratio"])

    @property
    def damage(self) -> float | None:
        return self.loss.damage if self.loss is not None and self.loss.measured else None

    @property
    def name(self) -> str:
        return self.model.name


def geometry_block(subject: Subject, found: Comparison) -> Block | None:
    """Figure and table; None where no angle was measured."""
    column = _column(found)
    places = places_of(found, column)
    if not places:
        return None
    on = "" if column is None else found.names[column]
    with style():
        drawn = _draw(subject.name, places, on)
    text = f"on {on}" if on else "(not measured)"
    anchor = subject.anchor("geometry")
    least, most = places[0], max(places, key=lambda p: p.angle)
    ends = f"{least.name} turns it least, by {fixed(least.angle, 1)}°, {most.name} most, by {fixed(most.angle, 1)}°"
    told = [f"{p.name} {fixed(p.angle, 1)}°, {fixed(p.norm, 3)}" for p in places[:14]]
    figure = Figure(
        name=anchor,
        title="Residual stream after the last compressed layer",
        alt=f"Angle and norm ratio of the residual stream: {'; '.join(told)}.",
        caption=(
            "Residual stream after the last compressed layer: angle to the dense model's against the ratio of their "
            "lengths, means over tokens; no change is at 0° on the dashed line. Colour: nats a token added to the loss "
            f"{text}, white where not measured. Marker: the method. Area: the bits saved. Label: the ratio, where "
            f"there are several. {ends}."
        ),
        svg=drawn,
    )
    title = subject.title("Geometry of the residual stream")
    return Block(anchor, title, _table(places, on), figure=figure, folded=True)


def _column(found: Comparison) -> Column | None:
    """Whose losses give the colours: in which most of what has an angle was measured."""
    ours = [model for model in found.models if model.angle_on and not model.loss.is_control]
    counts = [sum(column in model.losses for model in ours) for column in found.columns]
    return found.columns[counts.index(max(counts))] if counts else None


def places_of(found: Comparison, column: Column | None) -> list[Place]:
    """By angle; controls that change nothing are left out."""
    listed = []
    for model in found.models:
        row = model.end
        if row is None or not given(row, "angle_deg", "norm_ratio") or model.loss.is_control:
            continue
        listed.append(Place(model, row, model.losses.get(column) if column is not None else None))
    return sorted(listed, key=lambda p: (p.angle, not p.model.loss.is_published, p.name, p.model.loss.layers))


def _draw(model: str, places: Sequence[Place], on: str) -> bytes:
    handles: list[Line2D] = [one.handle("white") for one in in_order(look(p.model.loss) for p in places)]
    sizes = _sizes(places)
    handles += [_size_handle(share) for share in sizes]
    known = [max(p.damage, _LEAST_LOSS) for p in places if p.damage is not None]
    above = _ABOVE + lines_of(len(handles)) + 0.08
    below = _BELOW + (_BAR if known else 0.0)
    figure = canvas(above + _PANEL + below)
    axes = panel(figure, below, _PANEL)
    norm = _norm(known)
    axes.axhline(1.0, color=NULL_GREY, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    for place in places:
        colour = "white" if place.damage is None or norm is None else _shade(norm, max(place.damage, _LEAST_LOSS))
        one = look(place.model.loss)
        axes.scatter(
            [place.angle], [place.norm], s=_area(place.model.bits_saved), marker=one.marker, c=[colour], edgecolors=INK,
            linewidths=0.8, zorder=4 if place.model.loss.is_published else 3,  # it is where a step of its ladder is too
        )  # fmt: skip
    _limits(axes, places)
    if len(places) <= _LABELLED:
        several = len({p.model.loss.ratio for p in places if p.model.loss.ratio is not None}) > 1
        label_markers(axes, [_spot(place, several=several) for place in places])
    axes.set(xlabel="angle, °", ylabel="norm ratio")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
        axis.set_major_formatter(plain_numbers())
    if norm is not None:
        _bar(figure.add_axes((0.3, 0.3 / figure.get_figheight(), 0.6, 0.1 / figure.get_figheight())), norm, on)
    legend(figure, handles, _ABOVE)
    signed(figure, model)
    return svg(figure)


def _area(saved: float | None) -> float:
    """Of a marker, in square points."""
    return 24.0 + 260.0 * max(0.0, saved or 0.0)


def _sizes(places: Sequence[Place]) -> list[float]:
    """Shares that the legend shows."""
    known = [p.model.bits_saved for p in places if p.model.bits_saved is not None]
    return sorted({min(known), max(known)}) if known else []


def _size_handle(share: float) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker="o", markersize=_area(share) ** 0.5, markerfacecolor="white",
        markeredgecolor=NULL_GREY, label=f"{percent(share)} of the bits saved",
    )  # fmt: skip


def _norm(known: Sequence[float]) -> Normalize | None:
    if not known:
        return None
    low, high = min(known), max(known)
    return LogNorm(low, high) if high > 4 * low else Normalize(low, high if high > low else low + 1e-3)


def _shade(norm: Normalize, value: float) -> tuple[float, ...]:
    from matplotlib import colormaps

    return tuple(float(part) for part in colormaps[_COLOURS](norm(value)))


def _bar(axes: Axes, norm: Normalize, on: str) -> None:
    from matplotlib.cm import ScalarMappable

    bar = axes.figure.colorbar(ScalarMappable(norm, _COLOURS), cax=axes, orientation="horizontal")
    bar.ax.xaxis.set_major_formatter(plain_numbers())
    bar.ax.xaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(labelsize=7.5, pad=1)
    bar.ax.grid(False)
    axes.text(
        -0.04, 0.5, f"added loss, nats\n({label(on, 22)})", transform=axes.transAxes,
        ha="right", va="center", fontsize=7.5,
    )  # fmt: skip


def _limits(axes: Axes, places: Sequence[Place]) -> None:
    most = max(p.angle for p in places)
    norms = [p.norm for p in places] + [1.0]
    room = 0.09 * max(max(norms) - min(norms), 0.02)
    axes.set(xlim=(0.0, 1.14 * most or 1.0), ylim=(min(norms) - room, max(norms) + room))


def _spot(place: Place, *, several: bool) -> Spot:
    """Labelled with its ratio, where there are several."""
    ratio = place.model.loss.ratio
    radius = _area(place.model.bits_saved) ** 0.5 / 2
    return Spot(place.angle, place.norm, radius, f"{ratio:g}" if several and ratio is not None else "")


def _table(places: Sequence[Place], on: str) -> Table:
    lines = []
    for place in places:
        row, loss = place.row, place.loss
        angle = with_error(place.angle, row.get("angle_stderr"), most=2)
        norm = fixed(place.norm) + (f" ± {fixed(row['norm_ratio_stderr'])}" if given(row, "norm_ratio_stderr") else "")
        saved = place.model.bits_saved
        added = (
            Cell(with_error(loss.damage, loss.stderr, signed=True))
            if loss is not None and loss.measured
            else Cell(EMPTY, "not measured")
        )
        lines.append(
            [
                Cell(place.name),
                Cell(plain(place.model.loss.layers)),
                Cell(percent(saved)),
                Cell(angle),
                Cell(norm),
                added,
            ]
        )
    added_on = f"added loss on {on}, nats" if on else "added loss, nats"
    headings = ("method", "layers", "bits saved", "angle, °", "norm ratio", added_on)
    return Table(
        "After the last compressed layer, by angle: means over tokens ± standard error over windows", headings, lines
    )
