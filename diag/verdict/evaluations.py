"""Losses that are comparable, and TD-MoE against MoBE among them.

An evaluation is one run, one text and one set of layers: all of its losses are over the same windows, and every one of
them is paired with the dense model's. Only within an evaluation are two methods compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from diag.declare.claim import Estimate, between
from diag.verdict.loss import DENSE, MOBE, TDMOE, Loss, difference, stores_no_more
from diag.verdict.shares import PRESETS, Shares, share_of
from diag.verdict.subjects import Row, Subject, has, number, plain

REFIT = "refit=expert"
NO_GAP = "no_gap"
_EXACTLY = 1e-9  # a share that is 1 by definition


@dataclass
class Evaluation:
    """Losses over the same windows. `attributed`: from `attribution`, whose ladders have their own order."""

    run: int
    text: str
    layers: str
    attributed: bool
    losses: list[Loss] = field(default_factory=list)
    shares: Shares = field(default_factory=Shares)

    @property
    def dense(self) -> Loss | None:
        """The dense model's."""
        return next((loss for loss in self.losses if loss.is_dense), None)

    @property
    def windows(self) -> int | None:
        """Windows over which every loss of it is a mean."""
        found = [loss.row.get("windows" if self.attributed else "samples") for loss in self.losses]
        return next((int(count) for count in found if count is not None), None)

    @property
    def ratios(self) -> list[float]:
        """Ratios that losses are compared at, the largest first."""
        found = {loss.ratio for loss in self.losses if loss.ratio is not None}
        starts = {loss.ratio for loss in self.losses if loss.is_published and loss.ratio is not None}
        return sorted(starts if self.attributed and starts else found, reverse=True)

    def ratio_of(self, loss: Loss) -> float | None:
        """The ratio that a loss is compared at: a ladder's step belongs to the published run nearest to it."""
        own = loss.ratio
        if own is None or not self.attributed or not self.ratios:
            return own
        return min(self.ratios, key=lambda ratio: abs(ratio - own))


@dataclass(frozen=True)
class Pair:
    """TD-MoE and MoBE at one ratio of one evaluation: as published, at its best at no more bits, and MoBE's best.

    TD-MoE's best is over MoBE's projections where it can be; `wider` is a TD-MoE that does better over other ones, and
    MoBE over these. `others` is everything measured there at that ratio, or at a storage that it fixes itself.
    """

    evaluation: Evaluation
    ratio: float | None
    published: Loss | None
    best: Loss | None
    mobe: Loss | None
    others: Sequence[Loss]
    wider: Sequence[Loss] = ()

    @property
    def tdmoe(self) -> Loss | None:
        """TD-MoE as published where that was measured, otherwise at its best."""
        return self.published or self.best

    @property
    def over(self) -> Estimate | None:
        """Loss of `tdmoe` less MoBE's."""
        return None if self.tdmoe is None or self.mobe is None else difference(self.tdmoe, self.mobe)

    @property
    def best_over(self) -> Estimate | None:
        """TD-MoE's loss at its best less MoBE's: of windows that it was not chosen on where the table has these.

        None where its best is the published run.
        """
        if self.best is None or self.mobe is None or self.published is None or self.best is self.published:
            return None
        presets = self.evaluation.shares.against(PRESETS)
        return difference(self.best, self.mobe) if presets is None else presets.left

    @property
    def shares(self) -> Shares:
        """Shares of the gap; without attribution's table from the best run alone, which then has been chosen."""
        if self.evaluation.shares.found or self.best is None or self.mobe is None or self.published is None:
            return self.evaluation.shares
        row, rest = self.best.row, difference(self.best, self.mobe)
        if (closed := number(row, "gap_closed")) is not None:
            share = between(number(row, "gap_low"), closed, number(row, "gap_high"))
        else:
            share = Estimate((self.published.damage - self.best.damage) / (self.published.damage - self.mobe.damage))
        refitted = REFIT in self.best.options and REFIT not in self.mobe.options
        return share_of(share, rest, refitted=refitted, crossed=not self.evaluation.attributed)

    @property
    def without_gap(self) -> bool:
        """Tell whether attribution's table says that there is no gap."""
        return self.evaluation.attributed and any(loss.row.get("status") == NO_GAP for loss in self.others)

    @property
    def what(self) -> str:
        """`40 % of gate and up of layers 0-3 removed`."""
        chosen = self.tdmoe or self.mobe
        what = (chosen.where if chosen else "") or "the compressed projections"
        where = layers_in_words(self.evaluation.layers)
        return f"{what}{where} compressed" if self.ratio is None else f"{removed(self.ratio)} of {what}{where} removed"

    def same_as(self, other: Pair) -> bool:
        """Tell whether it is the same text, ratio and layers, which a second command has measured again."""
        one, two = self.evaluation, other.evaluation
        return (one.text, self.ratio, one.layers) == (two.text, other.ratio, two.layers)

    def again(self, loss: Loss) -> Loss | None:
        """The same method here: its spec, its projections and the folder that it was in."""
        return next((one for one in self.others if one.stands_for == loss.stands_for), None)


def evaluations(subject: Subject) -> list[Evaluation]:
    """Evaluations of `attribution` first, then those of `quality`, largest sets of layers first."""
    found = [*_of_attribution(subject), *_of_quality(subject)]
    return sorted(found, key=lambda one: (not one.attributed, -count_layers(one.layers)))


def pairs(subject: Subject) -> list[Pair]:
    """The one that the verdict is about first: complete, with published and better-run TD-MoE, attributed."""
    found = [pair for one in evaluations(subject) for pair in pairs_of(one)]
    return sorted(
        found,
        key=lambda pair: (-_completeness(pair), not pair.evaluation.attributed, -(pair.evaluation.windows or 0)),
    )


def pairs_of(one: Evaluation) -> list[Pair]:
    """A pair a ratio, the largest first."""
    losses = [loss for loss in one.losses if not loss.is_dense]
    ratios: Sequence[float | None] = one.ratios or [None]
    return [_pair(one, ratio, [x for x in losses if one.ratio_of(x) in (None, ratio)]) for ratio in ratios]


def count_layers(layers: str) -> int:
    """Number of layers that "0-2,5" names."""
    total = 0
    for part in layers.split(",") if layers else ():
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


def removed(ratio: float) -> str:
    """`40 %`, on one line."""
    return f"{100 * ratio:g}\N{NO-BREAK SPACE}%"


def layers_in_words(layers: str) -> str:
    """The words ` of layers 0-3` or ` of layer 1`; nothing where they are not known."""
    word = "layers" if count_layers(layers) > 1 else "layer"
    return f" of {word} {plain(layers)}" if layers else ""


def _completeness(pair: Pair) -> int:
    complete = pair.tdmoe is not None and pair.mobe is not None
    points = 8 * complete + 4 * (pair.published is not None and pair.best is not pair.published)
    return points + 2 * (pair.tdmoe is not None) + (pair.mobe is not None)


def _of_quality(subject: Subject) -> Iterator[Evaluation]:
    for run, rows in subject.tables("quality"):
        read = [row for row in rows if row["metric"] == "perplexity"]
        layers = [name for row in rows if (name := str(row.get("compressed_layers") or ""))]
        for text in dict.fromkeys(str(row["dataset"]) for row in read):
            for chosen in list(dict.fromkeys(layers)) or [""]:
                one = Evaluation(run, text, chosen, attributed=False)
                for row in read:
                    own = str(row.get("compressed_layers") or "")
                    if str(row["dataset"]) == text and own in ("", chosen):
                        one.losses.append(_loss(row, own))
                yield one


def _of_attribution(subject: Subject) -> Iterator[Evaluation]:
    """Evaluations of attribution: its table names no layers, its settings do."""
    shares = dict(subject.tables("attribution_shares"))
    for run, rows in subject.tables("attribution"):
        layers, told = subject.layers(run), Shares.of(shares.get(run, []))
        found: dict[str, Evaluation] = {}
        for row in rows:
            text, ladder, step = (str(row.get(column) or "") for column in ("text", "ladder", "step"))
            one = found.setdefault(text, Evaluation(run, text, layers, attributed=True, shares=told))
            one.losses.append(_loss(row, "" if row["method"] == DENSE else layers, ladder, step))
        yield from found.values()


def _loss(row: Row, layers: str, ladder: str = "", step: str = "") -> Loss:
    checkpoint = str(row.get("checkpoint") or "")
    ratio, saved = number(row, "ratio"), number(row, "bits_saved")
    return Loss(str(row["method"]), ratio, saved, layers, checkpoint, row, ladder, step)


def _pair(one: Evaluation, ratio: float | None, losses: Sequence[Loss]) -> Pair:
    known = [loss for loss in losses if loss.measured]
    published = next((loss for loss in known if loss.is_published), None)
    able = [loss for loss in known if loss.family == TDMOE and stores_no_more(loss, published)]
    matrices = [loss for loss in known if loss.family == MOBE]
    mobe = _reference(one, matrices, published or _least(able))
    alike = [x for x in able if mobe is not None and x.row.get("projections") == mobe.row.get("projections")]
    named = [loss for loss in able if (loss.ladder, loss.step) == one.shares.step]
    best, least = _least(named or alike or able), _least(able)
    wider = [] if least is None or least is best else [least, *_over_the_same(least, matrices)]
    return Pair(one, ratio, published, best, mobe, known, wider)


def _reference(one: Evaluation, matrices: Sequence[Loss], limit: Loss | None) -> Loss | None:
    """The MoBE that TD-MoE is held to: the end of attribution's gap, otherwise the least loss at no more bits.

    A ladder's rungs below MoBE as a whole are TD-MoE under another name: of a ladder it is a preset where one is there.
    """
    presets = [loss for loss in matrices if loss.is_preset] if one.attributed else []
    able = presets or matrices
    exact = next((loss for loss in able if loss.is_reference or _closes_all(loss)), None)
    return exact or _least([loss for loss in able if stores_no_more(loss, limit)]) or _least(able)


def _over_the_same(loss: Loss, others: Sequence[Loss]) -> list[Loss]:
    """The least loss of others over the same projections, if there is one."""
    found = _least([x for x in others if x.row.get("projections") == loss.row.get("projections")])
    return [] if found is None else [found]


def _closes_all(loss: Loss) -> bool:
    return has(loss.row, "gap_closed") and abs(float(loss.row["gap_closed"]) - 1) < _EXACTLY


def _least(losses: Sequence[Loss]) -> Loss | None:
    return min(losses, key=lambda loss: loss.damage, default=None)
