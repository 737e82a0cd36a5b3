"""The first sentence: does TD-MoE lose to MoBE at the same bits, as published and at its best."""

from collections.abc import Sequence

from reports.formats import listing, percent
from reports.verdict.arenas import Duel, agreement, words_of
from reports.verdict.intervals import Estimate, with_error
from reports.verdict.losses import TOLERANCE, Loss, difference
from reports.verdict.subjects import plain


def loses(found: Sequence[Duel]) -> str:
    """In nats with their intervals; who is missing where it was not measured."""
    duel = found[0] if found else None
    if duel is None or (duel.tdmoe is None and duel.mobe is None):
        return "Whether TD-MoE loses to MoBE: not measured; neither was evaluated (quality and attribution do that)."
    if duel.mobe is None or duel.tdmoe is None:
        there, lacking = (duel.tdmoe, "MoBE") if duel.tdmoe is not None else (duel.mobe, "TD-MoE")
        assert there is not None, "one of them is"
        return (
            f"Whether TD-MoE loses to MoBE: not measured, for want of {lacking}. {there.title} adds "
            f"{with_error(there.damage, there.stderr, signed=True)} nats a token to the loss on "
            f"{plain(duel.arena.text)}, {words_of(duel)}, and saves {saved(there)} of the bits."
        )
    return f"{_headline(duel)}: {_numbers(duel)}.{_elsewhere(found)}"


def beside(over: Estimate, *, worded: bool = False) -> str:
    """`0.27 (95 % interval 0.21 to 0.32) nats a token above`; what lies below 0 is told as below."""
    unit = " nats a token" if worded else ""
    if over.value >= 0:
        return f"{over.text(worded=worded)}{unit} above"
    ends = (None if end is None else -end for end in (over.high, over.low))
    return f"{Estimate(-over.value, *ends).text(worded=worded)}{unit} below"


def saved(loss: Loss) -> str:
    """Bits, in per cent."""
    return "an unknown share" if loss.bits_saved is None else percent(loss.bits_saved)


def _headline(duel: Duel) -> str:
    """By the signs of the differences whose intervals leave out 0."""
    over, least = _over(duel), _best_over(duel)
    if duel.published is None:
        return _verdict("TD-MoE", over)
    if least is None:
        return _verdict("TD-MoE as published", over)
    if over.above:
        tail = "and still does at its best" if least.above else "and beats it at its best" if least.below else ""
        tail = tail or "but at its best they cannot be told apart"
        return f"TD-MoE as published loses to MoBE on this model, {tail}"
    if over.below:
        return "TD-MoE beats MoBE on this model, even as published"
    if least.below:
        return "TD-MoE as published and MoBE cannot be told apart on this model, and at its best TD-MoE beats it"
    return "TD-MoE and MoBE cannot be told apart on this model"


def _verdict(who: str, over: Estimate) -> str:
    if over.open:
        return f"{who} and MoBE cannot be told apart on this model"
    return f"{who} {'loses to' if over.above else 'beats'} MoBE on this model"


def _over(duel: Duel) -> Estimate:
    assert duel.tdmoe is not None and duel.mobe is not None, "complete"
    return difference(duel.tdmoe, duel.mobe)


def _best_over(duel: Duel) -> Estimate | None:
    """Of TD-MoE at its best, where that is another run than the published one."""
    if duel.best is None or duel.mobe is None or duel.published is None or duel.best is duel.published:
        return None
    return difference(duel.best, duel.mobe)


def _numbers(duel: Duel) -> str:
    ours, mobe, least = duel.tdmoe, duel.mobe, _best_over(duel)
    assert ours is not None and mobe is not None, "complete"
    which = "as published" if duel.published is not None else f"({ours.how}; as published it was not measured)"
    said = (
        f"on {plain(duel.arena.text)}, {words_of(duel)}, the loss of TD-MoE {which} is "
        f"{beside(_over(duel), worded=True)} that of {mobe.title}"
    )
    told = [saved(ours)]
    if least is not None and duel.best is not None:
        said += f", and at its best ({duel.best.how}) {beside(least)}"
        told.append(saved(duel.best))
    return f"{said}; bits saved {' and '.join(told)} against {saved(mobe)}{_unmatched(duel)}"


def _unmatched(duel: Duel) -> str:
    """A remark on runs that do not store what MoBE does."""
    runs = [(duel.tdmoe, "as published" if duel.published is not None else "TD-MoE")]
    if duel.published is not None and duel.best is not duel.published:
        runs.append((duel.best, "at its best"))
    said = []
    for loss, who in runs:
        more = _more_stored(loss, duel.mobe)
        if more is not None and abs(more) > TOLERANCE:
            said.append(f"{who} {percent(abs(more))} {'more' if more > 0 else 'fewer'}")
    return f" (not quite matched: it stores {listing(said)} bits than MoBE)" if said else ""


def _more_stored(loss: Loss | None, mobe: Loss | None) -> float | None:
    """Stored bits over MoBE's, less one."""
    if loss is None or mobe is None or loss.stored is None or not mobe.stored:
        return None
    return loss.stored / mobe.stored - 1


def _elsewhere(found: Sequence[Duel]) -> str:
    first = _sign(found[0])
    return agreement([_sign(duel) == first for duel in found[1:] if duel.complete])


def _sign(duel: Duel) -> int:
    over = _over(duel)
    return 1 if over.above else -1 if over.below else 0
