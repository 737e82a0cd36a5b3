"""One run as one HTML file that asks for nothing: no script, no request, no path of the machine that made it.

Everything printed passes `display` (text made harmless, numbers in our style, absence as a dash) and is then escaped.
The page's policy allows one style sheet, by its hash, and images in data: URLs; figures are such images, so nothing
inside an SVG can run or reach out.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports.attribution.section import attribution_section
from reports.drawing import Figure
from reports.drift.section import drift_section
from reports.experts.section import experts_section
from reports.formats import display
from reports.injection.section import injection_section
from reports.operator.section import operator_section
from reports.quality.section import quality_section
from reports.run import Run
from reports.sections import Section
from reports.spectra.section import spectra_section
from reports.superweights.section import superweights_section
from reports.tables import pairs

SECTIONS: dict[str, Callable[[Run, Sequence[Figure]], Section]] = {
    "spectra": spectra_section,
    "experts": experts_section,
    "superweights": superweights_section,
    "quality": quality_section,
    "operator": operator_section,
    "drift": drift_section,
    "injection": injection_section,
    "attribution": attribution_section,
}


def render(run: Run, figures: Sequence[Figure]) -> str:
    """The page of a run as text; the same run and figures give the same bytes."""
    build = SECTIONS.get(run["command"])
    if build is None:
        raise ValueError(f"no page for command {run['command']!r}; there is one for: {', '.join(sorted(SECTIONS))}")
    style = files("reports").joinpath("templates/style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    jobs = run["jobs"]
    return _environment().get_template("page.html.j2").render(
        run=run,
        section=build(run, figures),
        style=Markup(style),  # our own file, never data
        style_hash=Markup(digest),
        unfinished=[job for job in jobs if job["state"] != "done"],
        remarks=[job for job in jobs if job["state"] == "done" and job.get("message")],
        settings=pairs("Settings", ("setting", "value"), _as_text(dict(sorted(run["config"].items())))),
        circumstances=pairs("Circumstances", ("what", "value"), _circumstances(run)),
    )  # fmt: skip


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
    return environment


def _data_url(figure: Figure) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(figure.svg).decode()}"


def _as_text(values: dict[str, object]) -> dict[str, str]:
    return {str(name): _setting(value) for name, value in values.items()}


def _setting(value: object) -> str:
    return ", ".join(_setting(item) for item in value) if isinstance(value, list | tuple) else str(display(value))


def _circumstances(run: Run) -> dict[str, str]:
    facts = {"model": run["model"], "model fingerprint": run["fingerprint"], "device": run["device"]}
    facts |= {"seed": run["seed"], "started": run["started"], "layout of the run": f"version {run['schema']}"}
    return _as_text(facts) | _as_text(
        {f"version of {name}": version for name, version in sorted(run["versions"].items())}
    )
