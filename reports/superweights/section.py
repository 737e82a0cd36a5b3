"""The section that `superweights` puts on the page."""

from collections.abc import Sequence

from reports.drawing import Figure
from reports.run import Run
from reports.sections import Block, Section
from reports.superweights.answer import answer, summary_table
from reports.superweights.curves import METHODS, POSITIONS, RECOVERY
from reports.superweights.effects import ABLATION, SPIKES
from reports.superweights.matrices import matrices, rows_of
from reports.superweights.tables import ablations, entries, found, methods, over_rank, places, spikes


def superweights_section(run: Run, figures: Sequence[Figure]) -> Section:
    """Answer, what was found, recovery against rank and storage, positions, ablation, and every matrix's entries."""
    drawn = {figure.name: figure for figure in figures}
    listed = matrices(run)
    wide = [Block("found", "Super weights", found(rows_of(run, "superweights")))]
    if SPIKES in drawn:
        wide.append(
            Block("spikes", "Activation spikes", spikes(rows_of(run, "spikes")), figure=drawn[SPIKES], folded=True)
        )
    if RECOVERY in drawn:
        wide.append(Block("recovery", "Recovery against rank", over_rank(listed), figure=drawn[RECOVERY], folded=True))
    if METHODS in drawn:
        wide.append(
            Block("methods", "Recovery against storage", methods(listed[0]), figure=drawn[METHODS], folded=True)
        )
    if ABLATION in drawn:
        wide.append(
            Block("ablation", "Ablation", ablations(rows_of(run, "ablation")), figure=drawn[ABLATION], folded=True)
        )
    if POSITIONS in drawn:
        wide.append(
            Block("positions", "Positions of the entries", places(listed), figure=drawn[POSITIONS], folded=True)
        )
    tiles = [Block(matrix.anchor, matrix.title, entries(matrix), folded=True) for matrix in listed]
    return Section(
        title="Super weights",
        answer=answer(run),
        summary=summary_table(run),
        wide=wide,
        tiles_title="Tracked entries, matrix by matrix",
        tiles=tiles,
        method="superweights_method.html.j2",
    )
