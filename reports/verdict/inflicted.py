"""The second sentence: how much of the gap was how TD-MoE was run, by which change, and what that leaves.

What no Tucker decomposition of its ranks can be below is in attribution's section.
"""

from collections.abc import Sequence

from reports.attribution.closed import closed, left, rival, size_of
from reports.formats import percent
from reports.intervals import Estimate, bare, between, with_error
from reports.run import Row, given
from reports.verdict.arenas import Duel
from reports.verdict.loses import beside
from reports.verdict.losses import TDMOE, difference, step_name
from reports.verdict.subjects import Subject

NO_GAP = "no_gap"
_MOST = 0.5  # of the gap, from which on a share is most of it
_OPEN = "How much of it is how TD-MoE was run"


def inflicted(subject: Subject, found: Sequence[Duel]) -> str:
    """From TD-MoE as published to its best, against the whole gap to MoBE."""
    duel = found[0] if found else None
    if duel is None or duel.published is None or duel.mobe is None:
        lacking = "MoBE" if duel is not None and duel.published is not None else "TD-MoE as published"
        return f"{_OPEN}: not measured, for want of {lacking} (attribution measures both)."
    gap = difference(duel.published, duel.mobe)
    if not gap.known and not _told_without_gap(duel):
        return _without_error(subject, duel, gap)
    if gap.below:
        return f"{_OPEN}: there is no gap to divide, as TD-MoE is the better one as published."
    if gap.open or _told_without_gap(duel):
        return (
            f"{_OPEN}: there is no gap to divide; TD-MoE as published and MoBE differ by {gap.text(signed=True)} nats "
            "a token, which cannot be told from nothing."
        )
    if duel.best is None or duel.best is duel.published:
        return (
            f"{_OPEN}: not measured, for want of a TD-MoE that was run otherwise and loses less; the whole gap of "
            f"{gap.text()} nats is an upper bound of what the structure costs."
        )
    shares = duel.shares
    first = shares.first
    if first is None:
        return f"{_OPEN}: not measured, for want of a share of the gap of {gap.text()} nats."
    share = closed(first)
    size = "all" if share.value >= 1 else "most" if share.value >= _MOST else "the lesser part"
    known = share.share(worded=True) if share.known else f"{share.share()} (interval not measured)"
    if shares.second is not None:
        other = percent(closed(shares.second).value)
        known = f"{known} against {rival(first)}, {other} against {rival(shares.second)}"
    remarks = "".join(f"; {remark}" for remark in shares.remarks)
    return (
        f"How TD-MoE was run accounts for {size} of that gap: {known}, with {duel.best.how}{duel.best.consists}"
        f"{remarks}.{_largest(subject, duel)} {_remainder(first)}"
    )


def _without_error(subject: Subject, duel: Duel, gap: Estimate) -> str:
    """The same quotients, which nothing is claimed by."""
    if gap.value <= 0:
        return f"{_OPEN}: there is no gap to divide, as TD-MoE adds no more to the loss as published (no error known)."
    start = f"{_OPEN}: cannot be told without an error of the gap of {bare(gap)} nats"
    if duel.best is None or duel.best is duel.published:
        return f"{start}, and for want of a TD-MoE that was run otherwise and loses less."
    first = duel.shares.first
    run = f"{duel.best.how}{duel.best.consists}"
    told = "an unknown share" if first is None else closed(first).share(worded=True)
    return f"{start}; with {run} TD-MoE closes {told} of it.{_largest(subject, duel)}"


def _told_without_gap(duel: Duel) -> bool:
    return duel.arena.attributed and any(loss.row.get("status") == NO_GAP for loss in duel.others)


def _remainder(first: Row) -> str:
    """What is left, of the same windows and MoBE as the share; nothing where its interval, or the share's, holds 0."""
    share, rest = closed(first), left(first)
    if share.known:
        assert share.low is not None and share.high is not None, "known"
        above, below = share.high < 1, share.low > 1
    elif not rest.known:
        return f"What remains, {bare(rest)} nats, has no known error."
    else:
        above, below = rest.above, rest.below
    if above:
        return f"What remains, {size_of(share, rest)} nats, bounds the structure's cost against this run of MoBE."
    if below:
        size = f"{size_of(share, rest)} nats a token less" if share.known else beside(rest)
        return f"Nothing remains for the structure: at its best TD-MoE loses {size} than MoBE."
    return f"What remains, {size_of(share, rest, signed=True)} nats, cannot be told from nothing."


def _largest(subject: Subject, duel: Duel) -> str:
    """The largest single change: by Shapley value where that is there, otherwise along the ladder."""
    if not duel.arena.attributed:
        return " Which change did it: not measured (attribution does that)."
    tables = dict(subject.tables("attribution_shapley"))
    rows = [row for row in tables.get(duel.arena.run, []) if given(row, "nats")]
    if rows:
        return _by_shapley(max(rows, key=lambda row: float(row["nats"])))
    steps = [loss for loss in duel.others if loss.ladder == TDMOE]
    changes = [(before.damage - loss.damage, loss) for before, loss in zip(steps, steps[1:], strict=False)]
    if not changes:
        return ""
    change, loss = max(changes, key=lambda pair: pair[0])
    nats = with_error(change, loss.row.get("change_nats_stderr"))
    return f" Largest change on the ladder: “{step_name(loss.step)}”, {nats} nats."


def _by_shapley(row: Row) -> str:
    nats = between(row.get("nats_low"), float(row["nats"]), row.get("nats_high")).text()
    name = step_name(str(row.get("text") or row["switch"]))
    return f" Largest change by Shapley value: “{name}”, {nats} nats."
