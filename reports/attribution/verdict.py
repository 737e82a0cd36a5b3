"""The first sentences: how much of the gap is how TD-MoE was run, and what is left that may be its structure."""

from reports.attribution.ladders import Attribution, Step, share
from reports.formats import EMPTY, fixed, listing, percent


def verdict(found: Attribution) -> list[str]:
    """With at least one step of TD-MoE measured."""
    published, best, reference = found.published, found.best, found.reference
    assert best is not None, "asked before"
    if published is None:
        why = found.tdmoe[0].reason
        return [
            f"TD-MoE as published was not measured ({why}), so no share of its gap is known; “{best.name}” adds "
            f"{best.says()} nats a token to the dense model's loss."
        ]
    adds = f"adds {published.says()} nats a token to the dense model's loss"
    if reference is None:
        why = listing([f"{step.preset}: {step.reason}" for step in found.presets])
        return [
            f"{_without_gap(published, best)}: as published it {adds}{_end(published, best)}. MoBE was not measured"
            f"{f' ({why})' if why else ''}, so the gap to it is not known."
        ]
    adds += f", MoBE ({reference.preset}) {reference.says()}"
    if found.gap is None:
        return [
            f"There is no gap to MoBE to explain: as published TD-MoE {adds}, a difference that "
            f"{'cannot be told from 0' if found.without_gap else 'has no interval'}{_end(published, best)}."
        ]
    closed = f"{_share(best)} of TD-MoE's gap to MoBE is how TD-MoE was run"
    if best is published:
        closed = "No change that was tried closes any of TD-MoE's gap to MoBE"
    elif (best.value("gap_closed") or 0.0) >= 1:
        closed = f"All of TD-MoE's gap to MoBE is how TD-MoE was run, {_share(best)}"
    ends = f"a gap of {fixed(found.gap, 3)} nats{_storage(published, reference)}"
    return [f"{closed}: as published it {adds}, {ends}{_end(published, best)}.", *_left(found, best, reference)]


def _without_gap(published: Step, best: Step) -> str:
    if best is published or published.damage <= 0:
        return "No change that was tried helps TD-MoE"
    return f"{percent(1 - best.damage / published.damage)} of what TD-MoE adds to the loss is how it was run"


def _end(published: Step, best: Step) -> str:
    return "" if best is published else f"; with “{best.name}” it adds {best.says()}"


def _storage(published: Step, reference: Step) -> str:
    ours, theirs = (percent(step.value("bits_saved")) for step in (published, reference))
    if EMPTY in (ours, theirs):
        return ""
    return f" with {ours} of the bits saved" if ours == theirs else f" (bits saved: {ours} and {theirs})"


def _share(step: Step) -> str:
    return step.closed().replace("(", "(95 % interval ", 1)


def _left(found: Attribution, best: Step, reference: Step) -> list[str]:
    """What no change closed: an upper bound of what is structural; and the same over MoBE's projections alone."""
    closed, low, high = (best.value(column) for column in ("gap_closed", "gap_low", "gap_high"))
    if closed is None:
        return []
    ends = {"low": None if high is None else 1 - high, "high": None if low is None else 1 - low}
    said = share({"left": 1 - closed, **ends}, "left", "low", "high", of=" of the gap")
    ahead = reference.damage - best.damage
    if low is not None and high is not None and low < 1 <= high:
        text = f"What is left, {said}, cannot be told from nothing: none of it has to be structural."
    elif closed >= 1:
        text = f"Nothing is left of the gap: TD-MoE is ahead of MoBE by {fixed(ahead, 3)} nats."
    else:
        text = (
            f"What is left, {said}, {fixed(-ahead, 3)} nats, bounds from above what is structural, against this run of "
            "MoBE: changes that were not tried may close more."
        )
    return [text, *_refitted(found, best), *_wider(found, reference)]


def _refitted(found: Attribution, best: Step) -> list[str]:
    """Where TD-MoE's best step has a refit, MoBE with the same one."""
    rival = found.refitted
    if rival is None or best.options.get("refit") != "expert":
        return []
    left = best.damage - rival.damage
    return [f"With the same refit MoBE adds {rival.says()} nats, {_beside(left, best, rival)}."]


def _beside(left: float, best: Step, rival: Step) -> str:
    """TD-MoE's loss less MoBE's; its interval is between the ends of both to one reference, so no narrower."""
    lows, highs = ([step.value(f"mobe_difference_{end}") for step in (best, rival)] for end in ("low", "high"))
    than = f"{'less' if left >= 0 else 'more'} than TD-MoE"
    if None in (*lows, *highs):
        return f"{fixed(abs(left), 3)} {than} (interval not measured)"
    low, high = float(lows[0] or 0.0) - float(highs[1] or 0.0), float(highs[0] or 0.0) - float(lows[1] or 0.0)
    if low <= 0 <= high:
        return f"which cannot be told apart from TD-MoE (it adds {fixed(-low, 3)} less to {fixed(high, 3)} more)"
    near, far = sorted((abs(low), abs(high)))
    return f"{fixed(abs(left), 3)} ({fixed(near, 3)} to {fixed(far, 3)}) {than}"


def _wider(found: Attribution, reference: Step) -> list[str]:
    """Where a budget shared with other projections does better, beside MoBE over the same ones."""
    wider = found.wider
    if wider is None:
        return []
    rivals = [s for s in found.mobe if s.measured and s.row.get("projections") == wider.row.get("projections")]
    rival = min(rivals, key=lambda step: step.damage, default=None)
    theirs = f"MoBE “{rival.name}” {rival.says()}" if rival is not None else "MoBE over these was not measured"
    return [
        f"All of this is over {_projections(reference)}. With as many bits saved over {_projections(wider)}, TD-MoE "
        f"“{wider.name}” adds {wider.says()} nats, {theirs}."
    ]


def _projections(step: Step) -> str:
    return listing(str(step.row.get("projections") or "unknown projections").split(","))
