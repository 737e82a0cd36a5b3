"""Figures of `drift`: angle and norm over depth, routing over depth, local against accumulated, growing sets.

Error bars would be smaller than the markers; the tables below the figures have the standard errors.
"""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from reports.drawing import COLOURS, NULL_GREY, WIDTH, Figure, canvas, label, plain_numbers, style, svg
from reports.drift.variants import Accumulation, Variant, accumulations, largest, sets, variants
from reports.formats import fixed, percent
from reports.run import Row, Run, given

DEPTH, ROUTING, ACCUMULATED, SETS = "drift-depth", "drift-routing", "drift-accumulated", "drift-sets"
_PANEL, _GAP, _ABOVE, _BELOW, _LINE = 1.5, 0.36, 0.34, 0.48, 0.17  # inches
_LEFT, _RIGHT = 0.62, 0.14
_MARKERS = "osD^vP*X<>"
_MANY = 24  # layers from which on lines have no markers
_FEW = 12  # layers alone that are named


def drift_figures(run: Run) -> list[Figure]:
    """Those that the run's data allows: none when nothing was measured."""
    listed = [variant for variant in variants(run) if any(given(r, "angle_deg") for r in variant.rows.values())]
    model, drawn = run["model"], []
    shown = largest(listed)
    with style():
        if shown:
            drawn.append(_depth(model, shown))
        if any(given(row, "routing_agreement") for variant in shown for row in variant.rows.values()):
            drawn.append(_routing(model, shown))
        if found := accumulations(listed):
            drawn.append(_accumulated(model, found))
        if growing := sets(listed):
            drawn.append(_sets(model, growing))
    return drawn


def _depth(model: str, shown: Sequence[Variant]) -> Figure:
    panels = [("angle, °", _value("angle_deg")), ("norm ratio", _value("norm_ratio"))]
    ends = [(v.name, v.end) for v in shown if v.end is not None and given(v.end, "angle_deg", "norm_ratio")]
    said = [
        f"{name} {fixed(r['angle_deg'], 2)}° and {fixed(r['norm_ratio'], 3)} after layer {r['layer']}"
        for name, r in ends
    ]
    return Figure(
        name=DEPTH,
        title="Angle and norm ratio over depth",
        alt=f"Angle and norm ratio of the residual stream over layers. {'; '.join(said)}.",
        caption=(
            "Angle between the residual streams of compressed and dense model at every decoder layer's output (0° is "
            "no drift), and ratio of their lengths (1 is no change), means over tokens. All chosen layers are "
            "compressed together. Dashed: the dense model rounded."
        ),
        svg=_draw(model, shown, panels),
    )


def _routing(model: str, shown: Sequence[Variant]) -> Figure:
    panels = [("same experts, %", _percent("routing_agreement"))]
    if any(given(row, "routing_js") for variant in shown for row in variant.rows.values()):
        panels.append(("router JS distance", _value("routing_js")))
    said = []
    for variant in shown:
        rows = [row for row in variant.rows.values() if given(row, "routing_agreement")]
        if rows:
            row = min(rows, key=lambda r: float(r["routing_agreement"]))
            said.append(f"{variant.name} least at layer {row['layer']}, {percent(row['routing_agreement'])}")
    return Figure(
        name=ROUTING,
        title="Routing over depth",
        alt=f"Share of a token's experts that stay the same, over layers: {'; '.join(said)}.",
        caption=(
            "Share of a token's experts that the dense model chooses too, and Jensen-Shannon distance (base 2, from 0 "
            "to 1) of the routers' softmax distributions, means over tokens. A router reads the stream before its own "
            "layer's experts change it. Dashed: the dense model rounded."
        ),
        svg=_draw(model, shown, panels),
    )


def _accumulated(model: str, found: Sequence[Accumulation]) -> Figure:
    said = [
        f"{one.name}: together {fixed(one.together, 1)}°, root sum square {fixed(one.root_sum_square, 1)}°, sum "
        f"{fixed(one.sum, 1)}°"
        for one in found
    ]
    return Figure(
        name=ACCUMULATED,
        title="Local against accumulated",
        alt=f"Angles after the last compressed layer. {'; '.join(said)}.",
        caption=(
            "Angle after the last compressed layer: of each layer compressed alone (small, with its number where they "
            "are few), of what these come to if independent (root sum square) or all in one direction (sum), and of "
            "all layers compressed together."
        ),
        svg=_draw_accumulated(model, found),
    )


def _sets(model: str, growing: dict[str, list[Variant]]) -> Figure:
    said = [
        f"{name} from {fixed(ends[0]['angle_deg'], 1)}° with {line[0].size} to {fixed(ends[-1]['angle_deg'], 1)}° with "
        f"{line[-1].size} layers"
        for name, line in growing.items()
        if (ends := [v.end for v in line if v.end is not None and given(v.end, "angle_deg")])
    ]
    return Figure(
        name=SETS,
        title="Angle against compressed layers",
        alt=f"Angle after the last compressed layer over growing sets of layers. {'; '.join(said)}.",
        caption="Angle after the last compressed layer against the number of layers compressed together.",
        svg=_draw_sets(model, growing),
    )


Value = Callable[[Row], float]


def _value(column: str) -> Value:
    return lambda row: float(row[column]) if given(row, column) else float("nan")


def _percent(column: str) -> Value:
    return lambda row: 100 * _value(column)(row)


def _frame(model: str, panels: int, legend: int) -> tuple[Canvas, list[Axes], float]:
    """Panels one below the other under a legend of so many lines."""
    above = _ABOVE + _LINE * legend + 0.06
    height = above + panels * _PANEL + (panels - 1) * _GAP + _BELOW
    figure = canvas(height)
    placed = []
    for number in range(panels):
        bottom = _BELOW + (panels - 1 - number) * (_PANEL + _GAP)
        box = (_LEFT / WIDTH, bottom / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, _PANEL / height)
        placed.append(figure.add_axes(box))
    figure.text(0.97, 1 - 0.09 / height, label(model, 40), fontsize=7.5, color="#555555", va="top", ha="right")
    return figure, placed, height


def _legend(figure: Canvas, axes: Axes, height: float) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0.03, 1 - (_ABOVE - 0.1) / height), frameon=False,
        borderpad=0, handlelength=2.2, labelspacing=0.3,
    )  # fmt: skip


def _draw(model: str, shown: Sequence[Variant], panels: Sequence[tuple[str, Value]]) -> bytes:
    figure, placed, height = _frame(model, len(panels), len(shown))
    for axes, (title, value) in zip(placed, panels, strict=True):
        for number, variant in enumerate(shown):
            layers = sorted(variant.rows)
            colour, line = (NULL_GREY, (0, (4, 2))) if variant.is_cast else (COLOURS[number % len(COLOURS)], "-")
            axes.plot(
                layers, [value(variant.rows[layer]) for layer in layers], color=colour, linestyle=line, linewidth=1.4,
                marker="" if variant.is_cast or len(layers) > _MANY else _MARKERS[number % len(_MARKERS)],
                markersize=4, label=label(variant.name, 46), clip_on=False, zorder=3,
            )  # fmt: skip
        axes.set_ylabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(plain_numbers())
        axes.tick_params(labelbottom=axes is placed[-1])
    placed[-1].set_xlabel("decoder layer")
    _legend(figure, placed[0], height)
    return svg(figure)


def _draw_accumulated(model: str, found: Sequence[Accumulation]) -> bytes:
    tall, above = 0.5 * len(found), _ABOVE + _LINE * 4 + 0.06
    height = above + tall + _BELOW
    figure = canvas(height)
    axes = figure.add_axes((0.04, _BELOW / height, 0.92, tall / height))
    for place, one in enumerate(reversed(found)):
        kept = "" if place == len(found) - 1 else "_"  # a label that starts so is not in the legend
        angles, places = list(one.alone.values()), [place] * len(one.alone)
        axes.plot(angles, places, "o", color=NULL_GREY, markersize=3.5, label=f"{kept}each layer alone")
        if len(one.alone) <= _FEW:
            for layer, angle in one.alone.items():
                axes.annotate(
                    str(layer), (angle, place), xytext=(0, -9), textcoords="offset points", fontsize=6.5, ha="center",
                    color="#555555",
                )  # fmt: skip
        for name, marker, size, colour, value in (
            ("root sum square of these", "D", 8.5, COLOURS[1], one.root_sum_square),
            ("sum of these", "s", 5.5, COLOURS[4], one.sum),
            ("all layers together", "o", 5.0, COLOURS[0], one.together),
        ):
            axes.plot([value], [place], marker, color=colour, markersize=size, zorder=4, label=f"{kept}{name}")
        axes.text(0.01, place + 0.2, label(one.name, 50), fontsize=8, transform=axes.get_yaxis_transform())
    axes.set_ylim(-0.5, len(found) - 0.4)
    axes.set_xlim(left=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.xaxis.set_major_formatter(plain_numbers())
    axes.set_xlabel("angle after the last compressed layer, °")
    figure.text(0.97, 1 - 0.09 / height, label(model, 40), fontsize=7.5, color="#555555", va="top", ha="right")
    _legend(figure, axes, height)
    return svg(figure)


def _draw_sets(model: str, growing: dict[str, list[Variant]]) -> bytes:
    figure, (axes,), height = _frame(model, 1, len(growing))
    for number, (name, line) in enumerate(growing.items()):
        angles = [_value("angle_deg")(variant.end or {}) for variant in line]
        axes.plot(
            [variant.size for variant in line], angles, color=COLOURS[number % len(COLOURS)], linewidth=1.4,
            marker=_MARKERS[number % len(_MARKERS)], markersize=4, label=label(name, 46), zorder=3,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_ylabel("angle, °")
    axes.set_xlabel("layers compressed together")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(plain_numbers())
    _legend(figure, axes, height)
    return svg(figure)
