"""The fifth sentence: what to do instead, the method with the least loss at no more bits than TD-MoE stores."""

from collections.abc import Sequence

from reports.formats import listing, percent
from reports.verdict.intervals import with_error
from reports.verdict.losses import RTN, TDMOE, Duel, Loss, difference, stores_no_more, words_of
from reports.verdict.subjects import plain


def instead(found: Sequence[Duel]) -> str:
    """In numbers: the best method, those that cannot be told apart from it, and the best decomposition."""
    duel = next((one for one in found if one.tdmoe is not None), None)
    if duel is None or duel.tdmoe is None:
        return "What to do instead: not measured; there is no TD-MoE whose bits others could be held to."
    limit = duel.tdmoe
    able = [loss for loss in duel.others if stores_no_more(loss, limit) and loss.bits_saved is not None]
    others = [loss for loss in able if loss.family != TDMOE]
    if limit.bits_saved is None or not others:
        return "What to do instead: not measured; no other method was evaluated at as few bits as TD-MoE stores."
    best = min(able, key=lambda loss: loss.damage)
    where = f"On {plain(duel.arena.text)}, among {len(able)} that save at least {percent(limit.bits_saved)} of the bits"
    if best.family == TDMOE:
        second = min(others, key=lambda loss: loss.damage)
        return (
            f"What to do instead: nothing that was measured is better. {where}, TD-MoE ({best.how}) adds least, "
            f"{_adds(best)}; next is {_said(second)}.{_ties(best, able)}"
        )
    beside = f"{limit.title} adds {_adds(limit)}" if limit is best else f"TD-MoE {_which(duel)} adds {_adds(limit)}"
    return (
        f"What to do instead: {best.title}. {where} ({words_of(duel)}, or a storage of their own), it adds least: "
        f"{_adds(best)}; {beside}.{_ties(best, able)}{_decomposition(best, able)}"
    )


def _which(duel: Duel) -> str:
    return "as published" if duel.published is not None else "at its best"


def _ties(best: Loss, able: Sequence[Loss]) -> str:
    """Those whose difference to the best holds 0."""
    alike = [loss.title for loss in able if loss is not best and difference(loss, best).open]
    if not alike:
        return ""
    return f" {listing(list(dict.fromkeys(alike)))} cannot be told apart from it."


def _decomposition(best: Loss, able: Sequence[Loss]) -> str:
    """Where rounding wins, what wins among the rest."""
    rest = [loss for loss in able if loss.family != RTN and not loss.is_control]
    if best.family != RTN or not rest:
        return ""
    return f" Among decompositions it is {_said(min(rest, key=lambda loss: loss.damage))}."


def _said(loss: Loss) -> str:
    name = f"TD-MoE ({loss.how})" if loss.family == TDMOE else loss.title
    return f"{name}, with {_adds(loss)}"


def _adds(loss: Loss) -> str:
    saved = "" if loss.bits_saved is None else f" at {percent(loss.bits_saved)} saved"
    return f"{with_error(loss.damage, loss.stderr, signed=True)} nats a token{saved}"
