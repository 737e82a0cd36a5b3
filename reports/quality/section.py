"""The section that `quality` puts on the page."""

from collections.abc import Sequence

from reports.drawing import Figure
from reports.quality.answer import answer
from reports.quality.figures import ACCURACY_FIGURE, PERPLEXITY_FIGURE
from reports.quality.models import ACCURACY, PERPLEXITY, datasets, models
from reports.quality.tables import accuracies, perplexities, protocols
from reports.run import Run
from reports.sections import Block, Section
from reports.tables import Table

_OPEN = 16  # with more models than this the tables start folded


def quality_section(run: Run, figures: Sequence[Figure]) -> Section:
    """Answer, perplexity, accuracy, and what was measured on what."""
    listed = models(run)
    drawn = {figure.name: figure for figure in figures}
    folded = len(listed) > _OPEN
    wide: list[Block] = []

    def add(anchor: str, title: str, table: Table, figure: str) -> None:
        wide.append(Block(anchor, title, table, figure=drawn.get(figure), folded=folded))

    if datasets(listed, PERPLEXITY):
        add("perplexity", "Perplexity", perplexities(listed), PERPLEXITY_FIGURE)
    if datasets(listed, ACCURACY):
        add("accuracy", "Zero-shot accuracy", accuracies(listed), ACCURACY_FIGURE)
    if listed:
        wide.append(Block("protocol", "Protocol", protocols(listed)))
    return Section(
        title="Perplexity and zero-shot accuracy",
        answer=answer(listed),
        summary=None,
        wide=wide,
        tiles_title="",
        tiles=[],
        method="quality_method.html.j2",
    )
