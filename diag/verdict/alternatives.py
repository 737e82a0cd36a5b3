"""Alternatives to TD-MoE: a choice or a trade-off among what beats it at its best.

The only place that gives advice: the front of loss and bits (`diag.verdict.front`) of the models that store no more
bits than TD-MoE and lose no more than it does at its best. With losses that are not told apart the one that saves most
bits stands for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from diag.declare.claim import Claim, Estimate, Quantity
from diag.verdict.agreement import agreement
from diag.verdict.evaluations import Pair
from diag.verdict.front import choices
from diag.verdict.loss import RTN, TDMOE, Loss, difference, stores_no_more
from diag.verdict.subjects import plain

_MOST = 2  # that are named as not told apart from a choice
_MOST_CHOICES = 4
WORDS = "What to do instead"
BITS = Quantity("alternative_bits", "Bits that these save", "percent")


def alternative_claims(found: Sequence[Pair]) -> Iterator[Claim]:
    """The choices with what they add and save, the best of another kind, and what is not told apart from a choice."""
    listed = [pair for pair in found if pair.tdmoe is not None]
    pair = next((one for one in listed if len(_families(comparable(one))) > 1), None)
    if pair is None or pair.tdmoe is None:
        why = "no other method was evaluated at as few bits as TD-MoE stores"
        why = why if listed else "there is no TD-MoE whose bits others could be held to"
        yield Claim(why, Quantity("alternative", WORDS), Estimate(None))
        return
    able = comparable(pair)
    best = worth(able, pair.best or pair.tdmoe)
    quantity = Quantity("alternative", _words(best, pair), "change", after=_after(best, able))
    second = _second(best, able)
    for loss in best[:_MOST_CHOICES]:
        yield _added(quantity, loss)
    for loss in [*best[:_MOST_CHOICES], *([] if second is None else [second])]:
        yield Claim(loss.spoken, BITS, Estimate(loss.bits_saved), {}, loss.evidence("bits_saved"))
    if second is not None:
        yield _added(Quantity("next_best", _next(second, best), "change"), second)
    yield from _wider(pair, able)
    yield from _tied(best, able, second)
    yield from _elsewhere(found, pair, able)


def comparable(pair: Pair) -> list[Loss]:
    """Models over the same projections that store no more than TD-MoE, the least loss first; no controls."""
    assert pair.tdmoe is not None, "asked before"
    own = pair.tdmoe.projections
    able = [x for x in pair.others if not own or x.projections in (own, frozenset())]
    found = [x for x in able if x.bits_saved is not None and stores_no_more(x, pair.tdmoe) and not x.is_control]
    return sorted(found, key=lambda loss: loss.damage)


def worth(listed: Sequence[Loss], limit: Loss | None) -> list[Loss]:
    """Choices among those that lose no more than the limit; of all where none does."""
    return choices([x for x in listed if limit is None or x.damage <= limit.damage] or listed)


def _added(quantity: Quantity, loss: Loss) -> Claim:
    return Claim(loss.spoken, quantity, loss.added, {}, loss.evidence())


def _words(best: Sequence[Loss], pair: Pair) -> str:
    """A choice, a trade-off, or TD-MoE itself."""
    text = plain(pair.evaluation.text)
    if len(best) > 1:
        return f"{WORDS} is a trade-off, added loss on {text}"
    if best[0].family == TDMOE:
        return f"{WORDS}, added loss on {text}, nothing does better than TD-MoE"
    return f"{WORDS}, added loss on {text}"


def _after(best: Sequence[Loss], able: Sequence[Loss]) -> str:
    """Meaning of the front, and that nothing is known of errors where that is so."""
    more = f" There are {len(best) - _MOST_CHOICES} more such choices." if len(best) > _MOST_CHOICES else ""
    known = any(difference(loss, able[0]).known for loss in able[1:])
    unknown = "" if known else " No error of these is known."
    return f"Nothing else over the same projections saves more and loses less.{more}{unknown}"


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


def _next(second: Loss, best: Sequence[Loss]) -> str:
    """Name what it is the best of, and whether it is told apart from the choices."""
    own = "TD-MoE at its best" if second.family == TDMOE else "Best of the others"
    who = "Best of decompositions" if best[0].family == RTN else own
    over = [difference(second, loss) for loss in best]
    if any(one.open for one in over):
        return f"{who}, not told apart in loss"
    return who if any(one.known for one in over) else f"{who}, with no known error"


def _wider(pair: Pair, able: Sequence[Loss]) -> Iterator[Claim]:
    """Models that do better than the best decomposition over other projections."""
    ours = min((x.damage for x in able if x.family != RTN), default=inf)
    better = [loss for loss in pair.wider if loss.bits_saved is not None and loss.damage < ours]
    if better:
        found = min(better, key=lambda loss: loss.damage)
        words = f"Better still, over {found.where or 'other projections'}"
        yield _added(Quantity("wider", words, "change"), found)


def _tied(best: Sequence[Loss], able: Sequence[Loss], second: Loss | None) -> Iterator[Claim]:
    """Models not told apart in loss from a choice that are none: the choice stands for it as it saves more bits."""
    for number, choice in enumerate(best, 1):
        alike = {x.spoken: x for x in able if x not in (*best, second) and difference(x, choice).open}
        if not alike:
            continue
        saves = all(x.bits_saved is not None and x.bits_saved < (choice.bits_saved or 0.0) for x in alike.values())
        words = f"Not told apart in loss from {choice.spoken}{', which saves more bits' if saves else ''}"
        more = f"And {len(alike) - _MOST} more." if len(alike) > _MOST else ""
        for loss in list(alike.values())[:_MOST]:
            yield _added(Quantity(f"tied_{number}", words, "change", after=more), loss)


def _elsewhere(found: Sequence[Pair], first: Pair, able: Sequence[Loss]) -> Iterator[Claim]:
    """Tell whether the choices are the same elsewhere, among methods measured in both places with errors."""
    limit = first.best or first.tdmoe
    chosen = {loss.stands_for for loss in worth(able, limit)}
    same, seen = [], {tuple(id(loss) for loss in able)}
    for pair in found:
        if pair.same_as(first) or able[0].stderr is None:
            continue
        shared = [there for loss in able if (there := pair.again(loss)) is not None and there.stderr is not None]
        if chosen <= {loss.stands_for for loss in shared} and len(_families(shared)) > 1:
            key = tuple(id(loss) for loss in shared)
            if key not in seen:
                limited = worth(shared, None if limit is None else pair.again(limit))
                same.append({loss.stands_for for loss in limited} == chosen)
            seen.add(key)
    yield from agreement("alternatives", same)
