"""Error over the expert rank at constant storage, one panel a projection, the published triples marked on it."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.drawing import COLOURS, INK, WIDTH, Figure, canvas, label, plain_numbers, svg
from reports.experts.data import WeightStack, metric_name, ratios_of
from reports.formats import fixed, integer, percent
from reports.run import Row, given
from reports.tables import Cell, Table

_LEFT, _RIGHT, _BELOW, _ABOVE, _PANEL, _GAP = 0.62, 0.14, 0.55, 1.08, 1.5, 0.42  # inches
_SHOWN = 24  # lines of the table behind the figure
_TONES = (COLOURS[4], COLOURS[3], COLOURS[5], COLOURS[9])  # a ratio each; none is a projection's
_MARKS = {"preserve": "s", "compress": "o"}


def curves_name(layer: int) -> str:
    """Name of a layer's figure, and of its file."""
    return f"experts-L{layer:03d}"


def curves_figure(model: str, layer: int, listed: Sequence[WeightStack]) -> Figure:
    """The figure of one layer, from its measured stacks."""
    ratios = ratios_of(listed)
    height = _ABOVE + len(listed) * _PANEL + (len(listed) - 1) * _GAP + _BELOW
    figure = canvas(height)
    for number, stack in enumerate(listed):
        bottom = _BELOW + (len(listed) - 1 - number) * (_PANEL + _GAP)
        axes = figure.add_axes((_LEFT / WIDTH, bottom / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, _PANEL / height))
        for i, ratio in enumerate(ratios):
            _draw(axes, stack, ratio, _TONES[i % len(_TONES)])
        axes.set_title(label(stack.projection, 16), loc="left", pad=3)
        axes.set_ylim(bottom=0.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.yaxis.set_major_formatter(plain_numbers())
        if number == len(listed) - 1:
            axes.set_xlabel("expert rank, the other ranks re-optimised")
    figure.supylabel(f"relative {metric_name(listed)}", x=0.012, fontsize=9)
    figure.legend(
        handles=_legend(ratios), loc="upper left", bbox_to_anchor=(0.02, 1 - 0.27 / height), ncols=2,
        frameon=False, handlelength=2.0, columnspacing=1.2, borderpad=0,
    )  # fmt: skip
    figure.text(0.03, 1 - 0.08 / height, f"Layer {layer}", fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.09 / height, label(model, 36), fontsize=7.5, color="#555555", va="top", ha="right")
    return Figure(
        name=curves_name(layer),
        title=f"Error over the expert rank of layer {layer}",
        alt=_alt(layer, listed, ratios),
        caption=(
            f"Least relative {metric_name(listed)} at constant storage for every rank of the expert mode; output and "
            "input ranks are the best ones at each point, exact from the table of all triples. A star marks the least "
            "of all. Open marks: the published triples, which never look at the weights."
        ),
        svg=svg(figure),
    )


def curves_table(layer: int, listed: Sequence[WeightStack]) -> Table:
    """The figure's numbers: at every expert rank, or every few, the error and the ranks of the other modes."""
    ratios = ratios_of(listed)
    found = {
        (stack.projection, ratio): {int(row["rank_expert"]): row for row in stack.curve(ratio)}
        for stack in listed
        for ratio in ratios
    }
    ranks = sorted({rank for rows in found.values() for rank in rows})
    step = max(1, -(-len(ranks) // _SHOWN))
    shown = sorted({*ranks[::-step], *ranks[:1]})
    lines = [
        [Cell(str(rank)), *(_point(rows.get(rank)) for rows in found.values())]
        for rank in shown
    ]  # fmt: skip
    every = "" if step == 1 else f" (one rank in {step}; all are in experts.csv)"
    return Table(
        caption=f"Least {metric_name(listed)} of layer {layer} by expert rank, with output × input rank{every}",
        headings=["expert rank", *(f"{percent(ratio, 0)} removed" for _ in listed for ratio in ratios)],
        lines=lines,
        groups=[("", 1), *((stack.projection, len(ratios)) for stack in listed)],
    )


def _point(row: Row | None) -> Cell:
    if row is None:
        return Cell("—", "does not fit")
    return Cell(fixed(row.get("metric_error")), f"{integer(row['rank_output'])} × {integer(row['rank_input'])}")


def _draw(axes: Axes, stack: WeightStack, ratio: float, tone: str) -> None:
    rows = [row for row in stack.curve(ratio) if given(row, "rank_expert", "metric_error")]
    if rows:
        axes.plot([r["rank_expert"] for r in rows], [r["metric_error"] for r in rows], color=tone, linewidth=1.6)
        least = min(rows, key=lambda row: float(row["metric_error"]))
        axes.plot(least["rank_expert"], least["metric_error"], "*", color=tone, markersize=9, zorder=5, clip_on=False)
    for (allocation, mode), row in stack.headlines(ratio).items():
        if allocation == "published" and given(row, "rank_expert", "metric_error"):
            axes.plot(
                row["rank_expert"], row["metric_error"], _MARKS[mode], markersize=6.5 if mode == "preserve" else 4,
                markerfacecolor="none", markeredgecolor=tone, markeredgewidth=1.3, zorder=4, clip_on=False,
            )  # fmt: skip


def _legend(ratios: Sequence[float]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=_TONES[i % len(_TONES)], linewidth=1.6, label=f"{percent(ratio, 0)} removed, best ranks")
        for i, ratio in enumerate(ratios)
    ]
    marks = [
        Line2D(
            [], [], linestyle="", marker=mark, markerfacecolor="none", markeredgecolor=INK, label=f"published {mode}"
        )
        for mode, mark in _MARKS.items()
    ]
    return [*lines, *marks]


def _alt(layer: int, listed: Sequence[WeightStack], ratios: Sequence[float]) -> str:
    parts = []
    for stack in listed:
        for ratio in ratios:
            rows = [row for row in stack.curve(ratio) if given(row, "metric_error")]
            if rows:
                least = min(rows, key=lambda row: float(row["metric_error"]))
                parts.append(
                    f"{label(stack.projection, 16)}, {percent(ratio, 0)} removed: {fixed(rows[0]['metric_error'])} at "
                    f"expert rank {integer(rows[0]['rank_expert'])}, least {fixed(least['metric_error'])} at "
                    f"{integer(least['rank_expert'])} of {integer(rows[-1]['rank_expert'])}"
                )
    return f"Error over the expert rank at constant storage, layer {layer}. {'; '.join(parts) or 'Nothing measured'}."
