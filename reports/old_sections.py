"""Sections and figures of probes that do not declare theirs yet; this file goes when the last one does.

A probe that has `claims.py`, `figures.py` and `method.md` in its folder loses its row here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from markupsafe import Markup

from reports.drawing import Figure
from reports.injection.figures import injection_figures
from reports.injection.section import injection_section
from reports.page import environment
from reports.run import Run
from reports.sections import Section

_OLD: dict[str, tuple[Callable[[Run], list[Figure]], Callable[[Run, Sequence[Figure]], Section]]] = {
    "injection": (injection_figures, injection_section),
}
OLD = tuple(_OLD)


def figures(run: Run) -> list[Figure]:
    """The figures of a run of one of these."""
    return _OLD[run["command"]][0](run)


def section(run: Run, drawn: Sequence[Figure]) -> Section:
    """Its section."""
    found = _OLD[run["command"]][1](run, drawn)
    return replace(found, method=Markup(environment().get_template(found.method).render()))
