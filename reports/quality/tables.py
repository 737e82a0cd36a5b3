"""The tables of `quality`: one line a model, one column a text or task, the difference to dense in small type."""

from collections.abc import Callable

from reports.formats import EMPTY, fixed, integer, percent
from reports.quality.models import ACCURACY, MACRO, PERPLEXITY, Measured, datasets, difference, with_error
from reports.run import Row
from reports.tables import Cell, Table, status_of


def perplexities(listed: list[Measured]) -> Table:
    """By text: perplexity, and the loss' paired difference to dense."""
    caption = (
        "Perplexity ± its standard error over windows; in small type the difference in loss to the dense model, nats a "
        "token ± its paired standard error, in brackets where that is within two standard errors of 0"
    )
    return _table(listed, datasets(listed, PERPLEXITY), caption, with_error)


def accuracies(listed: list[Measured]) -> Table:
    """By task, the macro average first: accuracy, and its paired difference to dense."""
    tasks = sorted(datasets(listed, ACCURACY), key=lambda name: name != MACRO)
    caption = (
        "Zero-shot accuracy ± its standard error over documents; in small type the difference to the dense model, "
        "points ± its paired standard error, in brackets where that is within two standard errors of 0"
    )
    return _table(listed, tasks, caption, _accuracy)


def protocols(listed: list[Measured]) -> Table:
    """What was measured on what, by data set."""
    found: dict[str, Row] = {}
    for model in listed:
        for name, row in model.rows.items():
            found.setdefault(name, row)
    lines = [
        [Cell(name), Cell(integer(row.get("samples"))), Cell(str(row.get("protocol") or EMPTY))]
        for name, row in found.items()
    ]
    return Table("What was measured on what", ("data set", "windows or documents", "protocol"), lines)


def _table(listed: list[Measured], names: list[str], caption: str, text: Callable[[Row], str]) -> Table:
    lines = [
        [Cell(model.name), Cell(model.layers or EMPTY), Cell(percent(model.bits_saved))]
        + [_cell(model.rows.get(name), text) for name in names]
        for model in listed
    ]
    return Table(caption, ["model", "layers", "bits saved", *names], lines)


def _cell(row: Row | None, text: Callable[[Row], str]) -> Cell:
    if row is None:
        return Cell(EMPTY, "not measured")
    if row.get("value") is None:
        return Cell(EMPTY, status_of(row))
    found = difference(row)
    places, scale = (4, 1.0) if row["metric"] == PERPLEXITY else (1, 100.0)
    return Cell(text(row), "" if found is None else found.note(places, scale))


def _accuracy(row: Row) -> str:
    stderr = row.get("stderr")
    return percent(row["value"]) + ("" if stderr is None else f" ± {fixed(100 * stderr, 1)}")
