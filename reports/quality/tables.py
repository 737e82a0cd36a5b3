"""The tables of `quality`: perplexity with differences in nats, accuracy with differences, one line a model."""

from collections.abc import Callable

from reports.formats import EMPTY, fixed, integer, percent, significant
from reports.quality.models import ACCURACY, PERPLEXITY, Measured, datasets, difference
from reports.run import Row
from reports.tables import Cell, Table, status_of


def perplexities(listed: list[Measured]) -> Table:
    """By text: perplexity, and the loss' paired difference to dense."""
    texts = datasets(listed, PERPLEXITY)
    lines = []
    for model in listed:
        line = _head(model)
        for text in texts:
            row = model.rows.get(text)
            line += [_value(row, _perplexity), _difference(model, row)]
        lines.append(line)
    return Table(
        "Perplexity ± its standard error over windows, and the difference in loss to the dense model on the same "
        "windows (nats a token) ± its paired standard error",
        [*_HEAD, *(label for _ in texts for label in ("perplexity", "difference, nats"))],
        lines,
        groups=[("", len(_HEAD)), *((text, 2) for text in texts)],
    )


def accuracies(listed: list[Measured]) -> Table:
    """By task: accuracy, and its paired difference to dense."""
    tasks = datasets(listed, ACCURACY)
    lines = []
    for model in listed:
        line = _head(model)
        for task in tasks:
            row = model.rows.get(task)
            line += [_value(row, _accuracy), _difference(model, row)]
        lines.append(line)
    return Table(
        "Zero-shot accuracy ± its standard error over documents, and the difference to the dense model on the same "
        "documents (points) ± its paired standard error",
        [*_HEAD, *(label for _ in tasks for label in ("accuracy", "difference, points"))],
        lines,
        groups=[("", len(_HEAD)), *((task, 2) for task in tasks)],
    )


def protocols(listed: list[Measured]) -> Table:
    """What was measured on what, by data set."""
    found: dict[str, Row] = {}
    for model in listed:
        for name, row in model.rows.items():
            found.setdefault(name, row)
    lines = [
        [
            Cell(name),
            Cell(str(row["metric"])),
            Cell(integer(row.get("samples"))),
            Cell(integer(row.get("tokens"))),
            Cell(str(row.get("protocol") or EMPTY)),
        ]
        for name, row in found.items()
    ]
    headings = ("data set", "metric", "windows or documents", "scored tokens", "protocol")
    return Table("What was measured on what", headings, lines)


_HEAD = ("model", "layers", "bits saved")


def _head(model: Measured) -> list[Cell]:
    return [Cell(model.name), Cell(model.layers or EMPTY), Cell(percent(model.bits_saved))]


def _value(row: Row | None, text: Callable[[Row], str]) -> Cell:
    return Cell(EMPTY, "not measured") if row is None else Cell(text(row), status_of(row))


def _perplexity(row: Row) -> str:
    return EMPTY if row.get("value") is None else f"{significant(row['value'], 5)} ± {significant(row['stderr'], 2)}"


def _accuracy(row: Row) -> str:
    if row.get("value") is None:
        return EMPTY
    stderr = row.get("stderr")
    return f"{percent(row['value'])} ± {EMPTY if stderr is None else fixed(100 * stderr, 1)}"


def _difference(model: Measured, row: Row | None) -> Cell:
    found = difference(row)
    if found is None:
        return Cell(EMPTY, "" if model.is_dense or row is None else status_of(row))
    if row is not None and row["metric"] == ACCURACY:
        stderr = EMPTY if found.stderr is None else fixed(100 * found.stderr, 1)
        return Cell(f"{fixed(100 * found.value, 1, signed=True)} ± {stderr}", "" if found.clear else "not clear of 0")
    return Cell(found.text(), "" if found.clear else "not clear of 0")
