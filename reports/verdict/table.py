"""The comparison at matched bits: a table a ratio, TD-MoE and MoBE side by side, then the others, then yardsticks."""

from collections.abc import Iterator, Sequence
from statistics import median

from reports.formats import EMPTY, fixed, percent
from reports.run import given
from reports.sections import Block
from reports.tables import Cell, Table
from reports.verdict.compared import Column, Compared, Comparison, settings
from reports.verdict.intervals import with_error
from reports.verdict.losses import MOBE, RTN, TDMOE, TOLERANCE, Loss
from reports.verdict.subjects import Subject, plain

TEXT = (
    "Small type below a perplexity: the difference in mean loss to the dense model on the same windows, nats a token ± "
    "its paired standard error, in brackets within two of 0. The verdict's intervals between two methods add their paired "
    "standard errors, which bounds the error whatever their correlation. RTN and the controls are yardsticks, at bits of "
    "their own."
)


def comparison_blocks(subject: Subject, found: Comparison) -> Iterator[Block]:
    """A block a ratio."""
    listed = list(settings(found))
    for number, (ratio, layers) in enumerate(listed, 1):
        ours = shown(found.at(ratio, layers))
        if not ours:
            continue
        removed = "" if ratio is None else f", {100 * ratio:g} % removed"
        anchor = subject.anchor("comparison") + (f"-{number}" if len(listed) > 1 else "")
        yield Block(
            anchor,
            subject.title(f"Methods at matched bits{removed}"),
            _table(found, ours, ratio, layers),
            text=TEXT if number == 1 else "",
        )


def shown(models: Sequence[Compared]) -> list[Compared]:
    """In the order of the table; of a ladder's steps only its start and its best, and MoBE's best."""
    steps = [m for m in models if m.steps and len(m.steps) == len(m.losses) and m.steps[0].ladder in (TDMOE, MOBE)]
    kept = {
        id(min(chosen, key=lambda m: m.damage))
        for family in (TDMOE, MOBE)
        if (chosen := [m for m in steps if m.loss.family == family])
    }
    listed = [m for m in models if m not in steps or id(m) in kept or m.loss.is_published]
    return sorted(listed, key=lambda m: (_group(m.loss), not m.loss.is_published, m.damage, m.loss.title))


def _group(loss: Loss) -> int:
    if loss.is_control:
        return 4
    return {TDMOE: 0, MOBE: 1, RTN: 3}.get(loss.family, 2)


def _table(found: Comparison, ours: Sequence[Compared], ratio: float | None, layers: str) -> Table:
    columns = [c for c in found.columns if any(c in m.losses for m in ours)]
    middle = matched(ours)
    lines = [_line(m, columns, middle) for m in ours]
    if columns and found.dense:
        lines.insert(0, _dense(found, columns))
    projections = sorted({str(m.loss.row.get("projections") or "") for m in ours if m.loss.ratio == ratio} - {""})
    what = plain(" or ".join(p.replace(",", " and ") for p in projections)) or "the compressed projections"
    amount = "" if ratio is None else f"{100 * ratio:g} % of "
    where = f" of layers {plain(layers)}" if layers else ""
    caption = (
        f"{amount}{what}{where} removed; perplexity ± its standard error over windows; angle, norm ratio and routing after "
        "the last compressed layer and where fewest experts stay the same"
    )
    if middle is not None:
        caption += f"; bits that differ by more than {100 * TOLERANCE:g} % from the methods' median are marked"
    headings = [
        "method", "bits saved", "weight error", "functional error", "operator error",
        *(f"perplexity, {_name(c, columns)}" for c in columns), "angle, °", "norm ratio", "same experts", "seconds",
    ]  # fmt: skip
    return Table(caption, headings, lines)


def matched(ours: Sequence[Compared]) -> float | None:
    """Share of the dense bits that the methods of this ratio store: their median; None for fewer than two."""
    known = [m.loss.stored for m in ours if m.ratio is not None and m.loss.stored is not None and not m.loss.is_control]
    return median(known) if len(known) > 1 else None


def _line(model: Compared, columns: Sequence[Column], middle: float | None) -> list[Cell]:
    note = f"step “{plain(model.steps[0].step)}”" if model.steps and model.steps[0].ladder == TDMOE else ""
    note = "as published" if model.loss.is_published else note
    errors = [_error(model, name) for name in ("weight_error", "functional_error", "operator_error")]
    texts = [_perplexity(model.losses.get(column)) for column in columns]
    seconds = model.seconds
    return [
        Cell(model.loss.title + (f" ({note})" if note else "")), _bits(model, middle), *errors, *texts, *_stream(model),
        Cell(EMPTY, "not measured") if seconds is None else Cell(fixed(seconds, 1)),
    ]  # fmt: skip


def _dense(found: Comparison, columns: Sequence[Column]) -> list[Cell]:
    texts = [Cell(_value(loss)) if (loss := found.dense.get(column)) else Cell(EMPTY) for column in columns]
    return [
        Cell("dense"),
        Cell(percent(0.0)),
        *[Cell(fixed(0.0))] * 3,
        *texts,
        Cell("0"),
        Cell("1"),
        Cell(percent(1.0)),
        Cell(EMPTY),
    ]


def _bits(model: Compared, middle: float | None) -> Cell:
    stored = model.loss.stored
    if model.loss.bits_saved is None or stored is None:
        return Cell(EMPTY, "not measured")
    note = ""
    if middle and model.ratio is not None and abs(stored / middle - 1) > TOLERANCE:
        note = f"{percent(abs(stored / middle - 1))} {'more' if stored > middle else 'fewer'} bits"
    return Cell(percent(model.loss.bits_saved), note)


def _error(model: Compared, name: str) -> Cell:
    value = model.errors.get(name)
    return Cell(EMPTY, "not measured") if value is None else Cell(fixed(value))


def _perplexity(loss: Loss | None) -> Cell:
    if loss is None:
        return Cell(EMPTY, "not measured")
    note = ""
    if loss.measured:
        note = with_error(loss.damage, loss.stderr, signed=True)
        clear = loss.stderr is not None and abs(loss.damage) > 2 * loss.stderr
        note = note if clear else f"({note})"
    return Cell(_value(loss), note or loss.reason)


def _value(loss: Loss) -> str:
    row = loss.row
    value, stderr = ("perplexity", "perplexity_stderr") if "perplexity" in row else ("value", "stderr")
    return with_error(float(row[value]), row.get(stderr)) if given(row, value) else EMPTY


def _stream(model: Compared) -> list[Cell]:
    end, routed = model.end, model.routed
    missing = Cell(EMPTY, "not measured")
    if end is None or not given(end, "angle_deg"):
        angle = norm = missing
    else:
        angle = Cell(with_error(float(end["angle_deg"]), end.get("angle_stderr")))
        norm = Cell(fixed(end["norm_ratio"])) if given(end, "norm_ratio") else missing
    same = missing if routed is None else Cell(percent(routed[1]), f"layer {routed[0]}")
    return [angle, norm, same]


def _name(column: Column, columns: Sequence[Column]) -> str:
    """The text, with its windows where it was read twice."""
    twice = sum(other.text == column.text for other in columns) > 1
    return plain(column.text) + (f" ({column.windows} windows)" if twice else "")
