"""The section that `injection` puts on the page."""

from collections.abc import Sequence

from reports.drawing import Figure
from reports.injection.answer import answer, summary_table
from reports.injection.figures import PAIRS
from reports.injection.sites import sites
from reports.injection.tables import cells, pairs, within
from reports.run import Run
from reports.sections import Block, Section


def injection_section(run: Run, figures: Sequence[Figure]) -> Section:
    """Answer, laws by site, pairs, exponents inside designs, and every site's points."""
    found = sites(run)
    drawn = {figure.name: figure for figure in figures}
    tiles = [
        Block(site.anchor, site.name, cells(site), figure=drawn.get(site.anchor), folded=True)
        for site in found
        if site.rows
    ]
    wide = [
        Block("pairs", "Pairs that differ in one error", pairs(found), figure=drawn.get(PAIRS), folded=True),
        Block(
            "within",
            "Exponents at one norm held equal",
            within(found),
            text="A norm that is held equal cannot explain differences between families; the other errors can.",
            folded=True,
        ),
    ]
    return Section(
        title="Which error predicts the damage",
        answer=answer(found),
        summary=summary_table(found),
        wide=wide if any(site.contrasts for site in found) else [],
        tiles_title="Response against each error",
        tiles=tiles,
        method="injection_method.html.j2",
    )
