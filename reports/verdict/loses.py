"""The first sentence: does TD-MoE lose to MoBE at the same bits, as published and at its best."""

from collections.abc import Sequence

from reports.formats import listing, percent
from reports.intervals import Estimate, bare, with_error
from reports.verdict.arenas import Duel, again, agreement, same_comparison, words_of
from reports.verdict.losses import TOLERANCE, Loss, difference
from reports.verdict.subjects import clause, plain

_MOST_SAID = 50  # characters of a headline about how TD-MoE was run


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
            f"{plain(duel.arena.text)}, {words_of(duel)}, {saved(there)} of bits saved."
        )
    return f"{_headline(duel)}: {_numbers(duel)}.{_elsewhere(found)}{_switches(duel)}"


def beside(*found: Estimate) -> str:
    """`0.27 (95 % interval 0.21 to 0.32) nats a token more`; what lies below 0 is told as less."""
    unit, words = " nats a token", ["more" if one.value >= 0 else "less" for one in found]
    sizes = [one if one.value >= 0 else one.turned for one in found]
    told = [bare(one, worded=number == 0) for number, one in enumerate(sizes)]
    if len(set(words)) == 1:
        return f"{listing(told)}{unit} {words[0]}"
    told[0] += unit
    return listing([f"{size} {word}" for size, word in zip(told, words, strict=True)])


def saved(loss: Loss) -> str:
    """Bits, in per cent."""
    return "an unknown share" if loss.bits_saved is None else percent(loss.bits_saved)


def _headline(duel: Duel) -> str:
    """By the signs of the differences whose intervals leave out 0; nothing is claimed where no error is known."""
    over, least = _over(duel), duel.best_over
    if not over.known:
        return f"Whether TD-MoE loses to MoBE, {_who(duel)}, cannot be told without an error"
    if duel.published is None:
        return _verdict(f"TD-MoE {_who(duel)}", over)
    if least is None:
        return _verdict("TD-MoE as published", over)
    if not least.known:
        return f"{_verdict('TD-MoE as published', over)}, at its best without a known error"
    if over.above:
        tail = "and still does at its best" if least.above else "and beats it at its best" if least.below else ""
        tail = tail or "but at its best they cannot be told apart"
        return f"TD-MoE as published loses to MoBE, {tail}"
    if over.below:
        return "TD-MoE beats MoBE, as published and at its best"
    if least.below:
        return "TD-MoE as published and MoBE cannot be told apart, and at its best TD-MoE beats it"
    return "TD-MoE and MoBE cannot be told apart, as published and at its best"


def _switches(duel: Duel) -> str:
    """Of a combination that the headline names, which no other sentence does."""
    found = duel.tdmoe.consists if duel.tdmoe is not None and duel.published is None else ""
    return f" TD-MoE's switches: {found.strip(' ()')}." if found else ""


def _who(duel: Duel) -> str:
    """Which runs of TD-MoE the numbers are of."""
    if duel.published is None:
        assert duel.tdmoe is not None, "complete"
        return clause(f"with {duel.tdmoe.how}", _MOST_SAID)
    return "as published" + ("" if duel.best_over is None else " and at its best")


def _verdict(who: str, over: Estimate) -> str:
    if over.open:
        return f"{who} and MoBE cannot be told apart"
    return f"{who} {'loses to' if over.above else 'beats'} MoBE"


def _over(duel: Duel) -> Estimate:
    assert duel.tdmoe is not None and duel.mobe is not None, "complete"
    return difference(duel.tdmoe, duel.mobe)


def _numbers(duel: Duel) -> str:
    ours, mobe, least = duel.tdmoe, duel.mobe, duel.best_over
    assert ours is not None and mobe is not None, "complete"
    than = "" if mobe.title == "MoBE" else f" than {mobe.title}"
    said = beside(_over(duel), *([] if least is None else [least]))
    alone = " (1 window)" if duel.arena.windows == 1 else ""
    return f"{said}{than} on {plain(duel.arena.text)}{alone}, {words_of(duel)}, {_bits(duel)}"


def _bits(duel: Duel) -> str:
    """What MoBE saves, and a remark on runs that do not store what it does."""
    runs = [(duel.tdmoe, "as published" if duel.published is not None else "")]
    if duel.published is not None and duel.best is not duel.published:
        runs.append((duel.best, "at its best"))
    said = []
    for loss, who in runs:
        more = _more_stored(loss, duel.mobe)
        if more is not None and abs(more) > TOLERANCE:
            said.append(f"{percent(abs(more))} {'more' if more > 0 else 'fewer'} bits {who}".rstrip())
    assert duel.mobe is not None, "complete"
    return f"{saved(duel.mobe)} of bits saved" + (f" (TD-MoE stores {listing(said)})" if said else "")


def _more_stored(loss: Loss | None, mobe: Loss | None) -> float | None:
    """Stored bits over MoBE's, less one."""
    if loss is None or mobe is None or loss.stored is None or not mobe.stored:
        return None
    return loss.stored / mobe.stored - 1


def _elsewhere(found: Sequence[Duel]) -> str:
    """Whether the same two stand alike in other comparisons, as far as errors are known."""
    first = found[0]
    assert first.tdmoe is not None and first.mobe is not None, "complete"
    if not _over(first).known:
        return ""
    pairs = {
        (id(ours), id(theirs)): difference(ours, theirs)
        for duel in found[1:]
        if not same_comparison(duel, first)
        and (ours := again(duel, first.tdmoe)) is not None
        and (theirs := again(duel, first.mobe)) is not None
    }
    pairs.pop((id(first.tdmoe), id(first.mobe)), None)
    return agreement([_sign(over) == _sign(_over(first)) for over in pairs.values() if over.known])


def _sign(over: Estimate) -> int:
    return 1 if over.above else -1 if over.below else 0
