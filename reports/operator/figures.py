"""The figures of `operator`: errors over storage, measured errors against their bounds, growth of the bound."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter

from reports.drawing import COLOURS, INK, NULL_GREY, Figure, canvas, label, marker, plain_numbers, style, svg
from reports.formats import fixed, listing, percent
from reports.operator.answer import growth_slopes
from reports.operator.data import Point, at_storage, average, bounded, points, title
from reports.run import MODES, Row, Run, given, projection_order

STORAGE, BOUNDS, GROWTH = "operator-storage", "operator-bounds", "operator-growth"
_MODE_COLOURS = dict(zip(MODES, (COLOURS[0], COLOURS[1], COLOURS[2]), strict=True))
_MARKERS = "osD^vPX*<>"
_LOOKS: tuple[dict[str, Any], ...] = (
    {"linewidth": 1.6},
    {"linewidth": 1.1, "linestyle": (0, (1, 1.5))},
    {"linewidth": 0.9, "linestyle": (0, (4, 2))},
)
_SAID = ("", ", equal fractions", "")


def operator_figures(run: Run) -> list[Figure]:
    """The figures that the run's data allows: none when nothing was measured."""
    with style():
        drawn = (_storage(points(run), run["model"]), _bounds(bounded(run), run["model"]), _growth(run))
    return [figure for figure in drawn if figure is not None]


def _storage(found: list[Point], model: str) -> Figure | None:
    lines = sorted({_line(point) for point in found})
    if not lines:
        return None
    figure = canvas(5.1 + 0.19 * len(lines))
    top = 1 - 0.35 / figure.get_figheight()
    bottom = (0.65 + 0.19 * len(lines)) / figure.get_figheight()
    panels = figure.subplots(2, 1, sharex=True)
    handles = []
    for number, line in enumerate(lines):
        ours = sorted((p for p in found if _line(p) == line), key=lambda p: p.middle("kept_ratio") or 0.0)
        look: dict[str, Any] = {"color": INK if line[1] == "svd" else COLOURS[number % len(COLOURS)]}
        look |= {"marker": _MARKERS[number % len(_MARKERS)], "markersize": 3.5, **_LOOKS[line[0]]}
        for axes, column in zip(panels, ("operator_error", "weight_error"), strict=True):
            axes.plot([p.middle("kept_ratio") for p in ours], [p.middle(column) for p in ours], **look)
        handles.append(Line2D([], [], **look, label=label(title(line[1]) + _SAID[line[0]], 60)))
    for axes, name in zip(panels, ("operator error", "weight (Frobenius) error"), strict=True):
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0.0)
    panels[1].set_xlabel("stored bits, of the dense stack's")
    panels[1].xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.subplots_adjust(left=0.13, right=0.97, top=top, bottom=bottom, hspace=0.1)
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.02, 0.03), frameon=False, borderpad=0)
    figure.text(0.02, 1 - 0.2 / figure.get_figheight(), label(model, 44), fontsize=7, color="#555555")
    parts = [_ends([p for p in found if _line(p) == line], _SAID[line[0]]) for line in lines]
    return Figure(
        name=STORAGE,
        title="Operator and Frobenius error over storage",
        alt=f"Two line charts over the share of bits kept. {' '.join(parts)}",
        caption=(
            "Means over stacks, relative to the dense norms. Above: the spectral norm of what an expert's matrix "
            "loses, mean over experts. Below: the Frobenius norm of what the stack loses. Solid: methods at equal "
            "storage; dotted: all three modes at the same fraction of their rank; dashed: one mode truncated."
        ),
        svg=svg(figure),
    )


def _line(point: Point) -> tuple[int, str]:
    """(kind of its grid, method): points of one line. The SVD has one over ranks and storages."""
    if point.method == "svd" or at_storage(point.rows[0]):
        return 0, point.method
    return (2 if point.method.startswith("truncate") else 1), point.method


def _ends(ours: list[Point], kind: str) -> str:
    first, last = (f(ours, key=lambda p: p.middle("kept_ratio") or 0.0) for f in (min, max))
    at = []
    for point in [first] if first is last else [first, last]:
        errors = (fixed(point.middle(column), 2) for column in ("operator_error", "weight_error"))
        at.append(f"{' and '.join(errors)} at {percent(point.middle('kept_ratio'), 0)}")
    return f"{title(ours[0].method)}{kind}: operator and weight error {listing(at)}."


def _bounds(rows: list[Row], model: str) -> Figure | None:
    if not rows:
        return None
    figure = canvas(4.9)
    panels = figure.subplots(2, 1, sharex=True)
    named = (("bound_paper", "Corollary 1 (paper)"), ("bound_proven", "proven"))
    for axes, (column, name) in zip(panels, named, strict=True):
        for mode in MODES:
            ours = [row for row in rows if row["mode"] == mode]
            axes.scatter(
                [float(row[column]) for row in ours], [float(row["operator_over_optimal"]) for row in ours], s=10,
                color=_MODE_COLOURS[mode], marker="os^"[MODES.index(mode)], linewidths=0, alpha=0.6, label=mode,
            )  # fmt: skip
        _to_bound(axes, rows)
        axes.set_title(f"bound: {name}", loc="left")
        axes.set_ylabel("measured")
    panels[1].set_xlabel("bound (both over the least error of the rank)")
    panels[0].legend(loc="upper left", frameon=False, title="unfolding", title_fontsize=8)
    figure.subplots_adjust(left=0.14, right=0.97, top=0.9, bottom=0.1, hspace=0.24)
    figure.text(0.02, 0.965, label(model, 44), fontsize=7, color="#555555")
    above = sum(float(r["operator_over_optimal"]) > float(r["bound_paper"]) for r in rows)
    measured, paper = ([float(r[c]) for r in rows] for c in ("operator_over_optimal", "bound_paper"))
    return Figure(
        name=BOUNDS,
        title="Measured operator error and its bounds",
        alt=(
            f"Two scatter plots of {len(rows)} unfoldings. Measured operator error over the least of the rank from "
            f"{fixed(min(measured), 2)} to {fixed(max(measured), 2)}; Corollary 1's bound from {fixed(min(paper), 2)} "
            f"to {fixed(max(paper), 2)}, {above} measured above it."
        ),
        caption=(
            "Every unfolding of every Tucker truncation that cuts it: its operator error over sigma of k + 1, the "
            "least that rank k can leave, against the bound on it. Points below the line keep the bound; the further "
            "below, the looser it is."
        ),
        svg=svg(figure),
    )


def _to_bound(axes: Axes, rows: list[Row]) -> None:
    values = [float(row[c]) for row in rows for c in ("bound_paper", "bound_proven", "operator_over_optimal")]
    ends = min(values) / 1.15, max(values) * 1.15
    measured = [float(row["operator_over_optimal"]) for row in rows]
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=(ends[0], max(measured) * 1.6))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axis.set_major_formatter(plain_numbers())
        axis.set_minor_locator(NullLocator())


def _growth(run: Run) -> Figure | None:
    curves = growth_curves(run)
    if not curves:
        return None
    figure = canvas(3.9)
    axes = figure.add_axes((0.13, 0.28, 0.84, 0.62))
    for (mode, projection), (widths, bounds, slope) in curves.items():
        axes.plot(widths, bounds, color=_MODE_COLOURS[mode], marker=marker(projection), markersize=4, linewidth=1.5)
        line = bounds[-1] * (widths / widths[-1]) ** slope
        axes.plot(widths, line, color=_MODE_COLOURS[mode], linewidth=0.9, linestyle=(0, (3, 2)))
    axes.set(xscale="log", yscale="log", xlabel="width of the mode", ylabel="Corollary 1's bound")
    widths, bounds = (np.concatenate([curve[i] for curve in curves.values()]) for i in (0, 1))
    axes.set(xlim=(widths.min() / 1.15, widths.max() * 1.15), ylim=(bounds.min() / 1.2, bounds.max() * 1.2))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axis.set_major_formatter(plain_numbers())
        axis.set_minor_locator(NullLocator())
    projections = sorted({projection for _, projection in curves}, key=projection_order)
    handles = [Line2D([], [], color=_MODE_COLOURS[m], linewidth=1.5, label=m) for m in MODES]
    handles += [
        Line2D([], [], color=NULL_GREY, marker=marker(p), markersize=4, linestyle="", label=label(p, 16))
        for p in projections
    ]
    handles.append(Line2D([], [], color=NULL_GREY, linewidth=0.9, linestyle=(0, (3, 2)), label="slope 1/2 − alpha"))
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.02, 0.0), ncols=3, frameon=False)
    figure.text(0.02, 0.95, label(run["model"], 44), fontsize=7, color="#555555")
    said = []
    for mode in MODES:
        if rows := growth_slopes(run, mode):
            slopes = (fixed(average(rows, c), 2) for c in ("slope_measured", "slope_predicted"))
            said.append("{} measured {}, predicted {}".format(mode, *slopes))
    return Figure(
        name=GROWTH,
        title="Growth of Corollary 1's bound with the width",
        alt=f"Log-log lines of the bound over the width of a mode. Mean slopes: {'; '.join(said)}.",
        caption=(
            "The bound at a fixed rank on nested random parts of the stack, means over layers; alpha is fitted anew at "
            "every width. Dashed: the slope that the mean alpha predicts, through the widest point."
        ),
        svg=svg(figure),
    )


def growth_curves(run: Run) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray, float]]:
    """By mode and projection: widths, bounds (means over layers), and the predicted slope."""
    found: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in run["tables"].get("growth", []):
        if given(row, "width", "bound", "slope_predicted"):
            found.setdefault((row["mode"], row["projection"]), {}).setdefault(int(row["width"]), []).append(row)
    curves = {}
    for key, by_width in sorted(
        found.items(), key=lambda item: (MODES.index(item[0][0]), projection_order(item[0][1]))
    ):
        widths = np.array(sorted(by_width), dtype=float)
        bounds = np.array([average(by_width[int(width)], "bound") for width in widths], dtype=float)
        slope = average([row for rows in by_width.values() for row in rows], "slope_predicted")
        curves[key] = widths, bounds, float(slope or 0.0)
    return curves
