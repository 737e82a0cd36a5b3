"""Arenas, in which losses are comparable, and the duels of TD-MoE and MoBE in them.

An arena is one run, one text and one set of layers: all of its losses are over the same windows, and every one of them
is paired with the dense model's. Only within an arena are two methods compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reports.attribution.closed import Shares, left, of_one_run
from reports.formats import listing
from reports.intervals import Estimate, between
from reports.run import Row, given, projection_order
from reports.verdict.losses import DENSE, MOBE, TDMOE, Loss, difference, stores_no_more
from reports.verdict.subjects import Subject, count_layers, plain

REFIT = "refit=expert"
_EXACTLY = 1e-9  # a share that is 1 by definition


@dataclass
class Arena:
    """Losses over the same windows. `attributed`: from `attribution`, whose ladders have their own order."""

    run: int
    text: str
    layers: str
    attributed: bool
    losses: list[Loss] = field(default_factory=list)
    shares: Shares = Shares([])

    @property
    def dense(self) -> Loss | None:
        return next((loss for loss in self.losses if loss.is_dense), None)

    @property
    def windows(self) -> int | None:
        """Over which every loss of it is a mean."""
        rows = [loss.row for loss in self.losses]
        found = [row.get("windows") if self.attributed else row.get("samples") for row in rows]
        return next((int(count) for count in found if count is not None), None)


@dataclass(frozen=True)
class Duel:
    """TD-MoE against MoBE at one ratio of one arena: as published, at its best at no more bits, and MoBE's best.

    TD-MoE's best is over MoBE's projections where it can be; `wider` is a TD-MoE that does better over other ones, and
    MoBE over these. `others` is everything measured in the arena at that ratio, or at a storage that it fixes itself.
    """

    arena: Arena
    ratio: float | None
    published: Loss | None
    best: Loss | None
    mobe: Loss | None
    others: Sequence[Loss]
    wider: Sequence[Loss] = ()

    @property
    def best_over(self) -> Estimate | None:
        """TD-MoE's loss at its best less MoBE's: of windows that it was not chosen on where the table has these.

        None where its best is the published run.
        """
        if self.best is None or self.mobe is None or self.published is None or self.best is self.published:
            return None
        plain = self.arena.shares.plain
        return difference(self.best, self.mobe) if plain is None else left(plain)

    @property
    def shares(self) -> Shares:
        """Shares of the gap; without attribution's table from the best run alone, which then has been chosen."""
        if self.arena.shares.rows or self.best is None or self.mobe is None or self.published is None:
            return self.arena.shares
        row, rest = self.best.row, difference(self.best, self.mobe)
        if given(row, "gap_closed"):
            share = between(row.get("gap_low"), float(row["gap_closed"]), row.get("gap_high"))
        else:
            share = Estimate((self.published.damage - self.best.damage) / (self.published.damage - self.mobe.damage))
        refitted = REFIT in self.best.options and REFIT not in self.mobe.options
        return of_one_run(share, rest, refitted=refitted, among=2 if self.arena.attributed else 1)

    @property
    def tdmoe(self) -> Loss | None:
        """As published where that was measured, otherwise at its best."""
        return self.published or self.best

    @property
    def complete(self) -> bool:
        return self.tdmoe is not None and self.mobe is not None


def arenas(subject: Subject) -> list[Arena]:
    """Those of `attribution` first, then those of `quality`, largest sets of layers first."""
    found = [*_of_attribution(subject), *_of_quality(subject)]
    return sorted(found, key=lambda arena: (not arena.attributed, -count_layers(arena.layers)))


def duels(arena: Arena) -> list[Duel]:
    """One a ratio, the largest first."""
    losses = [loss for loss in arena.losses if not loss.is_dense]
    ratios: Sequence[float | None] = _ratios(arena) or [None]
    return [
        _duel(arena, ratio, [loss for loss in losses if ratio_at(arena, loss) in (None, ratio)]) for ratio in ratios
    ]


def all_duels(subject: Subject) -> list[Duel]:
    """The one that the verdict is about first: complete, with published and better-run TD-MoE, attributed."""
    found = [duel for arena in arenas(subject) for duel in duels(arena)]
    return sorted(found, key=lambda duel: (-_completeness(duel), not duel.arena.attributed, -(duel.arena.windows or 0)))


def words_of(duel: Duel) -> str:
    """`40 % of gate and up of layers 0-3 removed`."""
    chosen = duel.tdmoe or duel.mobe
    what = (projections_in_words(chosen) if chosen else "") or "the compressed projections"
    where = layers_in_words(duel.arena.layers)
    if duel.ratio is None:
        return f"{what}{where} compressed"
    return f"{removed(duel.ratio)} of {what}{where} removed"


def projections_in_words(loss: Loss) -> str:
    """`gate, up and down`; nothing where they are not known."""
    return plain(listing(sorted(loss.projections, key=projection_order)))


def removed(ratio: float) -> str:
    """`40 %`, on one line."""
    return f"{100 * ratio:g}\N{NO-BREAK SPACE}%"


def layers_in_words(layers: str) -> str:
    """` of layers 0-3`, ` of layer 1`; nothing where they are not known."""
    word = "layers" if count_layers(layers) > 1 else "layer"
    return f" of {word} {plain(layers)}" if layers else ""


def _completeness(duel: Duel) -> int:
    points = 8 * duel.complete + 4 * (duel.published is not None and duel.best is not duel.published)
    return points + 2 * (duel.tdmoe is not None) + (duel.mobe is not None)


def _of_quality(subject: Subject) -> Iterator[Arena]:
    for number, rows in subject.tables("quality"):
        texts = dict.fromkeys(str(row["dataset"]) for row in rows if row["metric"] == "perplexity")
        layers = dict.fromkeys(str(row.get("compressed_layers") or "") for row in rows)
        for text in texts:
            for chosen in [name for name in layers if name] or [""]:
                arena = Arena(number, text, chosen, attributed=False)
                for row in rows:
                    own = str(row.get("compressed_layers") or "")
                    if row["metric"] == "perplexity" and str(row["dataset"]) == text and own in ("", chosen):
                        arena.losses.append(_loss(row, own))
                yield arena


def _of_attribution(subject: Subject) -> Iterator[Arena]:
    """Its table names no layers, its settings do."""
    shares = dict(subject.tables("attribution_shares"))
    for number, rows in subject.tables("attribution"):
        layers, told = subject.layers(number), Shares(shares.get(number, []))
        found: dict[str, Arena] = {}
        for row in rows:
            text, ladder, step = (str(row.get(column) or "") for column in ("text", "ladder", "step"))
            own = "" if row["method"] == DENSE else layers
            arena = found.setdefault(text, Arena(number, text, layers, attributed=True, shares=told))
            arena.losses.append(_loss(row, own, ladder=ladder, step=step))
        yield from found.values()


def _loss(row: Row, layers: str, ladder: str = "", step: str = "") -> Loss:
    saved = row.get("bits_saved")
    return Loss(
        method=str(row["method"]),
        ratio=None if row.get("ratio") is None else float(row["ratio"]),
        bits_saved=None if saved is None else float(saved),
        layers=layers,
        checkpoint=str(row.get("checkpoint") or ""),
        row=row,
        ladder=ladder,
        step=step,
    )


def ratio_at(arena: Arena, loss: Loss) -> float | None:
    """The ratio that a loss is compared at: a ladder's step belongs to the published run nearest to it."""
    starts = _ratios(arena)
    if loss.ratio is None or not arena.attributed or not starts:
        return loss.ratio
    own = loss.ratio
    return min(starts, key=lambda ratio: abs(ratio - own))


def _ratios(arena: Arena) -> list[float]:
    """That losses are compared at, the largest first."""
    found = {loss.ratio for loss in arena.losses if loss.ratio is not None}
    starts = {loss.ratio for loss in arena.losses if loss.is_published and loss.ratio is not None}
    return sorted(starts if arena.attributed and starts else found, reverse=True)


def _duel(arena: Arena, ratio: float | None, losses: Sequence[Loss]) -> Duel:
    known = [loss for loss in losses if loss.measured]
    published = next((loss for loss in known if loss.is_published), None)
    tensors = [loss for loss in known if loss.family == TDMOE]
    able = [loss for loss in tensors if stores_no_more(loss, published)]
    limit = published or _least(able)
    matrices = [loss for loss in known if loss.family == MOBE]
    mobe = _reference(arena, matrices, limit)
    alike = [x for x in able if mobe is not None and x.row.get("projections") == mobe.row.get("projections")]
    named = [loss for loss in able if (loss.ladder, loss.step) == arena.shares.step]
    best, least = _least(named or alike or able), _least(able)
    wider = [] if least is None or least is best else [least, *_over_the_same(least, matrices)]
    return Duel(arena, ratio, published, best, mobe, known, wider)


def _reference(arena: Arena, matrices: Sequence[Loss], limit: Loss | None) -> Loss | None:
    """The MoBE that TD-MoE is held to: the end of attribution's gap, otherwise the least loss at no more bits.

    A ladder's rungs below MoBE as a whole are TD-MoE under another name: of a ladder it is a preset where one is there.
    """
    presets = [loss for loss in matrices if loss.is_preset] if arena.attributed else []
    able = presets or matrices
    exact = next((loss for loss in able if loss.is_reference or _closes_all(loss)), None)
    return exact or _least([loss for loss in able if stores_no_more(loss, limit)]) or _least(able)


def _over_the_same(loss: Loss, others: Sequence[Loss]) -> list[Loss]:
    """The least loss of others over the same projections, if there is one."""
    found = _least([x for x in others if x.row.get("projections") == loss.row.get("projections")])
    return [] if found is None else [found]


def _closes_all(loss: Loss) -> bool:
    return given(loss.row, "gap_closed") and abs(float(loss.row["gap_closed"]) - 1) < _EXACTLY


def _least(losses: Sequence[Loss]) -> Loss | None:
    return min(losses, key=lambda loss: loss.damage, default=None)


def same_comparison(one: Duel, other: Duel) -> bool:
    """The same text, ratio and layers, which a second command has measured again."""
    return (one.arena.text, one.ratio, one.arena.layers) == (other.arena.text, other.ratio, other.arena.layers)


def again(duel: Duel, loss: Loss) -> Loss | None:
    """The same method in another duel: its spec, its projections and the folder that it was in."""
    alike = (one for one in duel.others if one.stands_for == loss.stands_for)
    return next(alike, None)


def agreement(same: Sequence[bool]) -> str:
    """Of the comparisons of the same methods on other texts, at other ratios or of other layers, how many agree."""
    return f" Same methods elsewhere: {sum(same)} of {len(same)} agree." if same else ""
