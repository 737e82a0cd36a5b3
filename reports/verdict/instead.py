"""The fifth sentence: what to do instead, a choice or a trade-off among what beats TD-MoE at its best.

The only place of a page that gives advice: the front of loss and bits (`reports.verdict.frontier`) of the models that
store no more bits than TD-MoE and lose no more than it does at its best. With losses that are not told apart the one
that saves most bits stands for them.
"""

from collections.abc import Sequence
from math import inf

from reports.formats import listing, percent
from reports.intervals import with_error
from reports.verdict.arenas import Duel, again, agreement, projections_in_words, same_comparison
from reports.verdict.frontier import choices
from reports.verdict.losses import RTN, TDMOE, Loss, difference, stores_no_more
from reports.verdict.subjects import plain

_MOST = 2  # that are named as not told apart from a choice
_MOST_CHOICES = 4
_FRONT = "nothing else over the same projections saves more and loses less"


def instead(found: Sequence[Duel]) -> str:
    """The choices with what they add at their bits, what is not told apart from them, and the best decomposition."""
    listed = [duel for duel in found if duel.tdmoe is not None]
    duel = next((one for one in listed if len(_families(_able(one))) > 1), None)
    if not listed:
        return "What to do instead: not measured; there is no TD-MoE whose bits others could be held to."
    if duel is None or duel.tdmoe is None:
        return "What to do instead: not measured; no other method was evaluated at as few bits as TD-MoE stores."
    able = _able(duel)
    best = worth(able, duel.best or duel.tdmoe)
    text = plain(duel.arena.text)
    last = f"{_next(best, able)}{_wider(duel, able)}.{_ties(best, able) or _unknown(able)}"
    last = f"; {_FRONT}{last}{_elsewhere(found, duel, able)}"
    if len(best) > 1:
        told = [_choice(loss, first=number == 0) for number, loss in enumerate(best[:_MOST_CHOICES])]
        more = f"; {len(best) - _MOST_CHOICES} more" if len(best) > _MOST_CHOICES else ""
        return f"What to do instead is a trade-off on {text}: {'; '.join(told)}{more}{last}"
    (only,) = best
    what, who = only.spoken, "it"
    if only.family == TDMOE:
        what, who = "nothing that was measured does better than TD-MoE", f"{_name(only)}{only.consists}"
    return f"What to do instead: {what}. On {text} {who} adds {_adds(only, ' nats a token')} of bits saved{last}"


def worth(listed: Sequence[Loss], limit: Loss | None) -> list[Loss]:
    """Choices among those that lose no more than the limit; of all where none does."""
    return choices([x for x in listed if limit is None or x.damage <= limit.damage] or listed)


def _able(duel: Duel) -> list[Loss]:
    """Over the same projections and storing no more than TD-MoE does, the least loss first; controls are no methods."""
    assert duel.tdmoe is not None, "asked before"
    own = duel.tdmoe.projections
    able = [x for x in duel.others if not own or x.projections in (own, frozenset())]
    found = [x for x in able if x.bits_saved is not None and stores_no_more(x, duel.tdmoe) and not x.is_control]
    return sorted(found, key=lambda loss: loss.damage)


def _families(listed: Sequence[Loss]) -> set[str]:
    return {loss.family for loss in listed}


def _second(best: Sequence[Loss], able: Sequence[Loss]) -> Loss | None:
    """The best decomposition where rounding wins, otherwise the best of TD-MoE or, where that wins, of the others."""
    families = _families(best)
    if families == {RTN}:
        return next((loss for loss in able if loss.family != RTN), None)
    if len(best) > 1:
        return None
    return next((loss for loss in able if (loss.family == TDMOE) != (TDMOE in families)), None)


def _next(best: Sequence[Loss], able: Sequence[Loss]) -> str:
    found = _second(best, able)
    if found is None:
        return ""
    who = {RTN: "of decompositions ", TDMOE: "of the others "}.get(best[0].family, "")
    over = [(loss, difference(found, loss)) for loss in best]
    like = [_name(loss) for loss, one in over if one.open]
    alike = ""
    if like:
        alike = ", which cannot be told apart" if len(best) == 1 else f", not told apart in loss from {listing(like)}"
    if not any(one.known for _, one in over) and best[0].stderr is not None:
        alike = ", no error known"
    return f"; {who}{_name(found)}, {_adds(found)}{alike}"


def _wider(duel: Duel, able: Sequence[Loss]) -> str:
    """What does better than the best decomposition over other projections."""
    ours = min((x.damage for x in able if x.family != RTN), default=inf)
    better = [loss for loss in duel.wider if loss.bits_saved is not None and loss.damage < ours]
    if not better:
        return ""
    found = min(better, key=lambda loss: loss.damage)
    where = projections_in_words(found) or "other projections"
    return f"; over {where} {_name(found)}, {_adds(found)}"


def _ties(best: Sequence[Loss], able: Sequence[Loss]) -> str:
    """What is not told apart in loss from a choice and is none: the choice stands for it as it saves more bits."""
    second = _second(best, able)
    said = []
    for choice in best:
        alike = [x for x in able if x not in (*best, second) and difference(x, choice).open]
        names = list(dict.fromkeys(_name(loss) for loss in alike))
        told = names[:_MOST] + ([f"{len(names) - _MOST} more"] if len(names) > _MOST else [])
        if told:
            saves = all(x.bits_saved is not None and x.bits_saved < (choice.bits_saved or 0.0) for x in alike)
            than = f"{_name(choice)}, which saves more bits" if saves else _name(choice)
            said.append(f" Not told apart in loss from {than}: {listing(told)}.")
    return "".join(said)


def _unknown(able: Sequence[Loss]) -> str:
    """The text where no difference to the least has an error."""
    return "" if any(difference(loss, able[0]).known for loss in able[1:]) else " No error of these is known."


def _elsewhere(found: Sequence[Duel], first: Duel, able: Sequence[Loss]) -> str:
    """Whether the choices are the same elsewhere, among the methods that were measured in both places with errors."""
    limit = first.best or first.tdmoe
    chosen = {loss.stands_for for loss in worth(able, limit)}
    same, seen = [], {tuple(id(loss) for loss in able)}
    for duel in found:
        if same_comparison(duel, first) or able[0].stderr is None:
            continue
        shared = [there for loss in able if (there := again(duel, loss)) is not None and there.stderr is not None]
        if chosen <= {loss.stands_for for loss in shared} and len(_families(shared)) > 1:
            key = tuple(id(loss) for loss in shared)
            if key not in seen:
                limited = worth(shared, None if limit is None else again(duel, limit))
                same.append({loss.stands_for for loss in limited} == chosen)
            seen.add(key)
    return agreement(same)


def _choice(loss: Loss, *, first: bool) -> str:
    return f"{_name(loss)} {_adds(loss, ' nats a token')} of bits saved" if first else f"{_name(loss)} {_adds(loss)}"


def _name(loss: Loss) -> str:
    ours = loss.family == TDMOE and not (loss.is_published or loss.step)
    return f"TD-MoE ({loss.how})" if ours else loss.spoken


def _adds(loss: Loss, unit: str = "") -> str:
    return f"{with_error(loss.damage, loss.stderr, signed=True)}{unit} at {percent(loss.bits_saved)}"
