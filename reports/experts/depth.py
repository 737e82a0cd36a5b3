"""Over depth: what a stored parameter is worth in the expert mode against the others, with its interval."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.drawing import INK, NULL_GREY, WIDTH, Figure, canvas, colour, label, marker, plain_numbers, svg
from reports.experts.data import WeightStack, answered, ratios_of
from reports.formats import fixed, percent
from reports.run import given

DEPTH = "experts-depth"
_LEFT, _RIGHT, _BELOW, _ABOVE, _PANEL, _GAP = 0.62, 0.14, 0.55, 0.85, 1.35, 0.44  # inches
_APART = 0.13  # layers between the projections of one layer


def depth_figure(model: str, listed: Sequence[WeightStack]) -> Figure:
    """One panel a ratio, every stack with its interval."""
    ratios = ratios_of(listed)
    projections = list(dict.fromkeys(stack.projection for stack in listed))
    height = _ABOVE + len(ratios) * _PANEL + (len(ratios) - 1) * _GAP + _BELOW
    figure = canvas(height)
    for number, ratio in enumerate(ratios):
        bottom = _BELOW + (len(ratios) - 1 - number) * (_PANEL + _GAP)
        axes = figure.add_axes((_LEFT / WIDTH, bottom / height, (WIDTH - _LEFT - _RIGHT) / WIDTH, _PANEL / height))
        _draw(axes, listed, ratio, projections)
        axes.set_title(f"{percent(ratio, 0)} of the parameters removed", loc="left", pad=3)
        if number == len(ratios) - 1:
            axes.set_xlabel("layer")
    figure.supylabel("price share of the expert mode", x=0.012, fontsize=9)
    handles = [
        Line2D([], [], color=colour(name), marker=marker(name), markersize=4.5, linewidth=1.2, label=label(name, 16))
        for name in projections
    ]
    handles.append(
        Line2D([], [], color=NULL_GREY, marker="_", markersize=9, linewidth=0, markeredgewidth=1.6, label="independent")
    )
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.02, 1 - 0.22 / height), ncols=4, frameon=False, borderpad=0
    )
    figure.text(0.02, 1 - 0.06 / height, label(model, 44), fontsize=7.5, color="#555555", va="top")
    return Figure(
        name=DEPTH,
        title="The expert mode's price over depth",
        alt=_alt(listed, ratios),
        caption=(
            "What a stored parameter is worth in the expert mode, over that plus what it is worth in the mode where it "
            "is worth least, at the best triple that keeps all experts. Above 0.5 (dark line) experts should be cut "
            "last, below it first. Bars: 95 % intervals, by leaving out groups of experts. Grey: "
            "independent experts, each rotated among its hidden units."
        ),
        svg=svg(figure),
    )


def _draw(axes: Axes, listed: Sequence[WeightStack], ratio: float, projections: Sequence[str]) -> None:
    axes.axhline(0.5, color=INK, linewidth=0.9, zorder=1)
    for number, name in enumerate(projections):
        shift = _APART * (number - (len(projections) - 1) / 2)
        for stack in listed:
            row = stack.binding.get(ratio, {})
            if stack.projection != name or not given(row, "price_share"):
                continue
            place, share = stack.layer + shift, row["price_share"]
            if given(row, "price_share_low", "price_share_high"):
                ends = [row["price_share_low"], row["price_share_high"]]
                axes.plot([place, place], ends, color=colour(name), linewidth=1.2)
            axes.plot(place, share, marker(name), color=colour(name), markersize=4.5, zorder=3)
            if given(row, "price_share_null"):
                axes.plot(
                    place, row["price_share_null"], "_", color=NULL_GREY, markersize=9, markeredgewidth=1.6, zorder=4
                )
    layers = sorted({stack.layer for stack in listed})
    axes.set(xlim=(layers[0] - 0.6, layers[-1] + 0.6), ylim=(-0.02, 1.02))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_formatter(plain_numbers())


def _alt(listed: Sequence[WeightStack], ratios: Sequence[float]) -> str:
    parts = []
    for ratio in ratios:
        shares = sorted((float(row["price_share"]), f"L{row['layer']} {row['projection']}")
                        for row in answered(listed, ratio, "price_share"))  # fmt: skip
        if shares:
            ends = [f"{fixed(share, 2)} ({label(name)})" for share, name in (shares[0], shares[-1])]
            above = sum(share > 0.5 for share, _ in shares)
            parts.append(
                f"{percent(ratio, 0)} removed: from {ends[0]} to {ends[1]}, {above} of {len(shares)} above 0.5"
            )
    return f"Price share of the expert mode by layer. {'; '.join(parts) or 'Nothing measured'}."
