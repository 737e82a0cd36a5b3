"""The fifth sentence: what to do instead, the method with the least loss at no more bits than TD-MoE stores."""

from collections.abc import Sequence

from reports.formats import listing, percent
from reports.verdict.arenas import Duel, agreement, words_of
from reports.verdict.intervals import with_error
from reports.verdict.losses import RTN, TDMOE, Loss, difference, stores_no_more
from reports.verdict.subjects import plain

_MOST = 4  # that are named as not told apart from the best


def instead(found: Sequence[Duel]) -> str:
    """The best method, those that cannot be told apart from it, and where rounding wins the best decomposition."""
    listed = [duel for duel in found if duel.tdmoe is not None]
    duel = next((one for one in listed if len(_families(_able(one))) > 1), None)
    if not listed:
        return "What to do instead: not measured; there is no TD-MoE whose bits others could be held to."
    if duel is None or duel.tdmoe is None:
        return "What to do instead: not measured; no other method was evaluated at as few bits as TD-MoE stores."
    able, limit = _able(duel), duel.tdmoe
    best, *rest = able
    others = [_able(one) for one in listed if one is not duel]
    same = [one[0].method == best.method for one in others if len(_families(one)) > 1]
    what = "nothing that was measured does better than TD-MoE" if best.family == TDMOE else best.title
    return (
        f"What to do instead: {what}. Of the {len(able)} runs that save at least {percent(limit.bits_saved)} of the "
        f"bits, {words_of(duel)} or with a storage of their own, {_name(best)} adds least to the loss on "
        f"{plain(duel.arena.text)}, {_adds(best)}{_against(best, limit, rest)}.{_ties(best, rest)}"
        f"{_decomposition(best, rest)}{agreement(same)}"
    )


def _able(duel: Duel) -> list[Loss]:
    """That store no more than TD-MoE does, the least loss first."""
    found = [x for x in duel.others if x.bits_saved is not None and stores_no_more(x, duel.tdmoe)]
    return sorted(found, key=lambda loss: loss.damage)


def _families(listed: Sequence[Loss]) -> set[str]:
    return {loss.family for loss in listed}


def _against(best: Loss, limit: Loss, rest: Sequence[Loss]) -> str:
    """TD-MoE where another is best, otherwise the next of another family."""
    if best.family != TDMOE:
        return f"; {_name(limit)} {_adds(limit)}"
    other = next(loss for loss in rest if loss.family != TDMOE)
    return f"; of the others {_name(other)}, {_adds(other)}"


def _ties(best: Loss, rest: Sequence[Loss]) -> str:
    """Those whose difference to the best holds 0."""
    alike = list(dict.fromkeys(_name(loss) for loss in rest if difference(loss, best).open))
    told = alike[:_MOST] + ([f"{len(alike) - _MOST} more"] if len(alike) > _MOST else [])
    return f" {listing(told)} cannot be told apart from it." if alike else ""


def _decomposition(best: Loss, rest: Sequence[Loss]) -> str:
    """Where rounding wins, what wins among the rest."""
    found = next((loss for loss in rest if loss.family != RTN and not loss.is_control), None)
    if best.family != RTN or found is None:
        return ""
    return f" Among decompositions it is {_name(found)}, with {_adds(found)}."


def _name(loss: Loss) -> str:
    ours = loss.family == TDMOE and not (loss.is_published or loss.step)
    return f"TD-MoE ({loss.how})" if ours else loss.title


def _adds(loss: Loss) -> str:
    return f"{with_error(loss.damage, loss.stderr, signed=True)} nats a token at {percent(loss.bits_saved)} saved"
