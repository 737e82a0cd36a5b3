"""The section that `attribution` puts on the page."""

from collections.abc import Sequence

from reports.attribution.answer import answer
from reports.attribution.ladder_figures import LADDER, MEETING
from reports.attribution.ladders import DENSE, MOBE, TDMOE, attribution
from reports.attribution.modes import FLOOR
from reports.attribution.scatter import SCATTER
from reports.attribution.shares import PREDICTORS, SHAPLEY
from reports.attribution.tables import ends, errors, losses, predictors, ranks, shapley, specs
from reports.drawing import Figure
from reports.run import Run
from reports.sections import Block, Section
from reports.tables import Table

_CAPTION = (
    "Loss above the dense model and its change to the step before, mean ± paired standard error over windows; share of "
    "the gap between TD-MoE as published and MoBE"
)


def attribution_section(run: Run, figures: Sequence[Figure]) -> Section:
    """Answer, both ladders, Shapley values, floors, predictors, all errors, and what to type for each step."""
    found = attribution(run)
    drawn = {figure.name: figure for figure in figures}
    wide: list[Block] = []

    def add(anchor: str, title: str, table: Table, figure: str = "") -> None:
        if table.lines:
            wide.append(Block(anchor, title, table, figure=drawn.get(figure), folded=True))

    beside = [step for step in found.beside if step.method != DENSE]
    ours = [*found.tensors, *(step for step in found.presets if step not in beside), *beside]
    add("ladder", "What each change to TD-MoE takes away", losses(ours, _CAPTION, ladder=TDMOE), LADDER)
    add("mobe", "Where MoBE's advantage comes from", losses(found.mobe, _CAPTION, ladder=MOBE), MEETING)
    add("shapley", "Each change, averaged over orders", shapley(found), SHAPLEY)
    add("floor", "What the ranks alone cost", ranks(found), FLOOR)
    add("predictors", "Which error predicts the damage", predictors(found), PREDICTORS)
    add("errors", "Errors and drift of every step", errors(found), SCATTER)
    add("specs", "Every step as a method", specs(found))
    return Section(
        title="What is self-inflicted, and what is structural",
        answer=answer(found),
        summary=ends(found),
        wide=wide,
        tiles_title="",
        tiles=[],
        method="attribution_method.html.j2",
    )
