"""Figures of `injection`: the response against each error, and pairs of families that differ in one error alone."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from reports.drawing import COLOURS, INK, NULL_GREY, WIDTH, Figure, canvas, label, plain_numbers, style, svg
from reports.formats import fixed, significant
from reports.injection.sites import DESIGN_NAMES, DRAWN, ERRORS, HELD, NAMES, Cell, Site, families, ratios, sites, words
from reports.run import Row, Run

PAIRS = "injection-pairs"
_MARKERS = dict(zip(DRAWN, "os^Dv", strict=True))
_TONES = dict(zip(DRAWN, (COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[1], COLOURS[4]), strict=True))
_METHOD_MARKERS = "xP*1"
_FILLS = {"frobenius": "full", "operator": "none", "functional": "bottom"}
_LEFT, _RIGHT, _BELOW, _PANEL, _GAP, _LEGEND_ROW = 0.66, 0.12, 0.5, 1.75, 0.62, 0.19  # inches


def injection_figures(run: Run) -> list[Figure]:
    """One a site that has a positive response, and the pairs."""
    found = sites(run)
    with style():
        drawn = [_responses(run["model"], site, families(found)) for site in found if _visible(site.cells())]
        both = [(site, row) for site in found for row in ratios(site)]
        return [*([_pairs(run["model"], both)] if both else []), *drawn]


def _visible(cells: Sequence[Cell]) -> list[Cell]:
    """What a logarithmic scale can show."""
    return [cell for cell in cells if cell.response > 0]


def _look(family: str, names: Sequence[str]) -> tuple[str, str]:
    """(marker, colour); methods are dark, each with a marker of its own."""
    if family in DRAWN:
        return _MARKERS[family], _TONES[family]
    methods = [name for name in names if name not in DRAWN]
    return _METHOD_MARKERS[methods.index(family) % len(_METHOD_MARKERS)], INK


def _responses(model: str, site: Site, names: Sequence[str]) -> Figure:
    cells = site.cells()
    handles = _legend([name for name in names if any(c.family == name for c in cells)], cells, names)
    above = 0.5 + _LEGEND_ROW * -(-len(handles) // 3) + 0.3
    height = above + len(ERRORS) * _PANEL + (len(ERRORS) - 1) * _GAP + _BELOW
    figure = canvas(height)
    for number, error in enumerate(ERRORS):
        bottom = _BELOW + (len(ERRORS) - 1 - number) * (_PANEL + _GAP)
        box = (_LEFT / WIDTH, bottom / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, _PANEL / height)
        axes = figure.add_axes(box)
        _panel(axes, site, cells, error, names)
        axes.set_title(_heading(site, error), loc="left", pad=4)
        axes.set_xlabel(f"{NAMES[error]} (relative)", labelpad=1)
        if number == 1:
            axes.set_ylabel("increase of the loss (nats a token)")
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.02, 1 - 0.3 / height), ncols=3, frameon=False,
        columnspacing=1.0, handletextpad=0.3, borderpad=0, labelspacing=0.25,
    )  # fmt: skip
    figure.text(0.03, 1 - 0.08 / height, label(site.name, 34), fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.09 / height, label(model, 28), fontsize=7.5, color="#555555", va="top", ha="right")
    hidden = len(cells) - len(_visible(cells))
    return Figure(
        name=site.anchor,
        title=f"Response against each error, {site.phrase}",
        alt=_alt(site, cells),
        caption=(
            "Increase of the held-out loss against weight, functional and operator error of what was injected, both "
            "axes logarithmic. Symbols: mean over draws; bars: least and largest draw. Filled: equal Frobenius norm; "
            "open: equal operator norm; half filled: equal functional error. Line: the fitted power law of the "
            "drawn families. An error that predicts the damage puts all families on one line."
            + (f" {hidden} of {len(cells)} points did not increase the loss and are not shown." if hidden else "")
        ),
        svg=svg(figure),
    )


def _panel(axes: Axes, site: Site, cells: Sequence[Cell], error: str, names: Sequence[str]) -> None:
    shown = [(cell, x) for cell in _visible(cells) if (x := cell.error(error)) is not None and x > 0]
    alike: dict[tuple[str, str], list[tuple[Cell, float]]] = {}
    for cell, x in shown:
        alike.setdefault((cell.family, cell.design), []).append((cell, x))
    for (family, design), points in alike.items():
        shape, tone = _look(family, names)
        fill = _FILLS.get(design, "full") if family in DRAWN else "full"
        bars = [(x, y) for cell, x in points for y in (*_ends(cell), np.nan)]  # one path, broken between the cells
        axes.plot(*np.array(bars).T, color=tone, linewidth=0.8, alpha=0.6, zorder=2)
        axes.plot([x for _, x in points], [cell.response for cell, _ in points], marker=shape, color=tone,
                  markersize=5, linewidth=0, fillstyle=fill, markeredgewidth=1.0, zorder=3)  # fmt: skip
    law = site.statistic("exponent", error=error)
    drawn = [(x, cell.response) for cell, x in shown if cell.family in DRAWN]
    if law is not None and len(drawn) > 1:
        x, y = np.log(np.array(drawn)).T
        ends = np.array([x.min(), x.max()])
        fitted = y.mean() + float(law["value"]) * (ends - x.mean())
        axes.plot(np.exp(ends), np.exp(fitted), color=NULL_GREY, linewidth=1, zorder=1)
    axes.set(xscale="log", yscale="log")
    heights = np.array([cell.response for cell, _ in shown])
    if heights.size:
        axes.set_ylim(heights.min() / 2, heights.max() * 2)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        narrow = np.log10(max(high, 1e-12) / max(low, 1e-12)) < 2.2
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=9))
        axis.set_major_formatter(plain_numbers())
        axis.set_minor_locator(NullLocator())


def _ends(cell: Cell) -> tuple[float, float]:
    """Least and largest response of single draws that a logarithmic scale can show."""
    draws = [float(row["loss_change"]) for row in cell.rows if row["loss_change"] > 0]
    return min(draws), max(draws)


def _heading(site: Site, error: str) -> str:
    law = site.statistic("exponent", error=error)
    if law is None:
        return f"{NAMES[error]}"
    return f"{NAMES[error]}: R² {fixed(law['r2'], 3)}, exponent {fixed(law['value'], 2)}"


def _legend(shown: Sequence[str], cells: Sequence[Cell], names: Sequence[str]) -> list[Line2D]:
    handles = []
    for name in shown:
        shape, tone = _look(name, names)
        handles.append(
            Line2D([], [], marker=shape, color=tone, linewidth=0, markersize=5, label=label(words(name), 22))
        )
    designs = dict.fromkeys(cell.design for cell in cells if cell.design in _FILLS)
    if len(designs) > 1:
        handles += [
            Line2D([], [], marker="o", color=INK, linewidth=0, markersize=5, fillstyle=_FILLS[design],
                   label=f"equal {design}")
            for design in designs
        ]  # fmt: skip
    return handles


def _pairs(model: str, found: Sequence[tuple[Site, Row]]) -> Figure:
    """What was measured beside what each error alone would say."""
    row_height, above, below = 0.5, 1.0, 0.5
    height = above + row_height * len(found) + below
    figure = canvas(height)
    left = 1.75
    axes = figure.add_axes(
        (left / WIDTH, below / height, (WIDTH - left - 0.15) / WIDTH, row_height * len(found) / height)
    )
    looks = (("operator_error", "^", COLOURS[3]), ("functional_error", "D", COLOURS[1]))
    for number, (_, row) in enumerate(found):
        y = len(found) - 1 - number
        for error, shape, tone in looks:
            if row.get(f"{error}_ratio"):
                axes.plot(row[f"{error}_ratio"] ** 2, y, marker=shape, color=tone, markersize=6, linewidth=0,
                          fillstyle="none", markeredgewidth=1.3)  # fmt: skip
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [y, y], color=INK, linewidth=1.6, solid_capstyle="butt", zorder=3)
        axes.plot(row["value"], y, marker="o", color=INK, markersize=4, linewidth=0, zorder=4)
    axes.axvline(1.0, color=NULL_GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    axes.set(xscale="log", ylim=(-0.6, len(found) - 0.4))
    axes.set_yticks(
        range(len(found)),
        [f"{label(site.name, 28)}\n{_pair_words(row)},\nequal {row['design']}" for site, row in reversed(found)],
        fontsize=6.5,
    )
    axes.xaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_major_formatter(plain_numbers())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("damage, first over second")
    handles = [
        Line2D([], [], marker="o", color=INK, linewidth=1.6, markersize=4, label="measured, 95 % interval"),
        *(
            Line2D([], [], marker=shape, color=tone, linewidth=0, fillstyle="none", markersize=6,
                   label=f"square of the ratio of {NAMES[error]}s")
            for error, shape, tone in looks
        ),
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.02, 1 - 0.28 / height), frameon=False, borderpad=0
    )
    figure.text(0.03, 1 - 0.08 / height, "Pairs of equal norm", fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.09 / height, label(model, 24), fontsize=7.5, color="#555555", va="top", ha="right")
    said = "; ".join(
        f"{site.phrase}, {_pair_words(row)} at equal {row['design']} norm: {significant(row['value'])}, functional "
        f"ratio squared "
        f"{significant(_square(row, 'functional_error'))}, operator {significant(_square(row, 'operator_error'))}"
        for site, row in found
    )
    return Figure(
        name=PAIRS,
        title="Pairs that differ in one error",
        alt=f"Ratios of the damage of two families of residuals of equal norm. {said}.",
        caption=(
            "How many times the first family of a pair increases the loss as the second does, at equal Frobenius or "
            "operator norm of every expert's residual. A damage that grew with the square of an error would lie on "
            "that error's symbol."
        ),
        svg=svg(figure),
    )


def _pair_words(row: Row) -> str:
    first, _, second = str(row["families"]).partition("/")
    return f"{words(first)} over {words(second)}"


def _square(row: Row, error: str) -> float | None:
    ratio = row.get(f"{error}_ratio")
    return None if ratio is None else float(ratio) ** 2


def _alt(site: Site, cells: Sequence[Cell]) -> str:
    said = [
        f"{NAMES[error]}: exponent {fixed(law['value'], 2)}, R² {fixed(law['r2'], 2)}"
        for error in ERRORS
        if (law := site.statistic("exponent", error=error)) is not None
    ]
    held = [DESIGN_NAMES[design] for design in HELD if any(cell.design == design for cell in cells)]
    return (
        f"Three log-log panels of the increase of the loss against the error of residuals injected into {site.phrase}, "
        f"{len(cells)} points at equal {', '.join(held)}. {'; '.join(said) or 'No law could be fitted'}."
    )
