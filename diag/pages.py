"""Runs as pages: what probes declare (claims, views, figures, method.md), handed to `reports`, which knows no probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from typing import Any

from diag.declare.claim import Claim, Estimate, Quantity
from diag.declare.column import Columns, View
from diag.verdict import HEADLINES, NOTE, verdicts
from reports.chapters import prefixes, subjects
from reports.drawing import Figure
from reports.making import Job
from reports.markdown import html
from reports.page import render as page_of
from reports.plots import draw
from reports.run import Row, Run
from reports.sections import Block, Opening, Section
from reports.sentences import sentences
from reports.tables import Table, pairs, tabulated

ORDER = ("spectra", "experts", "operator", "superweights", "injection", "attribution", "drift", "quality")
_MEASURED = Quantity("measured", "Measured", pattern="share")
_LINES = 5  # of an answer in the terminal


def figures_for(run: Run) -> list[Figure]:
    """The figures of a run; none for a command that draws nothing."""
    command = run["command"]
    if command not in ORDER:
        return []
    tables = _with_absent(_part(command, "columns").TABLES, run)
    plots = _part(command, "figures").figures(tables, run["arrays"])
    return [draw(plot, run["model"]) for plot in plots]


def figures_of(runs: Sequence[Run]) -> list[list[Figure]]:
    """The figures of each run, as `render` takes them."""
    return [figures_for(run) for run in runs]


def named_apart(runs: Sequence[Run], figures: Sequence[Sequence[Figure]]) -> list[Figure]:
    """All of these figures with names that do not collide, for one folder; those of a single run keep theirs."""
    return [
        replace(figure, name=prefix + figure.name)
        for prefix, drawn in zip(prefixes(runs), figures, strict=True)
        for figure in drawn
    ]


def render(
    runs: Sequence[Run],
    figures: Sequence[Sequence[Figure]],
    missing: Sequence[Job] = (),
    opened: Opening | None = None,
) -> str:
    """The page of these runs, `figures[i]` those of `runs[i]`; see `reports.page.render`.

    Several runs open with their verdict; `opened` is what `opening` made of them, where it was.

    ValueError where a run's command has no page.
    """
    for run in runs:
        if run["command"] not in ORDER:
            raise ValueError(f"no page for command {run['command']!r}; there is one for: {', '.join(sorted(ORDER))}")
    sections = [_section(run, drawn) for run, drawn in zip(runs, figures, strict=True)]
    if opened is None and len(runs) > 1:
        opened = opening(runs)
    return page_of(subjects(runs, sections, ORDER), opened, missing)


def opening(runs: Sequence[Run]) -> Opening:
    """The beginning of a page of several runs: claims in sentences, and tables with their figures."""
    blocks, told = [], verdicts(runs)
    for found in told:
        drawn = {plot.view: draw(plot, found.subject.name) for plot in found.figures}
        text = NOTE
        for view in found.views:
            figure = drawn.get(view.name)
            blocks.append(Block(view.name, view.title, _table(view), text=text, figure=figure, folded=view.folded))
            text = ""
    return Opening(sentences([claim for found in told for claim in found.as_dicts()]), blocks)


def verdict_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Claims across runs as plain data, model by model; a sentence names the model where there are several."""
    return [claim for found in verdicts(runs) for claim in found.as_dicts()]


def headlines(runs: Sequence[Run]) -> list[str]:
    """The verdict in at most five sentences, for the terminal."""
    return sentences([claim for claim in verdict_of(runs) if claim["quantity"] in HEADLINES])[:_LINES]


def claims_of(command: str, tables: Mapping[str, Sequence[Row]], jobs: Sequence[Job] = ()) -> list[dict[str, Any]]:
    """Conclusions of a run as plain data, and how much of it was measured."""
    found: list[Claim] = list(_part(command, "claims").claims(tables))
    if not found:
        found.append(Claim("nothing of this run has a result yet", Quantity("answer", "Answer"), Estimate(None)))
    if jobs:
        done = sum(job["state"] == "done" for job in jobs)
        rest = "" if done == len(jobs) else "The run is incomplete: all of the above holds for the measured part only."
        of = Estimate(done, unit="jobs", of=len(jobs))
        found.append(Claim("", replace(_MEASURED, after=rest), of))
    return [claim.as_dict() for claim in found]


def answer(run: Run) -> tuple[list[str], Table]:
    """The part of a run that the terminal shows: at most five sentences, and the first view."""
    columns = _part(run["command"], "columns")
    view = columns.views(_with_absent(columns.TABLES, run))[0]
    return sentences(claims_of(run["command"], run["tables"]))[:_LINES], _table(view)


def _section(run: Run, drawn: Sequence[Figure]) -> Section:
    """Claims, views each with its figure, figures of their own, and how it was measured."""
    command = run["command"]
    columns = _part(command, "columns")
    views = columns.views(_with_absent(columns.TABLES, run))
    above = {figure.view: figure for figure in drawn if figure.view}
    wide = [Block(v.name, v.title, _table(v), figure=above.get(v.name), folded=v.folded) for v in views if v.rows]
    placed = {view.name for view in views if view.rows}
    lone = [figure for figure in drawn if figure.view not in placed]
    wide += [Block(figure.name, figure.title, None, figure=figure) for figure in lone if not figure.tile]
    claims = _part(command, "claims")
    return Section(
        title=claims.TITLE,
        question=claims.QUESTION,
        answer=sentences(claims_of(command, run["tables"], run["jobs"])),
        summary=None,
        wide=wide,
        tiles_title="Layer by layer",
        tiles=[Block(figure.name, figure.title, None, figure=figure) for figure in lone if figure.tile],
        method=html(files(f"diag.probes.{command}").joinpath("method.md").read_text(encoding="utf-8")),
        columns=[_meanings(name, table) for name, table in columns.TABLES.items()],
    )


def _table(view: View) -> Table:
    return tabulated(view.caption, view.columns, view.rows, view.keys, view.across)


def _meanings(name: str, columns: Columns) -> Table:
    return pairs(f"Columns of {name}.csv", ("column", "meaning"), {c.name: c.meaning for c in columns.pick()})


def _with_absent(tables: Mapping[str, Columns], run: Run) -> dict[str, Sequence[Row]]:
    """The rows, with one for every unfinished stack, so that a partial table does not look complete."""
    absent = [
        {"layer": int(layer[1:]), "projection": projection, "status": job["state"]}
        for job in run["jobs"]
        if job["state"] != "done" and (parts := job["key"].split("-", 2))[2:]
        for layer, projection in [parts[1:]]
        if layer[:1] == "L" and layer[1:].isdigit()
    ]
    found: dict[str, Sequence[Row]] = {}
    for name, columns in tables.items():
        rows = list(run["tables"].get(name, ()))
        stacked = {"layer", "projection", "status"} <= set(columns)
        found[name] = sorted(rows + (absent if stacked and rows else []), key=_place) if stacked else rows
    return found


def _place(row: Row) -> tuple[Any, ...]:
    from reports.theme import order

    layer = row.get("layer")  # None where all of them are meant
    return (layer is not None, layer or 0, order(str(row.get("projection"))))


def _part(command: str, part: str) -> Any:
    """A module of a probe's folder."""
    return import_module(f"diag.probes.{command}.{part}")
