"""Recovery against SVD rank, against storage by method, and where the entries lie: a panel a matrix.

Stacked rather than side by side so that a phone shows them whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.drawing import COLOURS, INK, WIDTH, Figure, canvas, label, svg
from reports.formats import integer, listing, percent
from reports.methods import method_name
from reports.superweights.matrices import COLOUR, MARKER, WORDS, Matrix

RECOVERY, METHODS, POSITIONS = "superweights-recovery", "superweights-methods", "superweights-positions"
_LEFT, _RIGHT, _BELOW, _ABOVE, _PANEL, _GAP = 0.62, 0.14, 0.5, 0.8, 1.5, 0.42  # inches
_METHOD_MARKERS = ("o", "s", "^", "v", "P", "X")
_MOST = 6  # panels of a figure


def recovery_figure(model: str, listed: Sequence[Matrix]) -> Figure:
    """Share of each group that stays recovered from a rank on, a panel a matrix."""
    listed = listed[:_MOST]
    figure, panels = _panels(model, len(listed), "Recovery by truncated SVD")
    for axes, matrix in zip(panels, listed, strict=True):
        for group in matrix.groups:
            rows = matrix.curve(group)
            ranks = [int(row["rank"]) for row in rows]
            tone = COLOUR[group]
            axes.plot(ranks, [float(row["recovered_fraction"]) for row in rows], color=tone, linewidth=0.7, alpha=0.6)
            axes.plot(
                ranks, [float(row["stays_recovered_fraction"]) for row in rows], color=tone, linewidth=1.7,
                marker=MARKER[group], markersize=5 if group == "superweight" else 3.2, markevery=0.16,
                drawstyle="steps-post" if group == "superweight" else "default",
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.axvline(matrix.dense_rank, color=INK, linewidth=0.9, linestyle=(0, (1.5, 1.5)))
        axes.set(xlim=(0, matrix.full_rank * 1.02), ylim=(-0.04, 1.06), ylabel="share recovered")
        axes.set_title(label(f"{matrix.title}, full rank {matrix.full_rank}", 60), loc="left", pad=3)
    panels[-1].set_xlabel("rank of the truncated SVD")
    groups = [group for group in WORDS if any(group in matrix.groups for matrix in listed)]
    dense = Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (1.5, 1.5)), label="as large as dense")
    _legend(figure, [*(_group_handle(group) for group in groups), dense])
    return Figure(
        name=RECOVERY,
        title="Recovery against rank",
        alt=" ".join(_said(matrix) for matrix in listed),
        caption=(
            "Share of tracked entries whose estimate is within 5 % of the weight (or 10⁻⁶) against the rank of a "
            "truncated SVD. Thick with markers: stays so at every higher rank; thin: at this rank. Right of the dotted "
            "line two factors of this rank are larger than the dense matrix."
        ),
        svg=svg(figure),
    )


def methods_figure(model: str, matrix: Matrix) -> Figure:
    """Share of each group recovered against storage: truncated SVD and the methods, a panel a group."""
    groups = matrix.groups
    figure, panels = _panels(model, len(groups), f"Recovery against storage, {matrix.name}")
    families = list(dict.fromkeys(_family(method) for method in matrix.methods))
    tones = dict(zip(families, COLOURS[4:] + COLOURS[2:3], strict=False))
    for axes, group in zip(panels, groups, strict=True):
        rows = [row for row in matrix.curve(group) if float(row["kept_ratio"]) <= 1.3]
        axes.plot(_kept(rows), _shares(rows), color=INK, linewidth=1.2)
        for number, family in enumerate(families):
            specs = [method for method in matrix.methods if _family(method) == family]
            rows = sorted(
                (row for spec in specs for row in matrix.curve(group, spec)), key=lambda row: row["stored_bits"]
            )
            mark = _METHOD_MARKERS[number % len(_METHOD_MARKERS)]
            axes.plot(
                _kept(rows), _shares(rows), color=tones.get(family, INK), linewidth=1.2, marker=mark, markersize=4.5
            )
        axes.set(ylim=(-0.06, 1.08), ylabel="share recovered", xlim=(0, 1.32))
        axes.axvline(1.0, color=INK, linewidth=0.9, linestyle=(0, (1.5, 1.5)))
        axes.set_title(f"{WORDS[group]} ({len(matrix.of(group))})", loc="left", pad=3)
    panels[-1].set_xlabel("stored bits over those of the dense stack")
    handles = [Line2D([], [], color=INK, linewidth=1.2, label="truncated SVD")]
    for number, family in enumerate(families):
        mark = _METHOD_MARKERS[number % len(_METHOD_MARKERS)]
        handles.append(
            Line2D(
                [],
                [],
                color=tones.get(family, INK),
                linewidth=1.2,
                marker=mark,
                markersize=4.5,
                label=label(method_name(family), 24),
            )
        )
    _legend(figure, handles)
    return Figure(
        name=METHODS,
        title="Recovery against storage",
        alt=f"{matrix.title}: " + "; ".join(_method_said(matrix, group) for group in groups) + ".",
        caption=(
            "Share of tracked entries that are recovered at this storage, by method; a higher one may lose some again. "
            "Storage is that of the whole stack of experts over its dense storage; one is the dotted line."
        ),
        svg=svg(figure),
    )


def positions_figure(model: str, listed: Sequence[Matrix]) -> Figure:
    """Where the entries of each group lie in the matrix, a panel a matrix."""
    listed = listed[:_MOST]
    figure, panels = _panels(model, len(listed), "Positions of the entries", panel=1.9)
    for axes, matrix in zip(panels, listed, strict=True):
        outputs, inputs = matrix.shape
        largest = max(abs(float(row["value"])) for row in matrix.entries) or 1.0
        for group in reversed(matrix.groups):
            rows = matrix.of(group)
            sizes = [(70 if group == "superweight" else 24) * max(0.12, abs(float(r["value"])) / largest) for r in rows]
            axes.scatter(
                [int(row["column"]) for row in rows], [int(row["row"]) for row in rows], s=sizes, marker=MARKER[group],
                facecolors=COLOUR[group] if group in ("superweight", "random_inlier") else "none",
                edgecolors=COLOUR[group], linewidths=0.8, alpha=0.85,
            )  # fmt: skip
        axes.set(xlim=(-0.02 * inputs, 1.02 * inputs), ylim=(1.02 * outputs, -0.02 * outputs), ylabel="output (row)")
        axes.set_title(label(f"{matrix.title}, {outputs} × {inputs}", 60), loc="left", pad=3)
    panels[-1].set_xlabel("input (column)")
    groups = [group for group in WORDS if any(group in matrix.groups for matrix in listed)]
    _legend(figure, [_group_handle(group, line=False) for group in groups])
    return Figure(
        name=POSITIONS,
        title="Positions of the entries",
        alt=" ".join(_place_said(matrix) for matrix in listed),
        caption="Tracked entries in their matrix; the larger the marker, the larger the weight's magnitude.",
        svg=svg(figure),
    )


def _panels(model: str, count: int, title: str, panel: float = _PANEL) -> tuple[Canvas, list[Axes]]:
    height = _ABOVE + count * panel + (count - 1) * _GAP + _BELOW
    figure = canvas(height)
    panels = []
    for number in range(count):
        bottom = _BELOW + (count - 1 - number) * (panel + _GAP)
        box = (_LEFT / WIDTH, bottom / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, panel / height)
        panels.append(figure.add_axes(box))
    figure.text(0.03, 1 - 0.07 / height, label(title, 44), fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.08 / height, label(model, 24), fontsize=7.5, color="#555555", va="top", ha="right")
    return figure, panels


def _legend(figure: Canvas, handles: list[Line2D]) -> None:
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.02, 1 - 0.22 / figure.get_figheight()), ncols=3,
        frameon=False, handlelength=1.8, columnspacing=1.0, borderpad=0, fontsize=7.5,
    )  # fmt: skip


def _group_handle(group: str, *, line: bool = True) -> Line2D:
    return Line2D(
        [], [], color=COLOUR[group], linewidth=1.7 if line else 0, marker=MARKER[group], markersize=4.5,
        label=WORDS[group],
    )  # fmt: skip


def _family(method: str) -> str:
    return method.partition(":")[0]


def _kept(rows: Sequence[object]) -> list[float]:
    return [float(row["kept_ratio"]) for row in rows]  # type: ignore[index]


def _shares(rows: Sequence[object]) -> list[float]:
    return [float(row["recovered_fraction"]) for row in rows]  # type: ignore[index]


def _said(matrix: Matrix) -> str:
    parts = [
        f"half of {WORDS[group]} from rank {integer(matrix.rank_for(group, 0.5))}, all from "
        f"{integer(matrix.rank_for(group, 1))}"
        for group in matrix.groups
    ]
    return f"{matrix.title}, full rank {matrix.full_rank}: {listing(parts)} stay recovered."


def _method_said(matrix: Matrix, group: str) -> str:
    parts = []
    for method in matrix.methods:
        if rows := matrix.curve(group, method):
            parts.append(
                f"{method_name(method)} {percent(rows[-1]['recovered_fraction'])} at {percent(rows[-1]['kept_ratio'])}"
            )
    return f"{WORDS[group]}: {listing(parts) or 'no method measured'}"


def _place_said(matrix: Matrix) -> str:
    parts = []
    for group in matrix.groups:
        rows = matrix.of(group)
        columns, lines = len({row["column"] for row in rows}), len({row["row"] for row in rows})
        parts.append(f"{len(rows)} {WORDS[group]} in {columns} columns and {lines} rows")
    return f"{matrix.title}: {listing(parts)}."
