"""The section that `spectra` puts on the page."""

from collections.abc import Sequence

from reports.drawing import Figure
from reports.run import Run, stacks
from reports.sections import Block, Section
from reports.spectra.answer import answer, summary_table
from reports.spectra.depth import DEPTH
from reports.spectra.layers import layer_name
from reports.spectra.tables import exponents, measurements, over_depth

_OPEN_LAYERS = 2  # with more layers than this their long tables start folded


def spectra_section(run: Run, figures: Sequence[Figure]) -> Section:
    """Answer, table of exponents, heat map over depth, and every layer with its spectra and measurements."""
    listed = stacks(run, "spectra")
    drawn = {figure.name: figure for figure in figures}
    layers = sorted({stack.layer for stack in listed})
    wide = [Block("exponents", "Exponents", exponents(listed))]
    if DEPTH in drawn:
        wide.append(
            Block("depth", "Exponents over depth", over_depth(listed), figure=drawn[DEPTH], folded=len(layers) > 1)
        )
    tiles = [
        Block(
            anchor=f"layer-{layer}",
            title=f"Layer {layer}",
            table=measurements(layer, [stack for stack in listed if stack.layer == layer]),
            figure=drawn.get(layer_name(layer)),
            folded=len(layers) > _OPEN_LAYERS,
        )
        for layer in layers
    ]
    return Section(
        title="Spectra of the mode unfoldings",
        answer=answer(listed),
        summary=summary_table(listed),
        wide=wide if listed else [],
        tiles_title="Layer by layer",
        tiles=tiles,
        method="spectra_method.html.j2",
    )
