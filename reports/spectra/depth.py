"""Exponents over depth: a heat map of alpha minus its Gaussian null, layer by layer.

The difference is what carries meaning: alpha alone is mostly the unfolding's aspect ratio. Zero is the palette's
middle, and a cell that was not measured is hatched so that it cannot be taken for zero.
"""

import numpy as np
import seaborn
from matplotlib.axes import Axes

from reports.drawing import INK, WIDTH, Figure, canvas, label, signed_numbers, svg
from reports.formats import fixed
from reports.run import MODES, Stack, given, projections_of

DEPTH = "spectra-depth"
_ANNOTATED_ROWS = 24  # more rows make the numbers unreadable; the table below the figure has them all
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.62, 0.12, 0.62, 1.02  # inches around the map


# Blue to red over white, no darker than dark text can be read on.
_COLOURS = seaborn.diverging_palette(250, 20, s=80, l=62, as_cmap=True)


def excess(stack: Stack, mode: str) -> float | None:
    """alpha - alpha_null of one unfolding, or None when either is missing."""
    row = stack.rows.get(mode)
    if row is None or not given(row, "alpha", "alpha_null"):
        return None
    return float(row["alpha"]) - float(row["alpha_null"])


def depth_figure(model: str, listed: list[Stack]) -> Figure:
    """The heat map of all stacks: one row a layer, one column a projection and mode."""
    layers = sorted({stack.layer for stack in listed})
    projections = projections_of(listed)
    columns = [(projection, mode) for projection in projections for mode in MODES]
    values = np.full((len(layers), len(columns)), np.nan)
    numbers = np.full(values.shape, "", dtype=object)
    for stack in listed:
        for mode in MODES:
            place = layers.index(stack.layer), columns.index((stack.projection, mode))
            difference = excess(stack, mode)
            if difference is not None:
                values[place] = difference
                numbers[place] = fixed(stack.rows[mode]["alpha"])
    return Figure(
        name=DEPTH,
        title="Exponents over depth",
        alt=_alt(values, layers, columns),
        caption=(
            "Colour: exponent alpha minus that of a Gaussian stack of the same shape (no unit). Red is steeper than "
            "the null, blue is flatter, hatched is not measured."
            + (" Numbers in the cells: alpha." if len(layers) <= _ANNOTATED_ROWS else "")
        ),
        svg=_draw(label(model, 44), values, numbers, layers, projections),
    )


def _draw(model: str, values: np.ndarray, numbers: np.ndarray, layers: list[int], projections: list[str]) -> bytes:
    few = len(layers) <= _ANNOTATED_ROWS
    tall = len(layers) * (0.22 if few else 0.09)
    height = _ABOVE + tall + _BELOW
    figure = canvas(height)
    across = (WIDTH - _LEFT - _RIGHT) / WIDTH
    axes = figure.add_axes((_LEFT / WIDTH, _BELOW / height, across, tall / height))
    bar = figure.add_axes((_LEFT / WIDTH, 1 - 0.42 / height, across, 0.09 / height))
    measured = np.abs(values[np.isfinite(values)])
    limit = max(float(measured.max()) if measured.size else 0.0, 1e-3)
    axes.patch.set(facecolor="#f1f1f1", hatch="//////", edgecolor="#b5b5b5", linewidth=0)
    axes.grid(False)
    seaborn.heatmap(
        values, ax=axes, cbar_ax=bar, cmap=_COLOURS, vmin=-limit, vmax=limit, annot=numbers if few else None, fmt="",
        annot_kws={"fontsize": 6.5, "color": INK}, linewidths=0.4 if few else 0, linecolor="white", rasterized=not few,
        cbar_kws={"orientation": "horizontal", "format": signed_numbers()}, xticklabels=False, yticklabels=False,
    )  # fmt: skip
    bar.set_title("alpha − alpha of the Gaussian null", fontsize=8, pad=3)
    bar.tick_params(labelsize=7, length=2, pad=1)
    bar.grid(False)
    _label_axes(axes, layers, projections, tall)
    figure.text(0.02, 0.05 / height, model, fontsize=7, color="#555555", va="bottom")
    return svg(figure)


def _label_axes(axes: Axes, layers: list[int], projections: list[str], tall: float) -> None:
    step = max(1, int(np.ceil(0.15 * len(layers) / tall)))
    rows = range(0, len(layers), step)
    axes.set_yticks([row + 0.5 for row in rows], [str(layers[row]) for row in rows], rotation=0, fontsize=7.5)
    axes.set_ylabel("layer")
    wide = len(MODES) * len(projections)
    names = list(MODES) * len(projections)
    axes.set_xticks([column + 0.5 for column in range(wide)], names, rotation=0, fontsize=6.5 if wide > 6 else 8)
    axes.tick_params(length=2, pad=2)
    for index, projection in enumerate(projections):
        place = (index + 0.5) * len(MODES), -0.06 / tall * len(layers)
        axes.text(*place, label(projection, 16), ha="center", va="bottom", fontweight="bold")
        if index:
            axes.axvline(index * len(MODES), color="white", linewidth=3)
    axes.set_xlabel("mode of the unfolding, by projection")


def _alt(values: np.ndarray, layers: list[int], columns: list[tuple[str, str]]) -> str:
    measured = np.isfinite(values)
    span = f"{len(layers)} layers from {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
    spread = f"Heat map, {span} by {len(columns)} projections and modes."
    if not measured.any():
        return spread + " No cell was measured."

    def place(flat: np.intp) -> str:
        row, column = np.unravel_index(flat, values.shape)
        return f"{fixed(values[row, column], signed=True)} (layer {layers[row]}, {' '.join(columns[column])})"

    blank = int(values.size - measured.sum())
    return (
        f"{spread} Alpha minus its Gaussian null goes from {place(np.nanargmin(values))} to "
        f"{place(np.nanargmax(values))}; {int((values[measured] > 0).sum())} of {int(measured.sum())} cells are above "
        f"zero" + (f"; {blank} cells were not measured." if blank else ".")
    )
