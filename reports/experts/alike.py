"""Similarity of experts: where the pairs of a layer lie, and where independent experts with the same spectra would."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from reports.drawing import NULL_GREY, WIDTH, Figure, canvas, colour, label, plain_numbers, svg
from reports.experts.data import NAMES, SIMILARITIES, WeightStack
from reports.formats import fixed, listing

_LEFT, _RIGHT, _BELOW, _ABOVE, _LINE, _GAP = 0.62, 0.14, 0.38, 0.82, 0.18, 0.44  # inches


def alike_name(layer: int) -> str:
    """Name of a layer's figure, and of its file."""
    return f"similarity-L{layer:03d}"


def alike_figure(model: str, layer: int, listed: Sequence[WeightStack]) -> Figure:
    """The figure of one layer: a panel a measure, in it a line a projection and its null."""
    shown = [measure for measure in SIMILARITIES if any(measure in stack.similar for stack in listed)]
    panel = 2 * _LINE * len(listed) + 0.1
    height = _ABOVE + len(shown) * (panel + _GAP) - _GAP + _BELOW
    figure = canvas(height)
    for number, measure in enumerate(shown):
        bottom = _BELOW + (len(shown) - 1 - number) * (panel + _GAP)
        axes = figure.add_axes((_LEFT / WIDTH, bottom / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, panel / height))
        _draw(axes, measure, listed)
        axes.set_title(NAMES[measure], loc="left", pad=3)
    figure.legend(
        handles=[
            Line2D([], [], color=colour(listed[0].projection), linewidth=5, label="experts of the model"),
            Line2D([], [], color=NULL_GREY, linewidth=5, label="independent, same spectra"),
        ],
        loc="upper left", bbox_to_anchor=(0.02, 1 - 0.27 / height), ncols=2, frameon=False, handlelength=1.4,
        columnspacing=1.2, borderpad=0,
    )  # fmt: skip
    figure.text(0.03, 1 - 0.08 / height, f"Layer {layer}", fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.09 / height, label(model, 36), fontsize=7.5, color="#555555", va="top", ha="right")
    return Figure(
        name=alike_name(layer),
        title=f"Similarity of the experts of layer {layer}",
        alt=_alt(layer, listed, shown),
        caption=(
            "Pairs of experts: thin line 5 to 95 % of them, thick line the middle half, dot the median. Coloured: this "
            "model. Grey: every expert rotated at random, so that each keeps its singular values and nothing is "
            "shared. 1 means equal. Hollow dots: the arbitrary order of the experts' hidden units plays a part."
        ),
        svg=svg(figure),
    )


def _draw(axes: Axes, measure: str, listed: Sequence[WeightStack]) -> None:
    lowest = 0.0
    for number, stack in enumerate(listed):
        if measure not in stack.similar:
            continue
        free = bool(stack.similar[measure].get("order_free"))
        tone, at = colour(stack.projection), -(2.0 * number)
        for name, shade, where in ((measure, tone, at), (f"{measure}_null", NULL_GREY, at - 0.75)):
            values = np.asarray(stack.arrays.get(name, ()), dtype=float)
            if values.size:
                low, quarter, middle, three, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
                lowest = min(lowest, low)
                axes.plot([low, high], [where, where], color=shade, linewidth=1.2, solid_capstyle="butt")
                axes.plot([quarter, three], [where, where], color=shade, linewidth=5, solid_capstyle="butt")
                face = shade if free or shade == NULL_GREY else "white"
                axes.plot(middle, where, "o", markersize=5, markerfacecolor=face, markeredgecolor=shade, zorder=4)
    places = [-(2.0 * number) - 0.375 for number in range(len(listed))]
    axes.set_yticks(places, [label(stack.projection, 16) for stack in listed])
    axes.set(xlim=(lowest - 0.02, 1.02), ylim=(places[-1] - 0.9, places[0] + 0.9))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_formatter(plain_numbers())


def _alt(layer: int, listed: Sequence[WeightStack], shown: Sequence[str]) -> str:
    parts = []
    for measure in shown:
        rows = [(stack.projection, stack.similar[measure]) for stack in listed if measure in stack.similar]
        values = [f"{label(name, 16)} {fixed(row.get('median'))} ({fixed(row.get('null_mean'))})" for name, row in rows]
        parts.append(f"{NAMES[measure]}: {listing(values)}")
    return (
        f"Similarity of pairs of experts, layer {layer}: median, and in brackets the null's mean. {'; '.join(parts)}."
    )
