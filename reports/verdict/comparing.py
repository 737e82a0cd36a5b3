"""From the tables of a model's runs to one comparison, whichever command found what.

Rows belong together when they are of the same model (`reports.verdict.identity`), their losses stand in one column
when they were read by one protocol (`reports.verdict.protocol`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from reports.formats import percent
from reports.run import Row, given
from reports.verdict.arenas import Arena, arenas, duels, ratio_at
from reports.verdict.compared import ERRORS, Compared, Comparison
from reports.verdict.drifted import compressed
from reports.verdict.identity import Identity, apart, identity_of
from reports.verdict.losses import DENSE, Loss
from reports.verdict.protocol import Column, column_of
from reports.verdict.subjects import Subject

_SAME_TEXT = 0.005  # nats that the dense model's loss may differ by from device to device


def comparison(subject: Subject) -> Comparison:
    """From every table that names methods."""
    found = Comparison([], {}, [])
    listed = sorted(arenas(subject), key=lambda arena: arena.attributed)  # what names its layers comes first
    for arena in listed:
        column = _column(found, subject, arena)
        if column not in found.columns and any(loss.measured for loss in arena.losses):
            found.columns.append(column)
        for loss in arena.losses:
            if loss.is_dense:
                found.dense.setdefault(column, loss)
            else:
                _put(found, subject, arena, column, loss)
        for duel in duels(arena):
            found.leading |= {
                id(loss) for loss in (duel.published, duel.best, duel.mobe, *duel.wider) if loss is not None
            }
    for number, rows in subject.tables("drift"):
        _drifted(found, subject, number, rows)
    for number, rows in subject.tables("operator"):
        _operators(found, subject, number, rows)
    _tell_apart(found.models)
    return found


def _column(found: Comparison, subject: Subject, arena: Arena) -> Column:
    """One of its own where the dense model has another loss: then the texts share no more than their name."""
    column = column_of(subject, arena)
    losses = [loss.row.get("loss_nats") for loss in (found.dense.get(column), arena.dense) if loss is not None]
    known = [float(value) for value in losses if value is not None]
    if len(known) == 2 and abs(known[0] - known[1]) > _SAME_TEXT:
        return replace(column, run=subject.called(arena.run))
    return column


def _put(found: Comparison, subject: Subject, arena: Arena, column: Column, loss: Loss) -> None:
    same = _model(found, loss, identity_of(loss, subject.runs[arena.run]), ratio_at(arena, loss))
    same.losses.setdefault(column, loss)
    if arena.attributed:
        same.steps.append(loss)
        if not same.errors:
            same.errors = {name: float(loss.row[name]) for name in ERRORS if given(loss.row, name)}
            same.errors_of = "attribution" if same.errors else ""


def _model(found: Comparison, loss: Loss, own: Identity, ratio: float | None) -> Compared:
    """The same compressed model, or a new one; where what is known fits several models, it is none of them."""
    able = [model for model in found.models if model.identity.is_same(own)]
    alike = [model for model in able if model.identity.is_said_alike(own)] or able
    if len(alike) == 1:
        alike[0].identity = alike[0].identity.joined(own)
        return alike[0]
    found.models.append(Compared(loss, ratio, own))
    return found.models[-1]


def _drifted(found: Comparison, subject: Subject, number: int, rows: Iterable[Row]) -> None:
    """All layers together, of the methods of one run."""
    run = subject.runs[number]
    for variant in compressed(rows):
        end = variant.end or next(iter(variant.rows.values()), {})
        about = {name: end.get(name) for name in ("projections", "calibration")}
        loss = Loss(
            variant.method, variant.ratio, end.get("bits_saved"), variant.layers, variant.checkpoint, about
        )  # fmt: skip
        same = _model(found, loss, identity_of(loss, run), loss.ratio)
        if same.drift is None:
            same.drift = variant


def _operators(found: Comparison, subject: Subject, number: int, rows: Iterable[Row]) -> None:
    """Errors of `operator` where `attribution` has none: means over stacks of the experts' means.

    It does not say which calibration it used: where its rows fit several models, they are of none.
    """
    run = subject.runs[number]
    about = {"projections": run["config"].get("projections")}
    ours: dict[tuple[str, float | None], list[Row]] = {}
    for row in rows:
        if row.get("expert") in ("mean", "max") and str(row["method"]).partition(":")[0] != DENSE:
            ours.setdefault((str(row["method"]), row.get("ratio")), []).append(row)
    for (method, ratio), listed in ours.items():
        own = identity_of(Loss(method, ratio, None, subject.layers(number), "", about), run)
        able = [model for model in found.models if model.identity.is_made_alike(own)]
        if len(able) == 1:
            _add(able[0], [[row for row in listed if row["expert"] == which] for which in ("mean", "max")])


def _add(model: Compared, rows: Sequence[Sequence[Row]]) -> None:
    """Of the experts' means and maxima."""
    means, most = rows
    if not model.errors:
        model.errors = {name: value for name in ERRORS if (value := _mean(means, name)) is not None}
        model.errors_of = "operator" if model.errors else ""
    model.worst = _mean(most, "operator_error") if model.worst is None else model.worst
    model.shares += [float(row["kept_ratio"]) for row in means if given(row, "kept_ratio") and row["kept_ratio"] > 0]
    said = [f"{row['projection']}:{row['rank']}" for row in means if given(row, "rank")]
    model.ranks = model.ranks or " ".join(dict.fromkeys(said))


def _tell_apart(models: Sequence[Compared]) -> None:
    """By what differs, otherwise by the bits, otherwise by a number."""
    for model, told in zip(models, apart([model.identity for model in models]), strict=True):
        model.apart = told
    for say in (_bits, _numbers):
        for same in _called_alike(models):
            if len(set(said := say(same))) > 1:
                for model, told in zip(same, said, strict=True):
                    model.apart = ", ".join(part for part in (model.apart, told) if part)


def _called_alike(models: Sequence[Compared]) -> list[list[Compared]]:
    """Those that one table may call the same; a model whose layers are not known stands in every one."""
    named: dict[tuple[str, float | None], list[Compared]] = {}
    for model in models:
        named.setdefault((model.title, model.loss.ratio), []).append(model)
    found = []
    for same in named.values():
        layers = {model.loss.layers for model in same}
        found += [same] if "" in layers else [[m for m in same if m.loss.layers == one] for one in sorted(layers)]
    return found


def _bits(models: Sequence[Compared]) -> list[str]:
    known = [model.bits_saved for model in models]
    return ["bits not known" if bits is None else f"{percent(bits, 2)} of the bits saved" for bits in known]


def _numbers(models: Sequence[Compared]) -> list[str]:
    return [str(number) for number in range(1, len(models) + 1)]


def _mean(rows: Iterable[Row], column: str) -> float | None:
    values = [float(row[column]) for row in rows if given(row, column)]
    return fmean(values) if values else None
