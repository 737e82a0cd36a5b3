"""Every compressed model that any run measured, with all that is known of it, whichever command found it.

Rows belong together when method, ratio, layers and checkpoint are the same; where `attribution` does not say which
layers, when the stored bits are the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from reports.drift.variants import ALL, Variant, variants
from reports.quality.answer import count_layers
from reports.run import Row, given
from reports.verdict.arenas import Arena, arenas, duels, ratio_at
from reports.verdict.losses import DENSE, MOBE, TDMOE, Loss
from reports.verdict.subjects import Subject, finite

_SAME_BITS = 1e-6  # of the bits saved
ERRORS = ("weight_error", "functional_error", "operator_error")


@dataclass(frozen=True)
class Column:
    """A text with the number of windows that a loss is a mean over: only losses of one column are comparable."""

    text: str
    windows: int | None


@dataclass
class Compared:
    """One model. `errors` are its own where `attribution` measured them, otherwise means over stacks of `operator`."""

    loss: Loss
    ratio: float | None  # that it is compared at
    losses: dict[Column, Loss] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    errors_of: str = ""
    drift: Variant | None = None
    steps: list[Loss] = field(default_factory=list)

    @property
    def end(self) -> Row | None:
        """Where its residual stream ends: of `drift`, otherwise of `attribution`."""
        row = self.drift.end if self.drift is not None else None
        if row is not None and given(row, "angle_deg"):
            return row
        return next((step.row for step in self.steps if given(step.row, "angle_deg")), row)

    @property
    def routed(self) -> tuple[int, float] | None:
        """(layer, share of a token's experts that stay the same) where that is least."""
        rows = self.drift.rows.values() if self.drift is not None else ()
        found = [(float(r["routing_agreement"]), int(r["layer"])) for r in rows if given(r, "routing_agreement")]
        return None if not found else (min(found)[1], min(found)[0])

    @property
    def seconds(self) -> float | None:
        """That compressing took."""
        return next((float(step.row["seconds"]) for step in self.steps if given(step.row, "seconds")), None)

    @property
    def name(self) -> str:
        """With its ratio."""
        return self.loss.named

    @property
    def bits_saved(self) -> float | None:
        return self.loss.bits_saved

    @property
    def damage(self) -> tuple[int, float]:
        """To sort by: its loss on the first text that it was measured on."""
        known = [loss.damage for loss in self.losses.values() if loss.measured]
        return (0, known[0]) if known else (1, 0.0)


@dataclass
class Comparison:
    """All of a model's: the columns in order, the dense model, and the compressed ones."""

    columns: list[Column]
    dense: dict[Column, Loss]
    models: list[Compared]
    leading: set[int] = field(default_factory=set)  # ids of the losses that the verdict is about

    def leads(self, model: Compared) -> bool:
        """Whether it is no mere step of a ladder: in a table of its own right, or one end of a duel."""
        rungs = {id(step) for step in model.steps if step.ladder in (TDMOE, MOBE)}
        mere = bool(model.losses) and all(id(loss) in rungs for loss in model.losses.values())
        return not mere or bool(rungs & self.leading)

    def at(self, ratio: float | None, layers: str) -> list[Compared]:
        """Those of a ratio and set of layers, and those whose storage is their own."""
        return [m for m in self.models if m.ratio in (ratio, None) and m.loss.layers in (layers, "")]


def comparison(subject: Subject) -> Comparison:
    """From every table that names methods."""
    found = Comparison([], {}, [])
    listed = sorted(arenas(subject), key=lambda arena: arena.attributed)  # what names its layers comes first
    for arena in listed:
        column = Column(arena.text, arena.windows)
        if column not in found.columns and any(loss.measured for loss in arena.losses):
            found.columns.append(column)
        for loss in arena.losses:
            _put(found, arena, column, loss)
        for duel in duels(arena):
            found.leading |= {id(loss) for loss in (duel.published, duel.best, duel.mobe) if loss is not None}
    for run in subject.runs:
        for variant in variants({"tables": {"drift": [finite(row) for row in run["tables"].get("drift", [])]}}):
            if variant.scope == ALL and not variant.is_cast:
                _drifted(found, variant)
    _operators(found.models, subject)
    return found


def _put(found: Comparison, arena: Arena, column: Column, loss: Loss) -> None:
    if loss.is_dense:
        found.dense.setdefault(column, loss)
        return
    same = _first(found.models, loss, loose=not arena.layers)
    if same is None:
        same = Compared(loss, ratio_at(arena, loss))
        found.models.append(same)
    same.losses.setdefault(column, loss)
    if arena.attributed:
        same.steps.append(loss)
        if not same.errors:
            same.errors = {name: float(loss.row[name]) for name in ERRORS if given(loss.row, name)}
            same.errors_of = "attribution" if same.errors else ""


def _first(models: Iterable[Compared], loss: Loss, *, loose: bool) -> Compared | None:
    """The same compressed model; `loose`: its layers are not known, but its bits are."""
    for model in models:
        if (model.loss.method, model.loss.ratio, model.loss.checkpoint) == (loss.method, loss.ratio, loss.checkpoint):
            if model.loss.layers == loss.layers:
                return model
            if loose and _alike(model.bits_saved, loss.bits_saved):
                return model
    return None


def _alike(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) <= _SAME_BITS


def _drifted(found: Comparison, variant: Variant) -> None:
    end = variant.end or next(iter(variant.rows.values()), {})
    loss = Loss(
        variant.method, variant.ratio, end.get("bits_saved"), variant.layers, variant.checkpoint,
        {"projections": end.get("projections")},
    )  # fmt: skip
    same = _first(found.models, loss, loose=False)
    same = same or _first((m for m in found.models if not m.loss.layers), loss, loose=True)
    if same is None:
        same = Compared(loss, loss.ratio)
        found.models.append(same)
    if same.drift is None:
        same.drift = variant


def _operators(models: Sequence[Compared], subject: Subject) -> None:
    """Errors of `operator` where `attribution` has none: means over stacks of the experts' means."""
    rows = [row for row in subject.rows("operator") if row.get("expert") == "mean"]
    for model in models:
        ours = [r for r in rows if (r["method"], r.get("ratio")) == (model.loss.method, model.loss.ratio)]
        if not model.errors and ours and model.loss.family != DENSE:
            model.errors = {name: value for name in ERRORS if (value := _mean(ours, name)) is not None}
            model.errors_of = "operator" if model.errors else ""


def _mean(rows: Iterable[Row], column: str) -> float | None:
    values = [float(row[column]) for row in rows if given(row, column)]
    return fmean(values) if values else None


def settings(found: Comparison) -> Iterator[tuple[float | None, str]]:
    """(ratio, layers) of every table: of each ratio the largest set of layers; without any ratio one for all."""
    ratios = sorted({m.ratio for m in found.models if m.ratio is not None})
    for ratio in ratios:
        layers = [m.loss.layers for m in found.models if m.ratio == ratio]
        yield ratio, max(layers, key=count_layers)
    if not ratios and found.models:
        yield None, max((m.loss.layers for m in found.models), key=count_layers)
