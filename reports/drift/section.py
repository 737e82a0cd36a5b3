"""The section that `drift` puts on the page."""

from collections.abc import Sequence

from reports.drawing import Figure
from reports.drift.answer import answer
from reports.drift.figures import ACCUMULATED, DEPTH, ROUTING, SETS
from reports.drift.tables import (
    accumulated,
    angle,
    distance,
    everything,
    norm,
    over_depth,
    same_experts,
    summary,
)
from reports.drift.variants import accumulations, sets, variants
from reports.run import Run
from reports.sections import Block, Section
from reports.tables import Table


def drift_section(run: Run, figures: Sequence[Figure]) -> Section:
    """Answer, angle and norm over depth, local against accumulated, routing, growing sets, and every variant."""
    listed = variants(run)
    drawn = {figure.name: figure for figure in figures}
    wide: list[Block] = []

    def add(anchor: str, title: str, table: Table, figure: str) -> None:
        wide.append(Block(anchor, title, table, figure=drawn.get(figure), folded=True))

    if DEPTH in drawn:
        add(
            "depth",
            "Angle and norm ratio over depth",
            over_depth(listed, [("angle, °", angle), ("norm ratio", norm)]),
            DEPTH,
        )
    if found := accumulations(listed):
        add("accumulated", "Local against accumulated", accumulated(found), ACCUMULATED)
    if ROUTING in drawn:
        columns = [("same experts", same_experts), ("router JS distance", distance)]
        add("routing", "Routing over depth", over_depth(listed, columns), ROUTING)
    if sets(listed):
        together = [variant for variant in listed if variant.scope == "all" and variant.layers]
        add("sets", "Growing sets of layers", everything(together), SETS)
    if listed:
        wide.append(Block("variants", "Every variant", everything(listed), folded=True))
    return Section(
        title="Drift of the residual stream",
        answer=answer(listed),
        summary=summary(listed) if listed else None,
        wide=wide,
        tiles_title="",
        tiles=[],
        method="drift_method.html.j2",
    )
