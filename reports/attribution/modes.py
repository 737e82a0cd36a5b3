"""The functional error of every step beside what cutting each of its modes alone costs: the largest is the floor."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.attribution.ladders import Attribution, Step, mode_errors
from reports.attribution.names import LEFT, SMALL, name
from reports.attribution.waterfall import BELOW, ROW
from reports.drawing import COLOURS, INK, WIDTH, Figure, canvas, label, plain_numbers, svg
from reports.formats import fixed
from reports.run import MODES

FLOOR = "attribution-floor"
_RIGHT, _LINE = 0.16, 0.18
_TONES = {"expert": COLOURS[1], "output": COLOURS[4], "input": COLOURS[0]}
_THICK = 0.2  # of a row
_MOBE = COLOURS[2]


def with_floor(found: Attribution) -> list[Step]:
    """Steps of TD-MoE whose floor was measured."""
    return [step for step in found.tensors if step.value("floor") is not None]


def floor_figure(model: str, found: Attribution) -> Figure | None:
    """None where no step has a floor."""
    steps = with_floor(found)
    if not steps:
        return None
    reference = found.reference
    level = reference.value("functional_error") if reference is not None else None
    handles: list[Artist] = [
        *(Patch(color=tone, linewidth=0, label=f"cutting the {mode} mode alone") for mode, tone in _TONES.items()),
        Line2D([], [], marker="|", color=INK, linewidth=0, markersize=11, markeredgewidth=1.6,
               label="floor, the largest"),
        Line2D([], [], marker="D", color=INK, linewidth=0, markersize=5, markerfacecolor="white", label="the step"),
    ]  # fmt: skip
    if level is not None and reference is not None:
        handles.append(Line2D([], [], color=_MOBE, linewidth=1.2, linestyle=(0, (4, 2)), label="MoBE"))
    lines = -(-len(handles) // 2)
    above, tall = 0.42 + _LINE * lines, ROW * len(steps)
    height = above + tall + BELOW
    figure = canvas(height)
    axes = figure.add_axes((LEFT / WIDTH, BELOW / height, (WIDTH - LEFT - _RIGHT) / WIDTH, tall / height))
    if level is not None:
        axes.axvline(level, color=_MOBE, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
    for place, step in enumerate(steps):
        floor, own = step.value("floor") or 0.0, step.value("functional_error")
        if own is not None:
            axes.plot([floor, own], [place, place], color=INK, linewidth=1.1, solid_capstyle="butt", zorder=3)
            axes.plot(own, place, "D", color=INK, markersize=5, markerfacecolor="white", zorder=5)
        axes.plot([floor, floor], [place - 0.38, place + 0.38], color=INK, linewidth=1.6, zorder=4)
        cut = {mode: value for mode, value in mode_errors(step).items() if value > 0}
        for number, (mode, value) in enumerate(cut.items()):
            shift = (number - (len(cut) - 1) / 2) * 1.15 * _THICK
            axes.barh(place + shift, value, height=_THICK, color=_TONES[mode], linewidth=0, zorder=2)
        name(axes, step.short, place)
    axes.set_yticks([])
    axes.set(ylim=(len(steps) - 0.5, -0.5), xlabel="relative functional error")
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(plain_numbers())
    figure.text(0.02, 1 - 0.07 / height, "What the ranks alone cost", fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.08 / height, label(model, 24), fontsize=SMALL, color="#555555", va="top", ha="right")
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.01, 1 - 0.3 / height), ncols=2, frameon=False,
                  borderpad=0, labelspacing=0.3, columnspacing=1.0, handletextpad=0.4)  # fmt: skip
    return Figure(
        name=FLOOR,
        title="Functional error by mode, and the floor of each step's ranks",
        alt=f"Relative functional error of each step and of cutting each mode alone. {_said(steps)}."
        + (f" MoBE {fixed(level, 3)}." if level is not None else ""),
        caption=(
            "Relative functional error (pooled inputs) of each step of TD-MoE, and of cutting each mode alone to the "
            "step's ranks. The largest of the three is a floor: no Tucker decomposition of these ranks lies below it. "
            "Between floor and step is what the other modes, the metric and the solver cost, or that another error was "
            "made least (the core refit lowers that of each expert's own inputs). Where MoBE lies below a "
            "floor, only other ranks could reach it."
        ),
        svg=svg(figure),
    )


def _said(steps: Sequence[Step]) -> str:
    parts = []
    for step in steps:
        modes = mode_errors(step)
        said = ", ".join(f"{mode} {fixed(modes[mode], 3)}" for mode in MODES if mode in modes)
        own = fixed(step.value("functional_error"), 3)
        parts.append(f"{label(step.short, 48)}: {own}, floor {fixed(step.value('floor'), 3)} ({said})")
    return "; ".join(parts)
