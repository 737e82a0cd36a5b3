"""The comparison at matched bits: a table a ratio, TD-MoE and MoBE side by side, then the others, then yardsticks."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

from reports.formats import EMPTY, fixed, listing, percent
from reports.intervals import with_error
from reports.run import given
from reports.sections import Block
from reports.tables import Cell, Table
from reports.verdict.arenas import layers_in_words, removed
from reports.verdict.compared import ERRORS, Compared, Comparison, settings
from reports.verdict.losses import MOBE, RTN, TDMOE, TOLERANCE, Loss
from reports.verdict.protocol import Column
from reports.verdict.subjects import Subject, plain

TEXT = (
    "Small type below a perplexity: the difference in mean loss to the dense model on the same windows, nats a token "
    "± its paired standard error, in brackets within two of 0. The verdict's intervals against "
    "attribution's MoBE are a bootstrap of the two losses paired by window; between other methods they add the two "
    "standard errors, which bounds the error whatever their correlation. RTN and the controls are yardsticks, "
    "at bits of their own. Errors of weights are attribution's, or means over operator's stacks; angles are drift's, "
    "or attribution's, each on its own windows. “Same methods elsewhere”, in the verdict: on other texts, at other "
    "ratios or of other layers. “What to do instead” names, of the models that store no more bits than TD-MoE (within "
    "0.5 %) and lose no more than it does at its best, those that none beats in loss and bits; where two losses are "
    "not told apart, the one that saves more bits."
)

Field = tuple[str, Callable[[Compared], Cell]]


def comparison_blocks(subject: Subject, found: Comparison) -> Iterator[Block]:
    """A block a ratio."""
    listed = list(settings(found))
    for number, (ratio, layers) in enumerate(listed, 1):
        ours = shown(found, ratio, layers)
        if not ours:
            continue
        amount = "" if ratio is None else f", {removed(ratio)} removed"
        anchor = subject.anchor("comparison") + (f"-{number}" if len(listed) > 1 else "")
        yield Block(
            anchor,
            subject.title(f"Methods at matched bits{amount}"),
            _table(found, ours, ratio, layers),
            text=TEXT if number == 1 else "",
        )


def shown(found: Comparison, ratio: float | None, layers: str) -> list[Compared]:
    """In the order of the table; of a ladder's steps only its start, its best, and MoBE's best."""
    listed = [model for model in found.at(ratio, layers) if found.leads(model)]
    return sorted(listed, key=lambda m: (_group(m.loss), not m.loss.is_published, found.damage(m), m.title))


def _group(loss: Loss) -> int:
    if loss.is_control:
        return 4
    return {TDMOE: 0, MOBE: 1, RTN: 3}.get(loss.family, 2)


def _table(found: Comparison, ours: Sequence[Compared], ratio: float | None, layers: str) -> Table:
    columns = [c for c in found.columns if any(c in m.losses for m in ours)]
    middle = matched(ours)
    usual = _usual(ours)
    fields = _fields(found, columns, middle, usual)
    known = [(name, cell) for name, cell in fields if any(cell(m).text != EMPTY for m in ours)]
    lines = [[Cell(_label(m)), *(cell(m) for _, cell in known)] for m in ours]
    if columns and found.dense:
        lines.insert(0, [Cell("dense"), *(_dense(found, columns, name) for name, _ in known)])
    caption = (
        f"{_removed(ours, ratio, layers)}; ± standard errors over windows; angle and norm ratio after the last "
        f"compressed layer{f', on {usual} where not marked' if len(_windows(ours)) > 1 else ''}"
    )
    if middle is not None:
        caption += f"; bits that differ by more than {100 * TOLERANCE:g} % from the methods' median are marked"
    if any(cell.text == EMPTY for line in lines for cell in line):
        caption += f"; {EMPTY} is not measured"
    if lacking := [name for name, _ in fields if name not in dict(known)]:
        caption += f"; not measured: {listing(lacking)}"
    return Table(caption, ["method", *(name for name, _ in known)], lines, narrow=True)


def _removed(ours: Sequence[Compared], ratio: float | None, layers: str) -> str:
    projections = sorted({str(m.loss.row.get("projections") or "") for m in ours if m.loss.ratio == ratio} - {""})
    what = plain(" or ".join(names.replace(",", " and ") for names in projections)) or "the compressed projections"
    where = layers_in_words(layers)
    return f"{what}{where}" if ratio is None else f"{removed(ratio)} of {what}{where} removed"


def _fields(found: Comparison, columns: Sequence[Column], middle: float | None, usual: str) -> list[Field]:
    return [
        ("bits saved", lambda m: _bits(m, middle)),
        *((f"perplexity, {found.names[c]}", partial(_perplexity, c)) for c in columns),
        *((name.replace("_", " "), partial(_error, name)) for name in ERRORS),
        ("angle, °", partial(_angle, usual)),
        ("norm ratio", _norm),
        ("same experts, least", _routed),
        ("seconds", lambda m: Cell(EMPTY) if m.seconds is None else Cell(fixed(m.seconds, 1))),
    ]


def matched(ours: Sequence[Compared]) -> float | None:
    """Share of the dense bits that the methods of this ratio store: their median; None for fewer than two."""
    known = [m.loss.stored for m in ours if m.ratio is not None and m.loss.stored is not None and not m.loss.is_control]
    return median(known) if len(known) > 1 else None


def _label(model: Compared) -> str:
    """With the step of TD-MoE's ladder that it is."""
    step = next((loss.step for loss in model.steps if loss.ladder == TDMOE and loss is not model.loss), "")
    told = not step or model.loss.is_published or bool(model.loss.step)
    return model.title + ("" if told else f" (“{plain(step)}”)")


def _dense(found: Comparison, columns: Sequence[Column], name: str) -> Cell:
    """What the dense model is by definition, and its perplexities."""
    for column in columns:
        if name == f"perplexity, {found.names[column]}":
            loss = found.dense.get(column)
            return Cell(_value(loss)) if loss else Cell(EMPTY)
    known = {"bits saved": percent(0.0), "norm ratio": "1", "same experts, least": percent(1.0), "seconds": EMPTY}
    return Cell(known.get(name, "0"))


def _windows(ours: Sequence[Compared]) -> Counter[str]:
    """What angles are means over, and how many are."""
    return Counter(model.angle_on for model in ours if model.angle_on)


def _usual(ours: Sequence[Compared]) -> str:
    return next((name for name, _ in _windows(ours).most_common(1)), "")


def _bits(model: Compared, middle: float | None) -> Cell:
    stored = model.loss.stored
    if model.loss.bits_saved is None or stored is None:
        return Cell(EMPTY)
    note = ""
    if middle and model.ratio is not None and abs(stored / middle - 1) > TOLERANCE:
        note = f"{percent(abs(stored / middle - 1))} {'more' if stored > middle else 'fewer'}"
    return Cell(percent(model.loss.bits_saved), note)


def _error(name: str, model: Compared) -> Cell:
    value = model.errors.get(name)
    return Cell(EMPTY) if value is None else Cell(fixed(value))


def _perplexity(column: Column, model: Compared) -> Cell:
    loss = model.losses.get(column)
    if loss is None:
        return Cell(EMPTY)
    if not loss.measured:
        return Cell(_value(loss), loss.reason)
    note = with_error(loss.damage, loss.stderr, signed=True)
    if loss.stderr is None:
        return Cell(_value(loss), f"{note}, no error known")
    return Cell(_value(loss), f"({note})" if note != "0" and abs(loss.damage) <= 2 * loss.stderr else note)


def _value(loss: Loss) -> str:
    row = loss.row
    value, stderr = ("perplexity", "perplexity_stderr") if "perplexity" in row else ("value", "stderr")
    return with_error(float(row[value]), row.get(stderr)) if given(row, value) else EMPTY


def _angle(usual: str, model: Compared) -> Cell:
    end = model.end
    if end is None or not given(end, "angle_deg"):
        return Cell(EMPTY)
    angle = with_error(float(end["angle_deg"]), end.get("angle_stderr"), most=2)
    parts = [part for part in model.angle_on.split(", ") if part not in usual.split(", ")]
    return Cell(angle, ", ".join(parts))


def _norm(model: Compared) -> Cell:
    end = model.end
    if end is None or not given(end, "norm_ratio"):
        return Cell(EMPTY)
    return Cell(fixed(end["norm_ratio"]))


def _routed(model: Compared) -> Cell:
    """At the layer where fewest of a token's experts stay the same."""
    if model.routed is None:
        return Cell(EMPTY)
    layer, share = model.routed
    return Cell(percent(share), f"layer {layer}" if share < 1 else "")
