"""The first sentences: how much of the gap is how TD-MoE was run, and what is left that may be its structure."""

from reports.attribution.closed import closed, left, rival, size_of
from reports.attribution.ladders import Attribution, Step
from reports.formats import EMPTY, fixed, listing, percent
from reports.intervals import Estimate
from reports.run import Row


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
    shares = found.shares
    first = shares.first
    ends = f"a gap of {fixed(found.gap, 3)} nats{_storage(published, reference)}"
    if (refitted := found.refitted) is not None and best.options.get("refit") == "expert":
        wider_gap = fixed(published.damage - refitted.damage, 3)
        ends += f", and MoBE with the refit {refitted.says()}, a gap of {wider_gap} nats"
    if first is None:
        return [
            f"How much of TD-MoE's gap to MoBE is how TD-MoE was run has no number: as published it {adds}, {ends}."
        ]
    amount, against = told(closed(first)), f"TD-MoE's gap to {rival(first).removesuffix(' as it is')}"
    said = f"{amount} of {against} is how TD-MoE was run"
    if best is published:
        said = f"No change that was tried closes any of {against}"
    elif closed(first).value >= 1:
        said = f"All of {against} is how TD-MoE was run, {amount}"
    tail = [f"; {remark}" for remark in shares.remarks]
    if shares.second is not None:
        tail.append(f"; of the gap to {rival(shares.second)}, {told(closed(shares.second), worded=False)}")
    whole = f"{said}: as published it {adds}, {ends}{_end(published, best)}{''.join(tail)}."
    return [whole, *_left(first), *_wider(found, reference)]


def told(share: Estimate, *, worded: bool = True) -> str:
    """A share in per cent; without an interval where it is known by definition."""
    return percent(share.value) if share.low == share.high else share.share(worded=worded)


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


def _left(first: Row) -> list[str]:
    """What no change closed: an upper bound of what is structural."""
    share, rest = closed(first), left(first)
    said = told(Estimate(1.0).less(share), worded=False).replace("%", "% of that gap", 1)
    size = size_of(share, rest)
    if share.low is not None and share.high is not None and share.low < 1 <= share.high:
        text = f"What is left, {said}, cannot be told from nothing: none of it has to be structural."
    elif share.value >= 1:
        text = f"Nothing is left of the gap: TD-MoE is ahead of MoBE by {size} nats."
    else:
        text = (
            f"What is left, {said}, {size} nats, bounds from above what is structural, against this run of MoBE: "
            "changes that were not tried may close more."
        )
    return [text]


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
