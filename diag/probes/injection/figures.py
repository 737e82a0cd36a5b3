"""Figures of injection: pairs of families that differ in one error, and the response against each error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diag.declare.column import Row
from diag.probes.injection.columns import CONTRASTS, DRAWN, ERRORS, NAME, compared, error_name, points, ratios, site
from diag.statistics.medians import given, groups, where
from reports.formats import fixed
from reports.plots import Entry, Forest, Level, Mark, Panel, Plot, Scatter, Series

_FILLS = {"frobenius": "full", "operator": "none", "functional": "bottom"}


def figures(tables: Mapping[str, Sequence[Row]], arrays: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """The pairs, and one figure for each site with a positive response."""
    contrasts = given(tables.get(CONTRASTS, ()), "value")
    pairs = ratios(contrasts)
    found: list[Plot] = [ratio_forest(pairs)] if pairs else []
    for name, cells in groups(points(tables.get(NAME, ())), "site").items():
        if any(cell["loss_change"] > 0 for cell in cells):
            found.append(responses(name, cells, [row for row in contrasts if site(row) == name]))
    return found


def ratio_forest(rows: Sequence[Row]) -> Forest:
    """Ratios as measured, and as the square of each error would say."""
    entries: dict[str, list[Entry]] = {}
    for row in rows:
        squares = [(error, row.get(f"{error}_ratio")) for error in ("operator_error", "functional_error")]
        marks = [Mark(ratio**2, error, f"square of the ratio of {error_name(error)}s", hollow=True)
                 for error, ratio in squares if ratio]  # fmt: skip
        marks.append(Mark(row["value"], label="measured, 95 % interval", low=row.get("low"), high=row.get("high")))
        entries.setdefault(site(row), []).append(Entry(compared(row), marks))
    return Forest(
        "injection-pairs", "Pairs that differ in one error",
        "How many times the first family of a pair increases the loss as the second does, at equal Frobenius or "
        "operator norm of every expert's residual. Loss that grew with the square of an error would lie on that "
        "error's symbol.",
        groups=list(entries.items()), x="added loss, first over second", log=True, levels=[Level(1.0, axis="x")],
        view="pairs",
    )  # fmt: skip


def responses(name: str, cells: Sequence[Row], contrasts: Sequence[Row]) -> Scatter:
    """A panel an error: points of every kind of residual, and the power law of the drawn ones."""
    shown = [cell for cell in cells if cell["loss_change"] > 0]
    hidden = len(cells) - len(shown)
    panels = []
    for error in ERRORS:
        ours = [cell for cell in given(shown, error) if cell[error] > 0]
        law = where(contrasts, statistic="exponent", error=error)[:1]
        said = f": R² {fixed(law[0]['r2'], 3)}, exponent {fixed(law[0]['value'], 2)}" if law else ""
        series = [*_points(ours, error), *_fit(ours, error, law)]
        panels.append(Panel(f"{error_name(error)}{said}", series, x=f"{error_name(error)} (relative)"))
    layer = cells[0]["layer"]
    place = "all" if layer is None else f"L{layer:03d}"
    return Scatter(
        f"injection-{place}-{str(cells[0]['projection']).replace(',', '-')}", f"Response: {name}",
        "Symbols: mean over draws; bars: least and largest draw. Filled: equal Frobenius norm; open: equal operator "
        "norm; half filled: equal functional error. Line: the power law of the drawn families. An error that predicts "
        "the loss puts all families on one line."
        + (f" {hidden} of {len(cells)} points did not increase the loss and are not shown." if hidden else ""),
        panels=panels, x="relative error", y="added loss, nats a token", log="xy", same="", tile=True,
    )  # fmt: skip


def _points(cells: Sequence[Row], error: str) -> Iterator[Series]:
    for family, ours in groups(cells, "family").items():
        for number, (design, found) in enumerate(groups(ours, "design").items()):
            draws = [[r for r in cell["responses"] if r > 0] for cell in found]  # what a logarithmic axis can show
            yield Series(
                [cell[error] for cell in found], [cell["loss_change"] for cell in found], family,
                "" if number else None, "none", low=[min(d) for d in draws], high=[max(d) for d in draws],
                fill=_FILLS.get(str(design), "full") if family in DRAWN else "full",
            )  # fmt: skip


def _fit(cells: Sequence[Row], error: str, law: Sequence[Row]) -> Iterator[Series]:
    drawn = [(cell[error], cell["loss_change"]) for cell in cells if cell["family"] in DRAWN]
    if law and len(drawn) > 1:
        x, y = np.log(np.array(drawn)).T
        ends = np.array([x.min(), x.max()])
        line = np.exp(y.mean() + float(law[0]["value"]) * (ends - x.mean()))
        yield Series(np.exp(ends), line, "fit", "power law", "thin")
