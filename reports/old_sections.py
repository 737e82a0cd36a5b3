"""Sections and figures of probes that do not declare theirs yet; this file goes when the last one does.

A probe that has `claims.py`, `figures.py` and `method.md` in its folder loses its row here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from markupsafe import Markup

from reports.drawing import Figure
from reports.drift.figures import drift_figures
from reports.drift.section import drift_section
from reports.experts.figures import experts_figures
from reports.experts.section import experts_section
from reports.page import environment
from reports.quality.figures import quality_figures
from reports.quality.section import quality_section
from reports.run import Run
from reports.sections import Section
from reports.superweights.figures import superweights_figures
from reports.superweights.section import superweights_section

_OLD: dict[str, tuple[Callable[[Run], list[Figure]], Callable[[Run, Sequence[Figure]], Section]]] = {
    "experts": (experts_figures, experts_section),
    "superweights": (superweights_figures, superweights_section),
    "drift": (drift_figures, drift_section),
    "quality": (quality_figures, quality_section),
}
OLD = tuple(_OLD)


def figures(run: Run) -> list[Figure]:
    """The figures of a run of one of these."""
    return _OLD[run["command"]][0](run)


def section(run: Run, drawn: Sequence[Figure]) -> Section:
    """Its section."""
    found = _OLD[run["command"]][1](run, drawn)
    return replace(found, method=Markup(environment().get_template(found.method).render()))
