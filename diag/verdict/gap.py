"""Does TD-MoE lose to MoBE at the same bits, and how much of the gap is how it was run.

Words follow from intervals alone: a difference is above 0, below it, cannot be told from it, or has no interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diag.declare.claim import Claim, Estimate, Evidence, Quantity, between
from diag.verdict.agreement import agreement
from diag.verdict.evaluations import Pair
from diag.verdict.loss import NATS, TDMOE, TOLERANCE, Loss, difference, step_name, with_error
from diag.verdict.shares import Share
from diag.verdict.subjects import Subject, clause, has, number, plain
from reports.formats import percent

STORED_MORE = Quantity("stored_more", "Bits that TD-MoE stores beyond MoBE's", "percent")
ADDED = Quantity("added_loss", "Added to the loss", "change")
WHETHER, OPEN = "Whether TD-MoE loses to MoBE", "How much of it is how TD-MoE was run"
CHANGE = "Largest change by Shapley value", "Largest change on the ladder", "Which change did it"
_MOST_SAID = 50  # characters of a headline about how TD-MoE was run
_MOST = 0.5  # of the gap, from which on a share is most of it
_ALONE = {"above": "{} loses to MoBE", "below": "{} beats MoBE", "open": "{} and MoBE cannot be told apart"}
_BOTH = {
    ("above", "above"): "TD-MoE as published loses to MoBE, and still does at its best",
    ("above", "open"): "TD-MoE as published loses to MoBE, but at its best they cannot be told apart",
    ("above", "below"): "TD-MoE as published loses to MoBE, and beats it at its best",
    ("open", "below"): "TD-MoE as published and MoBE cannot be told apart, and at its best TD-MoE beats it",
    ("open", ""): "TD-MoE and MoBE cannot be told apart, as published and at its best",
    ("below", ""): "TD-MoE beats MoBE, as published and at its best",
}
_REMAINS = {
    "above": "What remains bounds the structure's cost against this run of MoBE",
    "below": "Nothing remains for the structure, as TD-MoE at its best loses less than MoBE by",
    "open": "What remains cannot be told from nothing",
    "": "What remains has no known error",
}


def gap_claims(found: Sequence[Pair]) -> Iterator[Claim]:
    """The difference as published and at its best, or who is missing; what they store; the same elsewhere."""
    pair = found[0] if found else None
    if pair is None or (pair.tdmoe is None and pair.mobe is None):
        yield _reason("gap", WHETHER, "neither was evaluated (quality and attribution do that)")
        return
    if pair.over is None or pair.tdmoe is None or pair.mobe is None:
        there = pair.tdmoe or pair.mobe
        assert there is not None, "one of them is"
        yield _reason("gap", WHETHER, f"for want of {'MoBE' if pair.tdmoe else 'TD-MoE'}")
        yield Claim(there.spoken, _after(ADDED, _circumstances(pair, there)), there.added, {}, there.evidence())
        return
    quantity = Quantity("gap", _headline(pair), "change", after=_circumstances(pair, pair.mobe))
    runs = [(_who(pair), pair.tdmoe, pair.over)]
    if (least := pair.best_over) is not None and pair.best is not None:
        runs.append(("at its best", pair.best, least))
    for who, loss, over in runs:
        estimate = Estimate(over.value, over.low, over.high, NATS)
        yield Claim(who, quantity, estimate, {}, loss.evidence(rows=2))
    for who, loss, _ in runs:
        more = None if loss.stored is None or not pair.mobe.stored else loss.stored / pair.mobe.stored - 1
        if more is not None and abs(more) > TOLERANCE:
            yield Claim(who, STORED_MORE, Estimate(more), {}, loss.evidence("bits_saved", 2))
    yield from _elsewhere(found, pair)


def share_claims(subject: Subject, found: Sequence[Pair]) -> Iterator[Claim]:
    """Share of the gap to MoBE that TD-MoE, as published to its best, closes; by which change, and what that leaves."""
    pair = found[0] if found else None
    if pair is None or pair.published is None or pair.mobe is None:
        lacking = "MoBE" if pair is not None and pair.published is not None else "TD-MoE as published"
        yield _reason("share", OPEN, f"for want of {lacking} (attribution measures both)")
        return
    gap = difference(pair.published, pair.mobe)
    better = pair.best is not None and pair.best is not pair.published
    if gap.below or (not gap.known and not pair.without_gap and (gap.value or 0.0) <= 0):
        known = "" if gap.known else ", with no known error"
        words = f"There is no gap to divide, as TD-MoE as published is the better one{known}"
        yield _gap("no_gap", words, pair.published, gap)
    elif gap.open or pair.without_gap:
        words = "There is no gap to divide, as published TD-MoE and MoBE cannot be told apart"
        yield _gap("no_gap", words, pair.published, gap)
    elif not better:
        lacking = "for want of a TD-MoE that was run otherwise and loses less"
        yield _reason("share", OPEN, lacking)
        if gap.known:
            yield _gap("remainder", _REMAINS["above"], pair.published, gap)
    elif not pair.shares.told:
        yield _reason("share", OPEN, "for want of a share of the gap")
    else:
        yield from _divided(subject, pair, gap)


def _divided(subject: Subject, pair: Pair, gap: Estimate) -> Iterator[Claim]:
    """Share, largest change and remainder."""
    assert pair.best is not None, "asked before"
    told = pair.shares.told
    first = told[0].closed.value or 0.0
    size = "all" if first >= 1 else "most" if first >= _MOST else "the lesser part"
    words = f"How TD-MoE was run accounts for {size} of that gap" if gap.known else (
        f"{OPEN} cannot be told without an error of the gap"
    )  # fmt: skip
    remarks = "; ".join([f"With {pair.best.how}{pair.best.consists}", *pair.shares.remarks])
    quantity = Quantity("share", words, "percent", after=f"{remarks}.")
    table = "attribution_shares" if pair.evaluation.shares.found else pair.best.evidence().table
    for share in told:
        yield Claim(f"against {share.rival}", quantity, share.closed, {}, Evidence(table, "gap_closed", 1))
    yield from _largest(subject, pair)
    if gap.known:
        yield _remainder(told[0], Evidence(table, "left_nats", 1))


def _remainder(first: Share, evidence: Evidence) -> Claim:
    """Nats that are left, of the same windows and MoBE as the share, whose interval alone decides where there is one.

    Two intervals of one thing would contradict each other: then the remainder has none.
    """
    share, rest = first.closed, first.left
    standing = _sign(rest)
    if share.low is not None and share.high is not None:
        standing = "above" if share.high < 1 else "below" if share.low > 1 else "open"
        rest = Estimate(rest.value)
    shown = rest.turned if standing == "below" else rest
    quantity = Quantity("remainder", _REMAINS[standing], "change" if standing == "open" else "loss")
    return Claim("", quantity, Estimate(shown.value, shown.low, shown.high, "nats"), {}, evidence)


def _largest(subject: Subject, pair: Pair) -> Iterator[Claim]:
    """The largest single change: by Shapley value where that is there, otherwise along the ladder."""
    if not pair.evaluation.attributed:
        yield _reason("largest_change", CHANGE[2], "attribution does that")
        return
    rows = [r for r in dict(subject.tables("attribution_shapley")).get(pair.evaluation.run, []) if has(r, "nats")]
    if rows:
        row = max(rows, key=lambda row: float(row["nats"]))
        estimate = between(number(row, "nats_low"), float(row["nats"]), number(row, "nats_high"), "nats")
        name = step_name(str(row.get("text") or row["switch"]))
        evidence = Evidence("attribution_shapley", "nats", len(rows), {"switch": row.get("switch")})
        yield Claim(f"“{name}”", Quantity("largest_change", CHANGE[0], "loss"), estimate, {}, evidence)
        return
    steps = [loss for loss in pair.others if loss.ladder == TDMOE]
    changes = [(before.damage - loss.damage, loss) for before, loss in zip(steps, steps[1:], strict=False)]
    if changes:
        change, loss = max(changes, key=lambda found: found[0])
        found = with_error(change, number(loss.row, "change_nats_stderr"))
        estimate = Estimate(found.value, found.low, found.high, "nats")
        quantity = Quantity("largest_change", CHANGE[1], "loss")
        yield Claim(f"“{step_name(loss.step)}”", quantity, estimate, {}, loss.evidence("change_nats", len(steps)))


def _headline(pair: Pair) -> str:
    """Follow the signs of the differences whose intervals leave out 0; nothing is claimed where no error is known."""
    assert pair.over is not None, "complete"
    standing, least = _sign(pair.over), pair.best_over
    if not standing:
        return f"{WHETHER} cannot be told without an error"
    if pair.published is None:
        return _ALONE[standing].format(f"TD-MoE {_who(pair)}")
    if least is None:
        return _ALONE[standing].format("TD-MoE as published")
    if not least.known:
        return _ALONE[standing].format("TD-MoE as published") + ", at its best without a known error"
    return _BOTH.get((standing, _sign(least))) or _BOTH[standing, ""]


def _sign(one: Estimate) -> str:
    """Position of its interval to 0; nothing where it has none."""
    return "above" if one.above else "below" if one.below else "open" if one.open else ""


def _who(pair: Pair) -> str:
    """Name of the run of TD-MoE that the first number is of."""
    if pair.published is not None or pair.tdmoe is None:
        return "as published"
    return clause(f"with {pair.tdmoe.how}", _MOST_SAID)


def _circumstances(pair: Pair, loss: Loss) -> str:
    """A sentence as `On wikitext2, 40 % of gate and up of layers 0-3 removed, 25.0 % of bits saved.`"""
    alone = " (1 window)" if pair.evaluation.windows == 1 else ""
    than = "" if loss.family != "mobe" or loss.title == "MoBE" else f"Against {loss.title}, o"
    saved = "an unknown share" if loss.bits_saved is None else percent(loss.bits_saved)
    said = f"{than or 'O'}n {plain(pair.evaluation.text)}{alone}, {pair.what}, {saved} of bits saved."
    switches = pair.tdmoe.consists if pair.tdmoe is not None and pair.published is None else ""
    return said + (f" TD-MoE's switches: {switches.strip(' ()')}." if switches else "")


def _elsewhere(found: Sequence[Pair], first: Pair) -> Iterator[Claim]:
    """Tell whether the same two stand alike in other comparisons, as far as errors are known."""
    assert first.tdmoe is not None and first.mobe is not None and first.over is not None, "complete"
    if not first.over.known:
        return
    again = {
        (id(ours), id(theirs)): difference(ours, theirs)
        for pair in found[1:]
        if not pair.same_as(first)
        and (ours := pair.again(first.tdmoe)) is not None
        and (theirs := pair.again(first.mobe)) is not None
    }
    again.pop((id(first.tdmoe), id(first.mobe)), None)
    yield from agreement("gap", [_told(over) == _told(first.over) for over in again.values() if over.known])


def _told(over: Estimate) -> int:
    return over.above - over.below


def _gap(name: str, words: str, published: Loss, gap: Estimate) -> Claim:
    form = "loss" if name == "remainder" else "change"
    estimate = Estimate(gap.value, gap.low, gap.high, NATS)
    return Claim("", Quantity(name, words, form), estimate, {}, published.evidence(rows=2))


def _reason(name: str, words: str, why: str) -> Claim:
    """Not measured, and why."""
    return Claim(why, Quantity(name, words), Estimate(None))


def _after(quantity: Quantity, text: str) -> Quantity:
    return Quantity(quantity.name, quantity.words, quantity.form, quantity.pattern, text)
