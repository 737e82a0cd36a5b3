"""All figures of a `superweights` run: those that its data allows."""

from reports.drawing import Figure, style
from reports.run import Run, given
from reports.superweights.curves import methods_figure, positions_figure, recovery_figure
from reports.superweights.effects import ablation_figure, effects, spikes_figure
from reports.superweights.matrices import matrices, rows_of


def superweights_figures(run: Run) -> list[Figure]:
    """None when nothing was measured."""
    model, listed, drawn = run["model"], matrices(run), []
    spikes = [row for row in rows_of(run, "spikes") if given(row, "input_activation", "output_activation")]
    found = effects(rows_of(run, "ablation"))
    with style():
        if spikes:
            drawn.append(spikes_figure(model, spikes))
        if listed:
            drawn += [recovery_figure(model, listed), positions_figure(model, listed)]
            drawn += [methods_figure(model, listed[0])] if listed[0].methods else []
        if found:
            drawn.append(ablation_figure(model, found))
    return drawn
