"""All figures of a `spectra` run: the heat map over depth, then the spectra of every layer."""

from reports.drawing import Figure, style
from reports.run import Run, stacks
from reports.spectra.depth import depth_figure
from reports.spectra.layers import layer_figure


def spectra_figures(run: Run) -> list[Figure]:
    """The figures that the run's data allows: none when nothing was measured."""
    listed = stacks(run, "spectra")
    model = run["model"]
    with style():
        drawn = [depth_figure(model, listed)] if any(stack.rows for stack in listed) else []
        for layer in sorted({stack.layer for stack in listed}):
            ours = [stack for stack in listed if stack.layer == layer and stack.rows]
            arrays = {stack.projection: run["arrays"].get(f"spectra-L{layer:03d}-{stack.projection}") for stack in ours}
            measured = {projection: spectra for projection, spectra in arrays.items() if spectra}
            if measured:
                drawn.append(layer_figure(model, layer, ours, measured))
    return drawn
