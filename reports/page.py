"""One or several runs as one HTML file that asks for nothing: no request, no path of the machine that made it.

It is given sections as plain data and knows no probe.

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

from reports.chapters import Subject, slug
from reports.contents import contents
from reports.download import csv_url
from reports.drawing import Figure
from reports.formats import display, lead, listing
from reports.making import Job, Making
from reports.sections import Opening

_NAMED = 3  # models named in the title of a page of several


def render(found: Sequence[Subject], opening: Opening | None = None, missing: Sequence[Job] = ()) -> str:
    """The page of these subjects (`reports.chapters.subjects`) as text; the same input gives the same bytes.

    A page of several runs begins with `opening` and shares one account of how they were made. `missing` are jobs (key,
    state, message) that left no run, to be named with the unfinished ones.
    """
    chapters = [chapter for subject in found for chapter in subject.chapters]
    making = Making(chapters, missing)
    style, script = _ours("style.css"), _ours("page.js")
    return environment().get_template("page.html.j2").render(
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


def environment() -> Environment:
    """The environment that renders our templates."""
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
