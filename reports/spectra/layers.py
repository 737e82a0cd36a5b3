"""The spectra of one layer: three stacked log-log panels, expert, output and input, on shared axes.

Stacked rather than side by side so that a phone shows them whole; shared axes so that slopes compare between modes.
Lines are thinned to log-spaced indices, which a log axis cannot tell from the full series.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from reports.drawing import INK, NULL_GREY, WIDTH, Figure, canvas, colour, label, marker, plain_numbers, svg
from reports.formats import fixed, integer, listing
from reports.run import MODES, Row, Stack, given

Arrays = Mapping[str, Any]

_POINTS = 80
_LEFT, _RIGHT, _BELOW, _ABOVE, _PANEL, _GAP = 0.6, 0.12, 0.62, 0.98, 1.35, 0.3  # inches


def layer_name(layer: int) -> str:
    """Name of a layer's figure, and of its file."""
    return f"spectra-L{layer:03d}"


def layer_figure(model: str, layer: int, listed: list[Stack], spectra: Mapping[str, Arrays]) -> Figure:
    """The figure of one layer from its measured stacks and their singular values."""
    height = _ABOVE + len(MODES) * _PANEL + (len(MODES) - 1) * _GAP + _BELOW
    figure = canvas(height)
    seen, longest = [np.ones(1)], 2
    drawn = [stack for stack in listed if stack.projection in spectra]
    panels: list[Axes] = []
    for number, mode in enumerate(MODES):
        bottom = _BELOW + (len(MODES) - 1 - number) * (_PANEL + _GAP)
        box = (_LEFT / WIDTH, bottom / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, _PANEL / height)
        axes = figure.add_axes(box)
        panels.append(axes)
        for stack in drawn:
            values = np.asarray(spectra[stack.projection].get(mode, ()), dtype=float)
            null = np.asarray(spectra[stack.projection].get(f"{mode}_null", ()), dtype=float)
            if mode in stack.rows and values.size and values[0] > 0:
                seen.append(_draw_spectrum(axes, stack.projection, values, null, stack.rows[mode]))
                longest = max(longest, values.size)
        sizes = _sizes([(stack.projection, stack.rows[mode]) for stack in drawn if mode in stack.rows])
        axes.set_title(f"{mode} mode, {sizes}", loc="left", pad=3)
    _scale(panels, np.concatenate(seen), longest)
    panels[1].set_ylabel("σᵢ / σ₁ (no unit)")
    panels[-1].set_xlabel("index i")
    projections = [stack.projection for stack in drawn]
    figure.legend(
        handles=_legend(projections), loc="upper left", bbox_to_anchor=(0.02, 1 - 0.27 / height), ncols=3,
        frameon=False, handlelength=2.2, columnspacing=1.2, borderpad=0,
    )  # fmt: skip
    figure.text(0.03, 1 - 0.08 / height, f"Layer {layer}", fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.09 / height, label(model, 36), fontsize=7.5, color="#555555", va="top", ha="right")
    return Figure(
        name=layer_name(layer),
        title=f"Spectra of layer {layer}",
        alt=_alt(layer, drawn),
        caption=(
            "Singular values over the largest one against their index, both axes logarithmic. Dashed grey: a Gaussian "
            "stack of the same shape and total energy, one line a projection. Thin dark line: the fitted power law "
            "over its fit range. Dotted: below the noise floor, not fitted."
        ),
        svg=svg(figure),
    )


def thinned(count: int, points: int = _POINTS) -> np.ndarray:
    """Indices 1..count, log-spaced, with the last few kept because a spectrum may fall off there."""
    spaced = np.geomspace(1, count, points).round().astype(int)
    return np.unique(np.concatenate([spaced, np.arange(max(1, count - 3), count + 1)]))


def _draw_spectrum(axes: Axes, projection: str, values: np.ndarray, null: np.ndarray, row: Row) -> np.ndarray:
    """Draw one spectrum with its null and fit; returns the heights that have to be in view."""
    top = values[0]
    seen = []
    if null.size and null[0] > 0:
        index = thinned(null.size, _POINTS // 2)
        axes.plot(index, null[index - 1] / top, color=NULL_GREY, linewidth=0.9, linestyle=(0, (4, 2)), zorder=2)
        seen.append(null[index - 1] / top)
    index = thinned(values.size)
    ratio = values[index - 1] / top
    positive = np.isfinite(ratio) & (ratio > 0)
    solid = positive & (values[index - 1] > (row.get("noise_floor") or 0.0))
    seen.append(ratio[solid])
    tone = colour(projection)
    axes.plot(
        index[solid], ratio[solid], color=tone, linewidth=1.8, zorder=3, marker=marker(projection), markersize=3.5,
        markevery=0.18,
    )  # fmt: skip
    if (positive & ~solid).any():
        axes.plot(index[positive & ~solid], ratio[positive & ~solid], color=tone, linewidth=1, linestyle=":", alpha=0.6)
    if given(row, "alpha", "fit_first", "fit_last"):
        first, last = int(row["fit_first"]), min(int(row["fit_last"]), values.size)
        ends = np.array([first, last], dtype=float)
        seen.append(_fitted(values / top, float(row["alpha"]), ends))
        axes.plot(ends, seen[-1], color=INK, linewidth=0.7, zorder=4)
    return np.concatenate(seen)


def _fitted(values: np.ndarray, alpha: float, ends: np.ndarray) -> np.ndarray:
    """The least-squares line of slope -alpha at the ends of its range: it passes through the means of the logs."""
    index = np.arange(ends[0], ends[1] + 1)
    fitted = values[int(ends[0]) - 1 : int(ends[1])]
    use = fitted > 0
    centre = np.log(fitted[use]).mean() + alpha * np.log(index[use]).mean()
    return np.asarray(np.exp(centre) * ends**-alpha)


def _scale(panels: list[Axes], seen: np.ndarray, longest: int) -> None:
    """One scale for all panels, with every solid line, null and fit in view."""
    heights = seen[np.isfinite(seen) & (seen > 0)]
    bottom, top = heights.min() * 0.85, heights.max() * 1.15
    decades = np.log10(top / bottom)
    for number, axes in enumerate(panels):
        axes.set(xscale="log", yscale="log", xlim=(0.9, longest * 1.15), ylim=(bottom, top))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.6 else (1,), numticks=8))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(plain_numbers())
            axis.set_minor_locator(NullLocator())
        if number < len(panels) - 1:
            axes.tick_params(labelbottom=False)


def _sizes(rows: list[tuple[str, Row]]) -> str:
    """How many singular values, said once when all projections agree."""
    counts: dict[str, list[str]] = {}
    for projection, row in rows:
        counts.setdefault(integer(row.get("n")), []).append(label(projection, 16))
    if len(counts) == 1:
        return f"n = {next(iter(counts))}"
    return "n = " + ", ".join(f"{count} ({', '.join(names)})" for count, names in counts.items()) if counts else "none"


def _legend(projections: list[str]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=colour(name), marker=marker(name), markersize=3.5, linewidth=1.8, label=label(name, 16))
        for name in projections
    ]
    null = Line2D([], [], color=NULL_GREY, linewidth=0.9, linestyle=(0, (4, 2)), label="Gaussian null")
    return [*lines, null, Line2D([], [], color=INK, linewidth=0.7, label="power-law fit")]


def _alt(layer: int, listed: list[Stack]) -> str:
    parts = []
    for mode in MODES:
        rows = [(stack.projection, stack.rows[mode]) for stack in listed if mode in stack.rows]
        values = [f"{name} {fixed(row.get('alpha'))} ({fixed(row.get('alpha_null'))})" for name, row in rows]
        parts.append(f"{mode}: {listing(values)}" if values else f"{mode}: not measured")
    said = "; ".join(parts)
    return f"Log-log spectra of layer {layer}. Fitted exponent and, in brackets, its Gaussian null. {said}."
