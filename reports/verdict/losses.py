"""What compression adds to the loss: rows of `quality` and of `attribution` in one form, in arenas that are comparable.

An arena is one run, one text and one set of layers: all of its losses are over the same windows, and every one of them
is paired with the dense model's. Only within an arena are two methods compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from reports.formats import EMPTY
from reports.methods import method_name
from reports.quality.answer import count_layers
from reports.run import Row, given
from reports.tables import status_of
from reports.verdict.intervals import Estimate, Z, of
from reports.verdict.subjects import Subject, plain

TDMOE, MOBE, RTN = "tdmoe", "mobe", "rtn"
DENSE = "dense"
CONTROLS = ("identity", "cast", "mean", "drop")
PUBLISHED_RANKS = ("allocation=published", "allocation=published_every")
_AS_PUBLISHED = ("whitening=none", "allocation=published", "decomposition=hosvd")
_EXACTLY = 1e-9  # a share that is 1 by definition
TOLERANCE = 0.005  # of the stored bits, within which storage counts as equal


@dataclass(frozen=True)
class Loss:
    """One model on one text; `ladder` and `step` are attribution's."""

    method: str
    ratio: float | None
    bits_saved: float | None
    layers: str
    checkpoint: str
    row: Row
    ladder: str = ""
    step: str = ""

    @property
    def family(self) -> str:
        """The method without its options."""
        return self.method.partition(":")[0]

    @property
    def options(self) -> list[str]:
        return [option for option in self.method.partition(":")[2].split(",") if option]

    @property
    def is_dense(self) -> bool:
        return self.family == DENSE and not self.checkpoint

    @property
    def is_published(self) -> bool:
        """TD-MoE as *Rethinking* ran it: no whitening, ranks that never look at the weights."""
        if self.family != TDMOE:
            return False
        return "whitening=none" in self.options and any(option in PUBLISHED_RANKS for option in self.options)

    @property
    def is_control(self) -> bool:
        return self.family in CONTROLS

    @property
    def measured(self) -> bool:
        return given(self.row, "loss_difference_nats")

    @property
    def damage(self) -> float:
        """Nats a token above dense; ask `measured` first."""
        return float(self.row["loss_difference_nats"])

    @property
    def stderr(self) -> float | None:
        found = self.row.get("loss_difference_nats_stderr")
        return None if found is None else float(found)

    @property
    def added(self) -> Estimate:
        return of(self.damage, self.stderr)

    @property
    def stored(self) -> float | None:
        """Share of the dense model's bits."""
        return None if self.bits_saved is None else 1 - self.bits_saved

    @property
    def title(self) -> str:
        """The method's name, with the folder that a checkpoint was in."""
        folder = f" ({plain(self.checkpoint)})" if self.checkpoint not in ("", self.method) else ""
        return plain(self._published if self.is_published else method_name(self.method)) + folder

    @property
    def named(self) -> str:
        """Its title with its ratio."""
        return self.title + ("" if self.ratio is None else f" at {self.ratio:g}")

    @property
    def _published(self) -> str:
        """`TD-MoE as published`, and in what else it differs from that."""
        extras = [option for option in self.options if option not in _AS_PUBLISHED]
        if not any(option.startswith("decomposition=") for option in self.options):
            extras.append("default decomposition")
        return "TD-MoE as published" + (f" ({', '.join(extras)})" if extras else "")

    @property
    def how(self) -> str:
        """How TD-MoE was run, in few words: attribution's step, or the options."""
        if self.step:
            return f"step “{plain(self.step)}”"
        return plain(", ".join(self.options)) if self.options else "default options"

    @property
    def reason(self) -> str:
        """Why it has no loss."""
        return status_of(self.row) or "not measured"


@dataclass
class Arena:
    """Losses over the same windows. `attributed`: from `attribution`, whose ladders have their own order."""

    run: int
    text: str
    layers: str
    attributed: bool
    losses: list[Loss] = field(default_factory=list)

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

    `others` is everything measured in the arena at that ratio, or at a storage that it fixes itself.
    """

    arena: Arena
    ratio: float | None
    published: Loss | None
    best: Loss | None
    mobe: Loss | None
    others: Sequence[Loss]

    @property
    def tdmoe(self) -> Loss | None:
        """As published where that was measured, otherwise at its best."""
        return self.published or self.best

    @property
    def complete(self) -> bool:
        return self.tdmoe is not None and self.mobe is not None


def difference(one: Loss, other: Loss) -> Estimate:
    """Of two losses of an arena, nats a token; the interval holds whatever their correlation."""
    value = one.damage - other.damage
    if one.stderr is None or other.stderr is None:
        return Estimate(value)
    half = Z * (one.stderr + other.stderr)
    return Estimate(value, value - half, value + half)


def stores_no_more(loss: Loss, limit: Loss | None) -> bool:
    """Within the tolerance; true where either is not known."""
    if limit is None or loss.stored is None or limit.stored is None:
        return True
    return loss.stored <= limit.stored * (1 + TOLERANCE)


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
    return sorted(found, key=lambda duel: -_completeness(duel))


def words_of(duel: Duel) -> str:
    """`with 40 % of gate and up of layers 0-3 removed`."""
    chosen = duel.tdmoe or duel.mobe
    projections = str((chosen.row.get("projections") if chosen else None) or "").split(",")
    what = " and ".join(part for part in projections if part) or "the compressed projections"
    where = f" of layers {plain(duel.arena.layers)}" if duel.arena.layers else ""
    amount = EMPTY if duel.ratio is None else f"{100 * duel.ratio:g} %"
    return f"with {amount} of {plain(what)}{where} removed" if duel.ratio is not None else f"{plain(what)}{where}"


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
    for number, rows in subject.tables("attribution"):
        found: dict[str, Arena] = {}
        for row in rows:
            text = str(row.get("text") or "")
            loss = _loss(row, "", ladder=str(row.get("ladder") or ""), step=str(row.get("step") or ""))
            found.setdefault(text, Arena(number, text, "", attributed=True)).losses.append(loss)
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
    best = _least([loss for loss in tensors if stores_no_more(loss, published)])
    limit = published or best
    matrices = [loss for loss in known if loss.family == MOBE]
    mobe = next((loss for loss in matrices if _closes_all(loss)), None)  # that the shares of the gap refer to
    mobe = mobe or _least([loss for loss in matrices if stores_no_more(loss, limit)]) or _least(matrices)
    return Duel(arena, ratio, published, best, mobe, known)


def _closes_all(loss: Loss) -> bool:
    return given(loss.row, "gap_closed") and abs(float(loss.row["gap_closed"]) - 1) < _EXACTLY


def _least(losses: Sequence[Loss]) -> Loss | None:
    return min(losses, key=lambda loss: loss.damage, default=None)


def perplexity(loss: Loss) -> float | None:
    """Of a row of either table."""
    column = "perplexity" if "perplexity" in loss.row else "value"
    return float(loss.row[column]) if given(loss.row, column) else None


def agreement(same: Sequence[bool]) -> str:
    """Of the other comparisons, how many say what the first one says."""
    if not same:
        return ""
    if len(same) == 1:
        return f" The other comparison (text, ratio or set of layers) {'agrees' if same[0] else 'does not agree'}."
    return f" Of the {len(same)} other comparisons (texts, ratios, sets of layers) {sum(same)} agree."
