"""One or several runs as one HTML file that asks for nothing: no request, no path of the machine that made it.

Everything printed passes `display` (text made harmless, numbers in our style, absence as a dash) and is then escaped.
The page's policy allows one style sheet and one script of ours, by their hashes, and images in data: URLs; figures are
such images, so nothing inside an SVG can run or reach out. The script sorts tables and enlarges figures; without it all
is there to read.
"""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports import verdict
from reports.attribution.section import attribution_section
from reports.chapters import Build, Subject, slug, subjects
from reports.contents import contents
from reports.download import csv_url
from reports.drawing import Figure
from reports.drift.section import drift_section
from reports.experts.section import experts_section
from reports.formats import display, lead, listing
from reports.injection.section import injection_section
from reports.making import Job, Making
from reports.operator.section import operator_section
from reports.quality.section import quality_section
from reports.run import Run
from reports.spectra.section import spectra_section
from reports.superweights.section import superweights_section

SECTIONS: dict[str, Build] = {  # in the order of the page
    "spectra": spectra_section,
    "experts": experts_section,
    "operator": operator_section,
    "superweights": superweights_section,
    "injection": injection_section,
    "attribution": attribution_section,
    "drift": drift_section,
    "quality": quality_section,
}
_NAMED = 3  # models named in the title of a page of several


def render(runs: Sequence[Run], figures: Sequence[Sequence[Figure]], missing: Sequence[Job] = ()) -> str:
    """The page of these runs as text, `figures[i]` those of `runs[i]`; the same input gives the same bytes.

    Several runs open with verdict and comparison (`reports.verdict`) and share one account of how they were made.
    `missing` are jobs (key, state, message) that left no run, to be named with the unfinished ones. ValueError where a
    run's command has no page.
    """
    found = subjects(runs, figures, SECTIONS, verdict.BESIDE)
    chapters = [chapter for subject in found for chapter in subject.chapters]
    opening = verdict.opening(runs) if len(runs) > 1 else None
    making = Making(chapters, missing)
    style, script = _ours("style.css"), _ours("page.js")
    return _environment().get_template("page.html.j2").render(
        title=_title(found),
        commands=listing(list(dict.fromkeys(str(chapter.run["command"]) for chapter in chapters))),
        subjects=found,
        chapters=chapters,
        opening=opening,
        contents=contents(found, opening, incomplete=bool(making.unfinished)),
        making=making,
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
    )  # fmt: skip


def _title(found: Sequence[Subject]) -> str:
    names = list(dict.fromkeys(str(chapter.run["model"]) for subject in found for chapter in subject.chapters))
    return listing(names) if len(names) <= _NAMED else f"{len(names)} models"


def _ours(name: str) -> Markup:
    """One of our own files, which goes into the page as it is."""
    return Markup(files("reports").joinpath(f"templates/{name}").read_text(encoding="utf-8"))


def _hash(text: str) -> Markup:
    """SHA-256 as a content security policy wants it."""
    return Markup(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=True,
        finalize=display,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_url"] = _data_url
    environment.filters["csv_url"] = csv_url
    environment.filters["lead"] = lead
    environment.filters["slug"] = slug
    return environment


def _data_url(figure: Figure) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(figure.svg).decode()}"
