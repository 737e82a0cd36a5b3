"""The second sentence: how much of the gap was how TD-MoE was run, by which change, and what that leaves.

What no Tucker decomposition of its ranks can be below is in attribution's section.
"""

from collections.abc import Sequence

from reports.formats import fixed
from reports.run import Row, given
from reports.verdict.arenas import Duel
from reports.intervals import Estimate, bare, between, with_error
from reports.verdict.loses import beside
from reports.verdict.losses import COMBINATION, TDMOE, difference, step_name
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
    share = _share(duel, gap)
    size = "all" if share.value >= 1 else "most" if share.value >= _MOST else "the lesser part"
    known = share.share(worded=True) if share.known else f"{share.share()} (interval not measured)"
    return (
        f"How TD-MoE was run accounts for {size} of that gap: {known}, with {duel.best.how}{duel.best.consists}."
        f"{_largest(subject, duel)} {_remainder(duel, gap, share)}"
    )


def _without_error(subject: Subject, duel: Duel, gap: Estimate) -> str:
    """The same quotients, which nothing is claimed by."""
    if gap.value <= 0:
        return f"{_OPEN}: there is no gap to divide, as TD-MoE adds no more to the loss as published (no error known)."
    start = f"{_OPEN}: cannot be told without an error of the gap of {bare(gap)} nats"
    if duel.best is None or duel.best is duel.published:
        return f"{start}, and for want of a TD-MoE that was run otherwise and loses less."
    closed = _share(duel, gap).share(worded=True)
    run = f"{duel.best.how}{duel.best.consists}"
    return f"{start}; with {run} TD-MoE closes {closed} of it.{_largest(subject, duel)}"


def _told_without_gap(duel: Duel) -> bool:
    return duel.arena.attributed and any(loss.row.get("status") == NO_GAP for loss in duel.others)


def _share(duel: Duel, gap: Estimate) -> Estimate:
    """Closed by the best run: attribution's bootstrap where it is there, otherwise the quotient alone."""
    assert duel.best is not None and duel.published is not None, "asked before"
    row = duel.best.row
    if given(row, "gap_closed"):
        return between(row.get("gap_low"), float(row["gap_closed"]), row.get("gap_high"))
    return Estimate((duel.published.damage - duel.best.damage) / gap.value)


def _remainder(duel: Duel, gap: Estimate, share: Estimate) -> str:
    """Of the share where that has an interval, which is then the only one that is given of it."""
    assert duel.best is not None and duel.mobe is not None, "asked before"
    left = difference(duel.best, duel.mobe)
    chosen = duel.best.ladder == COMBINATION and share.known  # the share is of other windows than its loss
    if share.low is not None and share.high is not None:
        above, below = share.high < 1, share.low > 1
        left = Estimate((1 - share.value) * gap.value if chosen else left.value)
        said = fixed(left.value, left.places, signed=not above)
    elif not left.known:
        return f"What remains, {bare(left)} nats, has no known error."
    else:
        above, below = left.above, left.below
        said = bare(left, signed=not above)
    where = " on windows that it was not chosen on" if chosen else ""
    if above:
        return f"What remains, {said} nats{where}, bounds the structure's cost against this run of MoBE."
    if below:
        return f"Nothing remains for the structure: at its best TD-MoE loses {beside(left)} than MoBE."
    return f"What remains, {said} nats{where}, cannot be told from nothing."


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
