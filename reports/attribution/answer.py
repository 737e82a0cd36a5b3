"""The answer in plain words, computed from the rows: nothing is said that a number does not support."""

from reports.attribution.effects import effects, order
from reports.attribution.ladders import Attribution, Step, share
from reports.attribution.origins import floor, origin, predictors, rounding
from reports.formats import fixed, listing, percent

_NOTHING = "No step of TD-MoE was measured, so this run answers nothing yet."


def answer(found: Attribution) -> list[str]:
    """Sentences for the top of the page, the most important first."""
    if found.best is None:
        return [sentence for sentence in (_NOTHING, rounding(found), _coverage(found)) if sentence]
    said = [*_verdict(found), *effects(found), order(found), floor(found), origin(found), rounding(found)]
    said += [predictors(found), _coverage(found)]
    return [sentence for sentence in said if sentence]


def _verdict(found: Attribution) -> list[str]:
    """How much was self-inflicted, and what is left."""
    published, best, reference = found.published, found.best, found.reference
    assert best is not None, "asked before"
    done = f"“{best.name}” adds {best.says()} nats"
    if published is None:
        why = found.tdmoe[0].reason if found.tdmoe else "not measured"
        return [f"TD-MoE as published was not measured ({why}), so no share of its gap is known; {done}."]
    start = f"TD-MoE as published adds {published.says()} nats a token to the dense model's loss"
    removed = published.damage - best.damage
    instead = (
        "and no change to it was found that helps"
        if best is published
        else f"with {done}, {percent(removed / published.damage)} less"
        if published.damage > 0
        else f"{done}"
    )
    if reference is None:
        why = "; ".join(f"{step.preset}: {step.reason}" for step in found.presets)
        return [
            f"{start}, {instead}. MoBE was not measured{f' ({why})' if why else ''}, so its gap to MoBE is not known."
        ]
    against = f"{start}, MoBE ({reference.preset}) {reference.says()}"
    if found.gap is None:
        reason = "cannot be told from 0" if found.without_gap else "was not measured"
        return [f"{against}: the difference {reason}, so there is no gap to explain. {_sentence(instead)}."]
    said = [
        f"{against}{_storage(published, reference)}: a gap of {fixed(found.gap, 3)} nats. {_closing(best, published)}"
    ]
    return [*said, *_left(found, best, reference)]


def _storage(published: Step, reference: Step) -> str:
    ours, theirs = published.value("bits_saved"), reference.value("bits_saved")
    return "" if ours is None or theirs is None else f" (bits saved {percent(ours)} and {percent(theirs)})"


def _closing(best: Step, published: Step) -> str:
    if best is published:
        return "No change to how TD-MoE is run was found that closes any of it."
    return f"How TD-MoE is run accounts for {_share(best)} of it: with “{best.name}” it adds {best.says()} nats."


def _share(step: Step) -> str:
    said = step.closed()
    return said.replace("(", "(95 % interval ", 1)


def _left(found: Attribution, best: Step, reference: Step) -> list[str]:
    """What no change closed: an upper bound of what is structural; and the same over MoBE's projections alone."""
    left = dict(best.row)
    closed, low, high = (best.value(column) for column in ("gap_closed", "gap_low", "gap_high"))
    if closed is None:
        return []
    left |= {
        "left": 1 - closed,
        "left_low": None if high is None else 1 - high,
        "left_high": None if low is None else 1 - low,
    }
    said = share(left, "left", "left_low", "left_high")
    nats = fixed(best.damage - reference.damage, 3)
    if high is not None and high >= 1 and low is not None and low < 1:
        text = f"What is left, {said} of the gap, cannot be told from nothing: no part of it has to be structural."
    elif closed >= 1:
        text = (
            f"Nothing is left of the gap: TD-MoE is ahead of MoBE by {fixed(reference.damage - best.damage, 3)} nats."
        )
    else:
        text = (
            f"At most {said} of the gap, {nats} nats, is structural: an upper bound, since changes that were not tried "
            "may close more."
        )
    alike = min(found.like(reference), key=lambda step: step.damage, default=None)
    if alike is not None and alike is not best:
        over = str(reference.row.get("projections") or "").replace(",", ", ")
        text += (
            f" That step compresses {str(best.row.get('projections') or '').replace(',', ', ')}; over {over} alone, as "
            f"MoBE, the best is “{alike.name}” with {_share(alike)} and {alike.says()} nats."
        )
    return [text]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _coverage(found: Attribution) -> str:
    """On what, and what is missing."""
    row = next((step.row for step in found.everything if step.row.get("windows") is not None), None)
    said = []
    if row is not None:
        tokens = f", {int(row['tokens']):,} scored tokens" if row.get("tokens") is not None else ""
        said.append(f"Measured on {int(row['windows'])} windows of {row.get('text') or 'a held-out text'}{tokens}.")
    missing = [
        f"{step.name} ({step.reason})" if step.reason != "not measured" else step.name
        for step in found.everything
        if not step.measured and step.method != "dense"
    ]
    if missing:
        said.append(f"Not measured: {listing(missing)}.")
    for rows, what in ((found.switches, "Shapley values"), (found.predictors, "which error predicts the loss")):
        if not rows:
            said.append(f"Not measured: {what}.")
    return " ".join(said)
