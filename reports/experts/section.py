"""The section that `experts` puts on the page."""

from collections.abc import Sequence

from reports.drawing import Figure
from reports.experts.alike import alike_name
from reports.experts.answer import answer, summary_table
from reports.experts.curves import curves_name, curves_table
from reports.experts.data import WeightStack, expert_stacks
from reports.experts.depth import DEPTH
from reports.experts.tables import binding_table, points_table, similarity_table
from reports.run import Run
from reports.sections import Block, Section

_OPEN_LAYERS = 2  # with more layers than this their long tables start folded


def experts_section(run: Run, figures: Sequence[Figure]) -> Section:
    """Answer, the answer stack by stack, and every layer with its curves, triples and similarities."""
    listed = expert_stacks(run)
    drawn = {figure.name: figure for figure in figures}
    layers = sorted({stack.layer for stack in listed})
    tiles: list[Block] = []
    for layer in layers:
        ours = [stack for stack in listed if stack.layer == layer]
        tiles += _layer(layer, ours, drawn, folded=len(layers) > _OPEN_LAYERS)
    return Section(
        title="Expert mode: preserve against compress",
        answer=answer(listed),
        summary=summary_table(listed),
        wide=[Block("binding", "The expert mode, stack by stack", binding_table(listed), figure=drawn.get(DEPTH))]
        if listed
        else [],
        tiles_title="Layer by layer",
        tiles=tiles,
        method="experts_method.html.j2",
    )


def _layer(layer: int, ours: Sequence[WeightStack], drawn: dict[str, Figure], *, folded: bool) -> list[Block]:
    blocks = []
    if figure := drawn.get(curves_name(layer)):
        curved = [stack for stack in ours if any(stack.curve(ratio) for ratio in stack.binding)]
        table = curves_table(layer, curved)
        blocks.append(
            Block(f"curves-{layer}", f"Layer {layer}: error over the expert rank", table, figure=figure, folded=True)
        )
    if figure := drawn.get(alike_name(layer)):
        table = similarity_table(layer, ours)
        blocks.append(
            Block(f"similarity-{layer}", f"Layer {layer}: similarity of experts", table, figure=figure, folded=folded)
        )
    table = points_table(layer, ours)
    return [*blocks, Block(f"triples-{layer}", f"Layer {layer}: measured triples", table, folded=folded)]
