"""Forest plots: every change's Shapley value beside alone and last, and every error's rank correlation."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.attribution.ladders import Attribution, by_strength, ranged, share
from reports.attribution.names import LEFT, SMALL, name
from reports.attribution.waterfall import BELOW
from reports.drawing import COLOURS, INK, NULL_GREY, WIDTH, Figure, canvas, label, plain_numbers, svg
from reports.formats import fixed
from reports.run import Row, given

SHAPLEY, PREDICTORS = "attribution-shapley", "attribution-predictors"
ANGLE = "angle_deg"
ERRORS = {
    "weight_error": "weight error",
    "functional_error": "functional error",
    "functional_error_expert": "functional error, own inputs",
    "operator_error": "operator error",
    ANGLE: "angle of the stream",
}
_ROW, _RIGHT = 0.36, 1.04
_LINE = 0.18
_ALONE, _LAST = COLOURS[1], COLOURS[2]


def switch_name(row: Row) -> str:
    return str(row.get("text") or row.get("switch") or "unnamed")


def error_name(row: Row) -> str:
    return ERRORS.get(str(row.get("error")), str(row.get("error")))


def shapley_figure(model: str, found: Attribution) -> Figure | None:
    """None where no change has a value."""
    rows = by_strength(found.switches, "nats")
    if not rows:
        return None
    handles = [
        Line2D([], [], marker="o", color=INK, linewidth=1.6, markersize=5, label="Shapley value, 95 % interval"),
        Line2D([], [], marker="<", color=_ALONE, linewidth=0, markersize=6, fillstyle="none", markeredgewidth=1.3,
               label="switched on first, alone"),
        Line2D([], [], marker=">", color=_LAST, linewidth=0, markersize=6, fillstyle="none", markeredgewidth=1.3,
               label="switched on last"),
    ]  # fmt: skip
    figure, axes, height = _frame(len(rows), "Each change, in any order", model, handles)
    for place, row in enumerate(rows):
        pair = [row[column] for column in ("alone_nats", "last_nats") if given(row, column)]
        if len(pair) == 2:
            axes.plot(pair, [place, place], color="#c3c7cc", linewidth=4.5, solid_capstyle="butt", zorder=1)
        for column, shape, tone in (("alone_nats", "<", _ALONE), ("last_nats", ">", _LAST)):
            if given(row, column):
                axes.plot(row[column], place, shape, color=tone, markersize=6, fillstyle="none", markeredgewidth=1.3,
                          zorder=3)  # fmt: skip
        _interval(axes, row, place, "nats", "nats_low", "nats_high")
        _right(axes, place, _shapley_note(row))
    _rows(axes, [switch_name(row) for row in rows])
    axes.axvline(0.0, color="#555555", linewidth=0.9, zorder=2)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("nats a token taken away")
    said = "; ".join(
        f"{label(switch_name(row), 48)} {ranged(row, 'nats', 'nats_low', 'nats_high', 3)} nats, alone "
        f"{fixed(row.get('alone_nats'), 3)}, last {fixed(row.get('last_nats'), 3)}"
        for row in rows
    )
    missing = [label(switch_name(row), 48) for row in found.switches if not given(row, "nats")]
    return Figure(
        name=SHAPLEY,
        title="Each change, averaged over orders",
        alt=f"Shapley values with intervals. {said}.",
        caption=(
            f"Loss that each change takes away, averaged over {orders(rows)} in which they can be switched on (Shapley "
            "value), beside what it takes away as the first and as the last one. The wider the grey bar, the more its "
            "effect depends on the others; left of 0 it does harm."
            + (" At the right the share of the gap to MoBE." if any(given(r, "gap_share") for r in rows) else "")
            + (f" Not measured: {', '.join(missing)}." if missing else "")
        ),
        svg=svg(figure),
    )


def orders(rows: Sequence[Row]) -> str:
    """`all orders` or `120 drawn orders`."""
    known = str(next((row["orders"] for row in rows if given(row, "orders")), "all"))
    return "all orders" if known == "all" else f"{known.removesuffix('.0')} drawn orders"


def _shapley_note(row: Row) -> str:
    closed = share(row, "gap_share", "gap_share_low", "gap_share_high", 0)
    return fixed(row["nats"], 3) + (f"\n{closed}" if given(row, "gap_share") else "")


def predictors_figure(model: str, found: Attribution) -> Figure | None:
    """Rank correlations of errors with the loss; None where there is none."""
    rows = by_strength(found.predictors, "rank_correlation")
    if not rows:
        return None
    figure, axes, _ = _frame(len(rows), "Which error predicts the loss", model, [])
    for place, row in enumerate(rows):
        _interval(axes, row, place, "rank_correlation", "low", "high")
        _right(axes, place, correlation(row).replace(" (", "\n("))
    _rows(axes, [error_name(row) for row in rows])
    low = min(float(row[column]) for row in rows for column in ("rank_correlation", "low") if given(row, column))
    axes.set_xlim(-1.05 if low < -0.05 else min(-0.03, low - 0.03), 1.05)
    axes.axvline(0.0, color="#555555", linewidth=0.9, zorder=2)
    axes.axvline(1.0, color=NULL_GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("rank correlation with the loss")
    said = "; ".join(f"{label(error_name(row), 40)} {correlation(row)}" for row in rows)
    runs = next((row["runs"] for row in rows if given(row, "runs")), None)
    return Figure(
        name=PREDICTORS,
        title="Which error predicts the damage",
        alt=f"Rank correlation of each error with the loss above dense. {said}.",
        caption=(
            f"Rank correlation of each error with the loss above the dense model's"
            f"{f' over {fixed(runs, 0)} compressed models' if runs is not None else ''}, with 95 % intervals. An error "
            "that orders the models as the loss does has 1; one that says nothing, 0."
        ),
        svg=svg(figure),
    )


def correlation(row: Row) -> str:
    """With its interval."""
    return ranged(row, "rank_correlation", "low", "high", 2)


def _frame(rows: int, title: str, model: str, handles: list[Line2D]) -> tuple[Canvas, Axes, float]:
    above, tall = 0.34 + _LINE * len(handles) + (0.08 if handles else 0.0), _ROW * rows
    height = above + tall + BELOW
    figure = canvas(height)
    axes = figure.add_axes((LEFT / WIDTH, BELOW / height, (WIDTH - LEFT - _RIGHT) / WIDTH, tall / height))
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(plain_numbers())
    figure.text(0.02, 1 - 0.07 / height, title, fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.08 / height, label(model, 24), fontsize=SMALL, color="#555555", va="top", ha="right")
    if handles:
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.01, 1 - 0.28 / height), frameon=False,
                      borderpad=0, labelspacing=0.3)  # fmt: skip
    return figure, axes, height


def _rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks([])
    for place, text in enumerate(names):
        name(axes, text, place)


def _interval(axes: Axes, row: Row, place: float, value: str, low: str, high: str) -> None:
    if given(row, low, high):
        axes.plot([row[low], row[high]], [place, place], color=INK, linewidth=1.6, solid_capstyle="butt", zorder=4)
    axes.plot(row[value], place, "o", color=INK, markersize=5, zorder=5)


def _right(axes: Axes, place: float, text: str) -> None:
    axes.annotate(
        text, (1, place), xytext=(8, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", va="center",
        fontsize=SMALL, linespacing=1.1,
    )  # fmt: skip
