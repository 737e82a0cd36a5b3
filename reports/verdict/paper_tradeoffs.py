"""Tables 3 and 4 of the paper beside what was measured: storage, and what compressing costs in loss and in geometry.

The paper's lines are of dense models; of TD-MoE and MoBE it prints figures without numbers.
"""

from collections.abc import Iterator, Sequence
from math import log
from statistics import median

from reports.formats import EMPTY, fixed, listing, percent
from reports.intervals import with_error
from reports.run import Row, given
from reports.sections import Block
from reports.tables import Cell, Table
from reports.verdict import paper
from reports.verdict.compared import Compared, Comparison, settings
from reports.verdict.losses import perplexity
from reports.verdict.protocol import Column
from reports.verdict.subjects import Subject, plain
from reports.verdict.table import shown

_TEXTS = ("wikitext2", "c4")  # what names of texts begin with
_TEXT = (
    "The paper's lines are of other, dense models, compressed by other tensor methods and read from other windows: "
    "they say how large such numbers are, not which method is better. For TD-MoE and MoBE the paper prints none."
)


def tradeoff_blocks(subject: Subject, found: Comparison) -> Iterator[Block]:
    """None where nothing that takes a ratio was measured."""
    ours = list(_methods(found))
    if not ours:
        return
    anchor, title = subject.anchor("paper-quality"), "The paper's losses and angles beside the measured ones"
    yield Block(anchor, subject.title(title), _quality(subject, found, ours), text=_TEXT, folded=True)
    anchor, title = subject.anchor("paper-storage"), "The paper's storage beside the measured one"
    yield Block(anchor, subject.title(title), _storage(subject, ours), folded=True)


def nearest(saved: float) -> list[paper.Tradeoff]:
    """Of every model and method of Table 4 the line whose savings, in per cent, are nearest."""
    found: dict[tuple[str, str], paper.Tradeoff] = {}
    for line in paper.TABLE_4:
        key = line.model, line.method
        if not line.is_dense and (key not in found or abs(line.saved - saved) < abs(found[key].saved - saved)):
            found[key] = line
    return list(found.values())


def _methods(found: Comparison) -> Iterator[Compared]:
    """What takes a ratio, of every ratio, as far as its bits are known."""
    for ratio, layers in settings(found):
        for model in shown(found, ratio, layers):
            if model.ratio == ratio and model.bits_saved is not None and not model.loss.is_control:
                yield model


def _quality(subject: Subject, found: Comparison, ours: Sequence[Compared]) -> Table:
    lines, columns = [], [_column(found, ours, text) for text in _TEXTS]
    for model in ours:
        end = model.end or {}
        cells = [Cell(_measured(subject, model)), Cell(percent(model.bits_saved))]
        cells += [_loss(model, column) for column in columns]
        lines.append([*cells, _number(end, "angle_deg", 1), _number(end, "norm_ratio", 2)])
    if subject.is_called(paper.RAW):
        raw = [Cell(f"{value:g}") for value in paper.RAW_PERPLEXITY.values()]
        lines.append([Cell(f"paper: appendix C.1, {paper.RAW}, dense"), Cell(percent(0.0)), *raw, Cell("0"), Cell("1")])
    for line in nearest(median(100 * (model.bits_saved or 0.0) for model in ours)):
        dense = next(other for other in paper.TABLE_4 if other.model == line.model and other.is_dense)
        pairs = [(line.wikitext2, dense.wikitext2), (line.c4, dense.c4)]
        texts = [Cell(fixed(value, 2), f"+{fixed(log(value / start), 2)}") for value, start in pairs]
        cells = [Cell(f"paper: {line.source}"), Cell(percent(line.saved / 100)), *texts]
        lines.append([*cells, Cell(fixed(line.angle_deg, 1)), Cell(fixed(line.norm_ratio, 2))])
    names = [found.names[column] for column in columns if column is not None]
    return Table(
        f"Perplexity{f', measured on {listing(names)},' if names else ''} and, in small type, nats a token above the "
        "dense model; of the paper's Table 4 the line of every model and method whose savings are nearest, without "
        "LoRA",
        ("model and method", "bits saved", "WikiText-2", "C4", "angle, °", "norm ratio"),
        lines,
    )


def _storage(subject: Subject, ours: Sequence[Compared]) -> Table:
    lines = []
    for model in ours:
        local = Cell(fixed(1 / median(model.shares), 2)) if model.shares else Cell(EMPTY, "not measured")
        target = plain(str(model.loss.row.get("projections") or EMPTY).replace(",", ", "))
        lines.append([Cell(_measured(subject, model)), Cell(target), local, Cell(percent(model.bits_saved, 2))])
    for line in paper.TABLE_3:
        name = f"paper: {line.source}, rank {line.rank}"
        lines.append(
            [Cell(name), Cell(line.target), Cell(fixed(line.compression, 2)), Cell(percent(line.saved / 100, 2))]
        )
    return Table(
        "Storage; the paper's: Table 3, single layers of LLaMA 2 7B, another model",
        ("model and method", "compressed", "dense over stored, of that", "bits saved of the model"),
        lines,
    )


def _measured(subject: Subject, model: Compared) -> str:
    return f"{subject.name}, measured: {model.name}"


def _column(found: Comparison, ours: Sequence[Compared], name: str) -> Column | None:
    """Of the texts whose names begin so, the one that most models were read on by one protocol."""
    able = [column for column in found.columns if column.text.startswith(name)]
    return max(able, key=lambda column: sum(column in model.losses for model in ours), default=None)


def _loss(model: Compared, column: Column | None) -> Cell:
    loss = None if column is None else model.losses.get(column)
    value = None if loss is None else perplexity(loss)
    if loss is None or value is None:
        return Cell(EMPTY, "not measured")
    return Cell(fixed(value, 2), with_error(loss.damage, loss.stderr, signed=True) if loss.measured else "")


def _number(row: Row, column: str, places: int) -> Cell:
    return Cell(fixed(float(row[column]), places)) if given(row, column) else Cell(EMPTY, "not measured")
