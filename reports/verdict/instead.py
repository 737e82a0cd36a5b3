"""The fifth sentence: what to do instead, the method with the least loss at no more bits than TD-MoE stores."""

from collections.abc import Sequence

from reports.formats import listing, percent
from reports.intervals import with_error
from reports.verdict.arenas import Duel, again, agreement, projections_in_words, same_comparison
from reports.verdict.losses import RTN, TDMOE, Loss, difference, stores_no_more
from reports.verdict.subjects import plain

_MOST = 2  # that are named as not told apart from the best


def instead(found: Sequence[Duel]) -> str:
    """The best method, those that cannot be told apart from it, and where rounding wins the best decomposition."""
    listed = [duel for duel in found if duel.tdmoe is not None]
    duel = next((one for one in listed if len(_families(_able(one))) > 1), None)
    if not listed:
        return "What to do instead: not measured; there is no TD-MoE whose bits others could be held to."
    if duel is None or duel.tdmoe is None:
        return "What to do instead: not measured; no other method was evaluated at as few bits as TD-MoE stores."
    able = _able(duel)
    best, *rest = able
    what, who = best.spoken, "it"
    if best.family == TDMOE:
        what, who = "nothing that was measured does better than TD-MoE", f"{_name(best)}{best.consists}"
    told = f"{_next(best, rest)}{_wider(duel, best, rest)}.{_ties(best, rest) or _unknown(best, rest)}"
    return (
        f"What to do instead: {what}. Of {_different(able)} models storing no more bits than TD-MoE (within 0.5 %) "
        f"{who} adds least to the loss on {plain(duel.arena.text)}, {_adds(best, ' nats a token')}{told}"
        f"{_elsewhere(found, duel, able)}"
    )


def _different(losses: Sequence[Loss]) -> int:
    """How many are not the same under two names."""
    return len({(loss.damage, loss.bits_saved) for loss in losses})


def _able(duel: Duel) -> list[Loss]:
    """Over the same projections and storing no more than TD-MoE does, the least loss first."""
    assert duel.tdmoe is not None, "asked before"
    own = duel.tdmoe.projections
    able = [x for x in duel.others if not own or x.projections in (own, frozenset())]
    found = [x for x in able if x.bits_saved is not None and stores_no_more(x, duel.tdmoe)]
    return sorted(found, key=lambda loss: loss.damage)


def _families(listed: Sequence[Loss]) -> set[str]:
    return {loss.family for loss in listed}


def _second(best: Loss, rest: Sequence[Loss]) -> Loss | None:
    """Where rounding wins the best decomposition, otherwise the best of TD-MoE or, where that wins, of the others."""
    if best.family == RTN:
        return next((loss for loss in rest if loss.family != RTN and not loss.is_control), None)
    return next((loss for loss in rest if (loss.family == TDMOE) != (best.family == TDMOE)), None)


def _next(best: Loss, rest: Sequence[Loss]) -> str:
    found = _second(best, rest)
    if found is None:
        return ""
    who = {RTN: "of decompositions ", TDMOE: "of the others "}.get(best.family, "")
    over = difference(found, best)
    alike = ", which cannot be told apart" if over.open else ""
    if not over.known and best.stderr is not None:
        alike = ", no error known"
    return f"; {who}{_name(found)}, {_adds(found)}{alike}"


def _wider(duel: Duel, best: Loss, rest: Sequence[Loss]) -> str:
    """What does better than the best decomposition over other projections."""
    ours = min((x for x in (best, *rest) if x.family != RTN and not x.is_control), key=lambda x: x.damage, default=best)
    able = [loss for loss in duel.wider if loss.bits_saved is not None and loss.damage < ours.damage]
    if not able:
        return ""
    found = min(able, key=lambda loss: loss.damage)
    where = projections_in_words(found) or "other projections"
    return f"; over {where} {_name(found)}, {_adds(found)}"


def _ties(best: Loss, rest: Sequence[Loss]) -> str:
    """Others whose difference to the best holds 0, unless one between the two is clearly worse and clearly better."""
    second = _second(best, rest)
    able = [loss for loss in rest if loss is not second and difference(loss, best).open]
    if second is not None and difference(second, best).above:
        able = [loss for loss in able if not difference(loss, second).above]
    alike = list(dict.fromkeys(_name(loss) for loss in able))
    told = alike[:_MOST] + ([f"{len(alike) - _MOST} more"] if len(alike) > _MOST else [])
    return f" Cannot be told apart from it: {listing(told)}." if alike else ""


def _unknown(best: Loss, rest: Sequence[Loss]) -> str:
    """Where no difference to the best has an error."""
    return "" if any(difference(loss, best).known for loss in rest) else " No error of these is known."


def _elsewhere(found: Sequence[Duel], first: Duel, able: Sequence[Loss]) -> str:
    """Whether it is the best elsewhere too, among the methods that were measured in both places with errors."""
    best, same, seen = able[0], [], {tuple(id(loss) for loss in able)}
    for duel in found:
        if same_comparison(duel, first) or best.stderr is None:
            continue
        shared = [there for loss in able if (there := again(duel, loss)) is not None and there.stderr is not None]
        if best.stands_for in {loss.stands_for for loss in shared} and len(_families(shared)) > 1:
            key = tuple(id(loss) for loss in shared)
            if key not in seen:
                same.append(min(shared, key=lambda loss: loss.damage).stands_for == best.stands_for)
            seen.add(key)
    return agreement(same)


def _name(loss: Loss) -> str:
    ours = loss.family == TDMOE and not (loss.is_published or loss.step)
    return f"TD-MoE ({loss.how})" if ours else loss.spoken


def _adds(loss: Loss, unit: str = "") -> str:
    return f"{with_error(loss.damage, loss.stderr, signed=True)}{unit} at {percent(loss.bits_saved)}"
