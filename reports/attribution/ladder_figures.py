"""The two ladders: TD-MoE from as published to its best with everything beside it, and MoBE's from where they meet."""

from collections.abc import Sequence

from matplotlib.figure import Figure as Canvas

from reports.attribution.ladders import DENSE, MOBE, SAME_FORM, Attribution, Step
from reports.attribution.names import SMALL
from reports.attribution.waterfall import BETTER, OTHER, Group, chain, draw, frame, whole
from reports.drawing import NULL_GREY, Figure, label, svg
from reports.formats import fixed, listing

LADDER, MEETING = "attribution-ladder", "attribution-mobe"
_CLEAR = 1.04  # of the highest bar, where the axis ends


def ladder_figure(model: str, found: Attribution) -> Figure | None:
    """How much each change takes away, between TD-MoE as published and MoBE; None without a measured step."""
    if not any(step.measured for step in found.tdmoe):
        return None
    refitted = [] if found.refitted is None else [found.refitted]
    mobe = [*found.presets, *refitted]
    others = [step for step in found.beside if step.method != DENSE and step not in mobe]
    groups = [Group("TD-MoE, one change after the other", chain(found.tdmoe, found.gap))]
    both = [whole(step, BETTER, step.short) for step in found.combinations]
    groups += [Group("TD-MoE, the same changes combined", both)] if both else []
    groups += [Group("MoBE", [whole(step, OTHER, _preset(step)) for step in mobe])] if mobe else []
    groups += [Group("Beside", [whole(step) for step in others])] if others else []
    levels = [step.damage + step.stderr() for step in (*found.tensors, *mobe) if step.measured]
    lowest = min([0.0, *(step.damage - step.stderr() for step in (*found.tensors, *mobe, *others) if step.measured)])
    highest = max(max(levels) * _CLEAR, 1e-6)
    figure, axes, height = frame(groups)
    draw(axes, groups, highest, lowest)
    if found.reference is not None:
        axes.axvline(found.reference.damage, color=OTHER, linewidth=1.1, linestyle=(0, (4, 2)), zorder=3)
    if found.gap and found.published is not None:
        start, gap = found.published.damage, found.gap
        closed = (lambda level: 100 * (start - level) / gap, lambda share: start - share * gap / 100)
        top = axes.secondary_xaxis("top", functions=closed)
        top.set_xticks([0, 25, 50, 75, 100])
        top.set_xlabel("gap to MoBE closed, %", labelpad=3)
    _heading(figure, height, "What each change takes away", model)
    return Figure(
        name=LADDER,
        title="The ladder: what each change to TD-MoE takes away",
        alt=f"Waterfall of the loss above dense, in nats a token. {_said(found.tdmoe, found.gap)}."
        + (f" Beside: {listing(_plain(beside))}." if (beside := [*found.combinations, *mobe, *others]) else ""),
        caption=_ladder_caption(found, [s for s in others if s.measured and s.damage > highest]),
        svg=svg(figure),
    )


def _ladder_caption(found: Attribution, cut: Sequence[Step]) -> str:
    said = (
        "Held-out loss above the dense model's, paired by window. Grey and green: where a method stands. Blue: what a "
        "change takes away from the step above it; orange: what it adds. Thin lines: one standard error."
    )
    if found.gap and found.reference is not None:
        said += (
            f" Per cent and upper axis: of the gap of {fixed(found.gap, 3)} nats between TD-MoE as published and MoBE "
            f"(dashed, {fixed(found.reference.damage, 3)} nats above dense)."
        )
    elif found.without_gap:
        said += " The gap to MoBE is not clear, so no share of it is given."
    if cut:
        said += f" Beyond the axis: {listing(_plain(cut))}."
    return said


def meeting_figure(model: str, found: Attribution) -> Figure | None:
    """MoBE's own ladder beside what TD-MoE does from the same level; None where it has no two measured steps."""
    if sum(step.measured for step in found.mobe) < 2:
        return None
    meeting = found.meeting
    after = found.tdmoe[found.tdmoe.index(meeting) :] if meeting is not None else []
    ours = chain(after, None)
    groups = [Group("MoBE, one change after the other", chain(found.mobe, None))]
    heading = "TD-MoE, from the same level" if len(after) > 1 else "TD-MoE, the nearest step"
    groups += [Group(heading, ours)] if ours else []
    steps = [step for step in (*found.mobe, *after) if step.measured]
    lowest = min([0.0, *(step.damage - step.stderr() for step in steps)])
    figure, axes, height = frame(groups, above=0.3)
    draw(axes, groups, max(s.damage + s.stderr() for s in steps) * _CLEAR, lowest)
    if meeting is not None:
        axes.axvline(found.mobe[0].damage, color=NULL_GREY, linewidth=0.9, linestyle=(0, (1.5, 2)), zorder=1)
    _heading(figure, height, "Two ladders from one level", model)
    return Figure(
        name=MEETING,
        title="Where MoBE's advantage comes from",
        alt=f"Waterfall of the loss above dense, in nats a token. MoBE: {_said(found.mobe, None)}. "
        f"TD-MoE: {_said(after, None)}.",
        caption=(
            "Held-out loss above the dense model's, paired by window; thin lines: one standard error. "
            + (f"{SAME_FORM}, where the ladders meet. " if found.meets_in_form else "")
            + (
                f"Dotted: where MoBE's ladder starts, {fixed(found.mobe[0].damage, 3)} nats; the step of TD-MoE "
                f"with the nearest errors, “{label(meeting.name, 48)}”, has {fixed(meeting.damage, 3)}."
                if meeting is not None and found.mobe[0].measured
                else ""
            )
        ).strip(),
        svg=svg(figure),
    )


def _said(steps: Sequence[Step], gap: float | None) -> str:
    """Every step in words: its level, then its change."""
    parts = []
    for bar in chain(steps, gap):
        name = label(bar.step.name, 48)
        if not bar.step.measured:
            parts.append(f"{name}: {label(bar.step.reason, 60)}")
        elif bar.start is None:
            parts.append(f"{name} {bar.note}")
        else:
            parts.append(f"{name} {fixed(bar.step.damage, 3)} ({bar.note})")
    return ", ".join(parts) or "not measured"


def _plain(steps: Sequence[Step]) -> list[str]:
    """Names and levels."""
    return [
        f"{f'MoBE {_preset(s)}' if s.family == MOBE else label(s.name, 48)} "
        f"{fixed(s.damage, 3) if s.measured else label(s.reason, 60)}"
        for s in steps
    ]


def _preset(step: Step) -> str:
    return step.preset + (", refitted" if "refit" in step.options else "")


def _heading(figure: Canvas, height: float, title: str, model: str) -> None:
    figure.text(0.02, 1 - 0.07 / height, title, fontweight="bold", va="top")
    figure.text(0.97, 1 - 0.08 / height, label(model, 24), fontsize=SMALL, color="#555555", va="top", ha="right")
