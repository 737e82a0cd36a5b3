"""Every compressed model that any run measured, with all that is known of it.

Rows belong together when they are of the same model (`diag.verdict.identity`), their losses are of one text when they
were read by one protocol (`diag.verdict.texts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from diag.statistics.medians import given, groups, over
from diag.verdict.evaluations import Evaluation, count_layers, evaluations, pairs_of
from diag.verdict.identity import Identity, apart, identity_of
from diag.verdict.loss import COMBINATION, DENSE, MOBE, RTN, TDMOE, Loss
from diag.verdict.subjects import Row, Subject, has, number, plain
from diag.verdict.texts import Text, names_of, text_of
from reports.formats import counted, percent

ERRORS = ("weight_error", "functional_error", "operator_error")
_SAME_TEXT = 0.005  # nats that the dense model's loss may differ by from device to device
_LADDERS = (TDMOE, COMBINATION, MOBE)


@dataclass
class Compared:
    """One model. `errors` are its own where `attribution` measured them, otherwise means over stacks of `operator`.

    `apart` is what tells it from the others of the page, in words.
    """

    loss: Loss
    ratio: float | None  # that it is compared at
    identity: Identity
    apart: str = ""
    losses: dict[Text, Loss] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    worst: float | None = None  # expert's operator error, mean over stacks; of `operator`
    shares: list[float] = field(default_factory=list)  # of the dense bits that its stacks store; of `operator`
    ranks: str = ""  # as `operator` has them, `projection:ranks` one after the other
    drift: dict[int, Row] = field(default_factory=dict)  # by layer
    steps: list[Loss] = field(default_factory=list)  # of attribution

    @property
    def end(self) -> Row | None:
        """The row after its last compressed layer: of `drift`, otherwise of `attribution`."""
        row = next((row for row in self.drift.values() if row.get("after_last")), None)
        if row is not None and has(row, "angle_deg"):
            return row
        return next((step.row for step in self.steps if has(step.row, "angle_deg")), row)

    @property
    def end_table(self) -> str:
        """The table that `end` is of."""
        return "drift" if any(row is self.end for row in self.drift.values()) else "attribution"

    @property
    def routed(self) -> tuple[int, float] | None:
        """(layer, share of a token's experts that stay the same) where that is least."""
        rows = given(self.drift.values(), "routing_agreement")
        found = min(((float(row["routing_agreement"]), int(row["layer"])) for row in rows), default=None)
        return None if found is None else (found[1], found[0])

    def of_step(self, column: str) -> float | None:
        """A column of attribution."""
        return next((number(step.row, column) for step in self.steps if has(step.row, column)), None)

    @property
    def title(self) -> str:
        """Unique among those of its ratio and layers; with the step of TD-MoE's ladder that it is."""
        return self.loss.title + (f" ({self.apart})" if self.apart else "")

    @property
    def name(self) -> str:
        """The title with its ratio."""
        return self.title + ("" if self.loss.ratio is None else f" at {self.loss.ratio:g}")

    @property
    def angle_on(self) -> str:
        """Windows that its angle is a mean over; nothing where there is none."""
        row = self.end or {}
        if not has(row, "angle_deg"):
            return ""
        parts = [str(row.get("text") or ""), counted(int(row["windows"]), "window") if has(row, "windows") else ""]
        return plain(", ".join(part for part in parts if part))


@dataclass
class Models:
    """All of a model's: the texts in order, the dense model, and the compressed ones."""

    texts: list[Text] = field(default_factory=list)
    dense: dict[Text, Loss] = field(default_factory=dict)
    models: list[Compared] = field(default_factory=list)
    leading: set[int] = field(default_factory=set)  # ids of the losses that the verdict is about

    @property
    def names(self) -> dict[Text, str]:
        """Names of the texts, no two alike."""
        return names_of(self.texts)

    def at(self, ratio: float | None, layers: str) -> list[Compared]:
        """Models of a ratio and set of layers, and those whose storage is their own."""
        return [m for m in self.models if m.ratio in (ratio, None) and m.loss.layers in (layers, "")]

    def shown(self, ratio: float | None, layers: str) -> list[Compared]:
        """TD-MoE, MoBE, others, RTN, controls; of a ladder's steps only its start, its best, and MoBE's best."""
        listed = [model for model in self.at(ratio, layers) if self._leads(model)]
        return sorted(listed, key=lambda m: (_group(m.loss), not m.loss.is_published, self._damage(m), m.title))

    @property
    def settings(self) -> Iterator[tuple[float | None, str]]:
        """(ratio, layers): of each ratio the largest set of layers; without any ratio one for all."""
        ratios = sorted({m.ratio for m in self.models if m.ratio is not None})
        for ratio in ratios:
            yield ratio, max((m.loss.layers for m in self.models if m.ratio == ratio), key=count_layers)
        if not ratios and self.models:
            yield None, max((m.loss.layers for m in self.models), key=count_layers)

    def main(self, ratio: float | None) -> list[Compared]:
        """Models of the ratio that the verdict is about, otherwise of the largest."""
        listed = list(self.settings)
        chosen = next((one for one in listed if one[0] == ratio), listed[-1] if listed else None)
        return [] if chosen is None else self.shown(*chosen)

    def _damage(self, model: Compared) -> tuple[int, float]:
        """Sort key: the loss on the first text that it was measured on; those of another text come after."""
        for place, text in enumerate(self.texts):
            loss = model.losses.get(text)
            if loss is not None and loss.measured:
                return place, loss.damage
        return len(self.texts), 0.0

    def _leads(self, model: Compared) -> bool:
        """Tell whether it is no mere step of a ladder: in a table of its own right, or one end of a pair."""
        rungs = {id(step) for step in model.steps if step.ladder in _LADDERS}
        mere = bool(model.losses) and all(id(loss) in rungs for loss in model.losses.values())
        return not mere or bool(rungs & self.leading)


def models_of(subject: Subject) -> Models:
    """Models of every table that names methods."""
    found = Models()
    for one in sorted(evaluations(subject), key=lambda one: one.attributed):  # what names its layers comes first
        text = _text(found, subject, one)
        if text not in found.texts and any(loss.measured for loss in one.losses):
            found.texts.append(text)
        for loss in one.losses:
            if loss.is_dense:
                found.dense.setdefault(text, loss)
            else:
                _put(found, subject, one, text, loss)
        for pair in pairs_of(one):
            ends = (pair.published, pair.best, pair.mobe, *pair.wider)
            found.leading |= {id(loss) for loss in ends if loss is not None}
    for run, rows in subject.tables("drift"):
        _drifted(found, subject, run, rows)
    for run, rows in subject.tables("operator"):
        _operators(found, subject, run, rows)
    _tell_apart(found.models)
    return found


def _group(loss: Loss) -> int:
    return 4 if loss.is_control else {TDMOE: 0, MOBE: 1, RTN: 3}.get(loss.family, 2)


def _text(found: Models, subject: Subject, one: Evaluation) -> Text:
    """One of its own where the dense model has another loss: then the texts share no more than their name."""
    text = text_of(subject, one)
    losses = [number(loss.row, "loss_nats") for loss in (found.dense.get(text), one.dense) if loss is not None]
    known = [value for value in losses if value is not None]
    if len(known) == 2 and abs(known[0] - known[1]) > _SAME_TEXT:
        return replace(text, run=subject.called(one.run))
    return text


def _put(found: Models, subject: Subject, one: Evaluation, text: Text, loss: Loss) -> None:
    same = _model(found, loss, identity_of(loss, subject.runs[one.run]), one.ratio_of(loss))
    same.losses.setdefault(text, loss)
    if one.attributed:
        same.steps.append(loss)
        same.errors = same.errors or {name: float(loss.row[name]) for name in ERRORS if has(loss.row, name)}


def _model(found: Models, loss: Loss, own: Identity, ratio: float | None) -> Compared:
    """The same compressed model, or a new one; where what is known fits several models, it is none of them."""
    able = [model for model in found.models if model.identity.is_same(own)]
    alike = [model for model in able if model.identity.facts == own.facts] or able
    if len(alike) == 1:
        alike[0].identity = alike[0].identity.joined(own)
        return alike[0]
    found.models.append(Compared(loss, ratio, own))
    return found.models[-1]


def _drifted(found: Models, subject: Subject, run: int, rows: Iterable[Row]) -> None:
    """All layers together, of the methods of one run; no rounding of the dense model."""
    made: dict[tuple[str, ...], dict[int, Row]] = {}
    for row in rows:
        if row["scope"] == "all" and not str(row["method"]).startswith("cast:dtype="):
            key = ("method", "ratio", "compressed_layers", "checkpoint")
            made.setdefault(tuple(str(row.get(name)) for name in key), {})[int(row["layer"])] = row
    for ours in made.values():
        row = next((row for row in ours.values() if row.get("after_last")), next(iter(ours.values())))
        about = {name: row.get(name) for name in ("projections", "calibration", "variant")}
        layers, checkpoint = (str(row.get(name) or "") for name in ("compressed_layers", "checkpoint"))
        loss = Loss(str(row["method"]), row.get("ratio"), row.get("bits_saved"), layers, checkpoint, about)
        same = _model(found, loss, identity_of(loss, subject.runs[run]), loss.ratio)
        same.drift = same.drift or ours


def _operators(found: Models, subject: Subject, run: int, rows: Iterable[Row]) -> None:
    """Errors of `operator` where `attribution` has none: means over stacks of the experts' means.

    It does not say which calibration it used: where its rows fit several models, they are of none.
    """
    about = {"projections": subject.runs[run]["config"].get("projections")}
    ours = [r for r in rows if r.get("expert") in ("mean", "max") and str(r["method"]).partition(":")[0] != DENSE]
    for method, listed in groups(ours, "method").items():
        for ratio, same in groups(listed, "ratio").items():
            loss = Loss(str(method), ratio, None, subject.layers(run), "", about)
            own = identity_of(loss, subject.runs[run])
            able = [model for model in found.models if model.identity.is_made_alike(own)]
            if len(able) == 1:
                _add(able[0], groups(same, "expert"))


def _add(model: Compared, rows: dict[str, list[Row]]) -> None:
    """Means and maxima over experts."""
    means, most = rows.get("mean", []), rows.get("max", [])
    known = {name: over(means, name) for name in ERRORS}
    model.errors = model.errors or {name: value for name, value in known.items() if value is not None}
    model.worst = over(most, "operator_error") if model.worst is None else model.worst
    model.shares += [float(row["kept_ratio"]) for row in given(means, "kept_ratio") if row["kept_ratio"] > 0]
    said = [f"{row['projection']}:{row['rank']}" for row in given(means, "rank")]
    model.ranks = model.ranks or " ".join(dict.fromkeys(said))


def _tell_apart(models: Sequence[Compared]) -> None:
    """Name models apart by what differs, otherwise by the bits, otherwise by a number."""
    for model, told in zip(models, apart([model.identity for model in models]), strict=True):
        model.apart = told
    for say in (_bits, _numbers):
        for same in _called_alike(models):
            if len(set(said := say(same))) > 1:
                for model, told in zip(same, said, strict=True):
                    model.apart = ", ".join(part for part in (model.apart, told) if part)


def _called_alike(models: Sequence[Compared]) -> list[list[Compared]]:
    """Models that one table may call the same; one whose layers are not known stands in every table."""
    named: dict[tuple[str, float | None], list[Compared]] = {}
    for model in models:
        named.setdefault((model.title, model.loss.ratio), []).append(model)
    found = []
    for same in named.values():
        layers = {model.loss.layers for model in same}
        found += [same] if "" in layers else [[m for m in same if m.loss.layers == one] for one in sorted(layers)]
    return found


def _bits(models: Sequence[Compared]) -> list[str]:
    known = [model.loss.bits_saved for model in models]
    return ["bits not known" if bits is None else f"{percent(bits, 2)} of the bits saved" for bits in known]


def _numbers(models: Sequence[Compared]) -> list[str]:
    return [str(place) for place in range(1, len(models) + 1)]
