"""Which command draws what. A command brings its own module and one row here."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from reports.attribution.figures import attribution_figures
from reports.chapters import prefixes
from reports.drawing import Figure
from reports.drift.figures import drift_figures
from reports.experts.figures import experts_figures
from reports.injection.figures import injection_figures
from reports.operator.figures import operator_figures
from reports.quality.figures import quality_figures
from reports.run import Run
from reports.spectra.figures import spectra_figures
from reports.superweights.figures import superweights_figures

__all__ = ["FIGURES", "Figure", "drift_figures", "figures_for", "figures_of", "named_apart", "spectra_figures"]

FIGURES: dict[str, Callable[[Run], list[Figure]]] = {
    "spectra": spectra_figures,
    "operator": operator_figures,
    "experts": experts_figures,
    "superweights": superweights_figures,
    "quality": quality_figures,
    "drift": drift_figures,
    "injection": injection_figures,
    "attribution": attribution_figures,
}


def figures_for(run: Run) -> list[Figure]:
    """The figures of a run; none for a command that draws nothing."""
    draw = FIGURES.get(run["command"])
    return draw(run) if draw else []


def figures_of(runs: Sequence[Run]) -> list[list[Figure]]:
    """The figures of each run, as `reports.page.render` takes them."""
    return [figures_for(run) for run in runs]


def named_apart(runs: Sequence[Run], figures: Sequence[Sequence[Figure]]) -> list[Figure]:
    """All of these figures with names that do not collide, for one folder; those of a single run keep theirs."""
    return [
        replace(figure, name=prefix + figure.name)
        for prefix, drawn in zip(prefixes(runs), figures, strict=True)
        for figure in drawn
    ]
