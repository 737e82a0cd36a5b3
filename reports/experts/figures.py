"""All figures of an `experts` run: prices over depth, then curve and similarity of every layer."""

from reports.drawing import Figure, style
from reports.experts.alike import alike_figure
from reports.experts.curves import curves_figure
from reports.experts.data import answered, expert_stacks, ratios_of
from reports.experts.depth import depth_figure
from reports.run import Run


def experts_figures(run: Run) -> list[Figure]:
    """The figures that the run's data allows: none when nothing was measured."""
    listed = expert_stacks(run)
    model = run["model"]
    drawn: list[Figure] = []
    with style():
        if any(answered(listed, ratio, "price_share") for ratio in ratios_of(listed)):
            drawn.append(depth_figure(model, listed))
        for layer in sorted({stack.layer for stack in listed}):
            ours = [stack for stack in listed if stack.layer == layer]
            if curved := [stack for stack in ours if any(stack.curve(ratio) for ratio in stack.binding)]:
                drawn.append(curves_figure(model, layer, curved))
            if compared := [stack for stack in ours if stack.arrays]:
                drawn.append(alike_figure(model, layer, compared))
    return drawn
