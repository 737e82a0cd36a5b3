"""The first two sentences: does TD-MoE lose to MoBE, and how much of that is how it was run."""

from collections.abc import Sequence

from reports.formats import fixed, percent
from reports.run import MODES, Row, given
from reports.verdict.intervals import Estimate, between, with_error
from reports.verdict.losses import TDMOE, TOLERANCE, Duel, Loss, difference, words_of
from reports.verdict.subjects import Subject, plain

NO_GAP = "no_gap"


def loses(found: Sequence[Duel]) -> str:
    """Does TD-MoE lose to MoBE at the same bits, as published and at its best."""
    duel = found[0] if found else None
    if duel is None or duel.tdmoe is None and duel.mobe is None:
        return "Whether TD-MoE loses to MoBE: not measured; neither was evaluated (quality and attribution do that)."
    if duel.mobe is None or duel.tdmoe is None:
        there, lacking = (duel.tdmoe, "MoBE") if duel.tdmoe is not None else (duel.mobe, "TD-MoE")
        assert there is not None, "one of them is"
        return (
            f"Whether TD-MoE loses to MoBE: not measured, for want of {lacking}; {there.title} adds "
            f"{with_error(there.damage, there.stderr, signed=True)} nats a token to the loss on {plain(duel.arena.text)} "
            f"{words_of(duel)}, {_saves(there)}."
        )
    return f"{_headline(duel)}: {_numbers(duel)}.{_elsewhere(found)}"


def _headline(duel: Duel) -> str:
    ours, mobe = duel.tdmoe, duel.mobe
    assert ours is not None and mobe is not None, "asked before"
    over, least = difference(ours, mobe), _best_over(duel)
    if duel.published is None:
        if not over.open:
            return "TD-MoE loses to MoBE on this model" if over.above else "TD-MoE beats MoBE on this model"
        return "TD-MoE and MoBE cannot be told apart on this model"
    if least is None:
        if not over.open:
            return f"TD-MoE as published {'loses to' if over.above else 'beats'} MoBE on this model"
        return "TD-MoE as published and MoBE cannot be told apart on this model"
    if over.above:
        ends = {"above": "and still does at its best", "below": "and beats it at its best"}
        tail = ends.get(_sign(least), "but at its best the two cannot be told apart")
        return f"TD-MoE as published loses to MoBE on this model, {tail}"
    if over.below:
        return "TD-MoE beats MoBE on this model even as published"
    if least.below:
        return "TD-MoE as published and MoBE cannot be told apart on this model, and at its best TD-MoE beats it"
    return "TD-MoE and MoBE cannot be told apart on this model"


def _sign(found: Estimate) -> str:
    return "above" if found.above else "below" if found.below else "open"


def _best_over(duel: Duel) -> Estimate | None:
    """Of TD-MoE at its best, if that is another than as published."""
    if duel.best is None or duel.mobe is None or duel.published is None or duel.best is duel.published:
        return None
    return difference(duel.best, duel.mobe)


def _numbers(duel: Duel) -> str:
    ours, mobe = duel.tdmoe, duel.mobe
    assert ours is not None and mobe is not None, "asked before"
    over, least = difference(ours, mobe), _best_over(duel)
    which = "as published" if duel.published is not None else f"({ours.how}; as published it was not measured)"
    said = (
        f"on {plain(duel.arena.text)}, {words_of(duel)}, the loss of TD-MoE {which} is {_beside(over, worded=True)} "
        f"that of {mobe.title}"
    )
    saved = [_percent(ours)]
    if least is not None:
        assert duel.best is not None, "it is that one's"
        said += f", and at its best ({duel.best.how}) {_beside(least)}"
        saved.append(_percent(duel.best))
    return f"{said}; bits saved {' and '.join(saved)} against {_percent(mobe)}{_unmatched(ours, mobe)}"


def _beside(over: Estimate, *, worded: bool = False) -> str:
    """`0.27 (95 % interval 0.21 to 0.32) nats a token above`."""
    turned = over.value < 0
    shown = over
    if turned:
        shown = Estimate(-over.value, *(None if end is None else -end for end in (over.high, over.low)))
    unit = " nats a token" if worded else ""
    return f"{shown.text(worded=worded)}{unit} {'below' if turned else 'above'}"


def _unmatched(ours: Loss, mobe: Loss) -> str:
    """A remark where the two do not store the same."""
    if ours.stored is None or mobe.stored is None or ours.stored <= 0:
        return ""
    more = mobe.stored / ours.stored - 1
    if abs(more) <= TOLERANCE:
        return ""
    return f" (not matched: MoBE stores {percent(abs(more))} {'more' if more > 0 else 'fewer'} bits)"


def _elsewhere(found: Sequence[Duel]) -> str:
    """Whether the other texts, ratios and sets of layers agree, run for run."""
    first = _sign(_over(found[0]))
    others = [duel for duel in found[1:] if duel.complete]
    if not others:
        return ""
    same = sum(_sign(_over(duel)) == first for duel in others)
    many = len(others)
    what = "the other comparison" if many == 1 else f"the {many} other comparisons"
    return f" Of {what} (texts, ratios, sets of layers, runs) {same} {'says' if same == 1 else 'say'} the same."


def _over(duel: Duel) -> Estimate:
    assert duel.tdmoe is not None and duel.mobe is not None, "complete"
    return difference(duel.tdmoe, duel.mobe)


def _saves(loss: Loss) -> str:
    return f"saving {_percent(loss)} of the bits"


def _percent(loss: Loss) -> str:
    return "an unknown share" if loss.bits_saved is None else percent(loss.bits_saved)


def self_inflicted(subject: Subject, found: Sequence[Duel]) -> str:
    """How much of the gap was how TD-MoE was run, by what, and what is left for the structure."""
    duel = found[0] if found else None
    what = "How much of it is how TD-MoE was run"
    if duel is None or duel.published is None or duel.mobe is None:
        lacking = "MoBE" if duel is not None and duel.published is not None else "TD-MoE as published"
        return f"{what}: not measured, for want of {lacking} (attribution measures it).{_floor(duel)}"
    gap = difference(duel.published, duel.mobe)
    if duel.arena.attributed and any(loss.row.get("status") == NO_GAP for loss in duel.others) or gap.open:
        return (
            f"{what}: there is no gap to divide; TD-MoE as published and MoBE differ by {gap.text(signed=True)} nats a "
            f"token.{_floor(duel)}"
        )
    if gap.below:
        return f"{what}: there is no gap to divide, as TD-MoE as published is the better one.{_floor(duel)}"
    if duel.best is None or duel.best is duel.published:
        return (
            f"{what}: not measured; no TD-MoE that was run otherwise loses less than the published one, so all of the "
            f"gap of {gap.text()} nats is left as an upper bound of what is structural.{_floor(duel)}"
        )
    share = _share(duel, gap)
    closed = difference(duel.published, duel.best)
    size = "all" if share.value >= 1 else "most" if share.value >= 0.5 else "the lesser part"
    known = f"{share.share(worded=True)} of it" if share.known else f"{share.share()} of it (interval not measured)"
    return (
        f"How TD-MoE was run is {size} of that gap: run at its best it loses {closed.text(worded=True)} nats less than "
        f"as published, which closes {known}.{_largest(subject, duel)} {_remainder(duel)}{_floor(duel)}"
    )


def _share(duel: Duel, gap: Estimate) -> Estimate:
    """Closed by the best run: attribution's bootstrap where it is there, otherwise the quotient alone."""
    assert duel.best is not None and duel.published is not None, "asked before"
    row = duel.best.row
    if given(row, "gap_closed"):
        return between(row.get("gap_low"), float(row["gap_closed"]), row.get("gap_high"))
    return Estimate((duel.published.damage - duel.best.damage) / gap.value)


def _remainder(duel: Duel) -> str:
    assert duel.best is not None and duel.mobe is not None, "asked before"
    left = difference(duel.best, duel.mobe)
    if left.above:
        return f"What remains, {left.text()} nats, is an upper bound of what the structure costs against MoBE."
    if left.below:
        return f"Nothing remains for the structure: at its best TD-MoE is {_beside(left, worded=True)} MoBE's loss."
    return f"What remains, {left.text(signed=True)} nats, cannot be told from nothing."


def _largest(subject: Subject, duel: Duel) -> str:
    """The largest single change: by Shapley value where that is there, otherwise along the ladder."""
    if not duel.arena.attributed:
        return " Which change did it: not measured (attribution measures it)."
    tables = dict(subject.tables("attribution_shapley"))
    rows = [row for row in tables.get(duel.arena.run, []) if given(row, "nats") and _same_text(row, duel)]
    if rows:
        row = max(rows, key=lambda r: float(r["nats"]))
        nats = between(row.get("nats_low"), float(row["nats"]), row.get("nats_high"))
        orders = row.get("orders")
        told = "all orders" if str(orders) == "all" else f"{orders} orders" if orders else "orders"
        share = ""
        if given(row, "gap_share"):
            share = f", {between(row.get('gap_share_low'), float(row['gap_share']), row.get('gap_share_high')).share()}"
            share += " of the gap"
        return (
            f" The largest single change is “{plain(row['switch'])}”: {nats.text(worded=True)} nats{share} (Shapley "
            f"value over {told})."
        )
    steps = [loss for loss in duel.others if loss.ladder == TDMOE]
    changes = [
        (before.damage - loss.damage, loss) for before, loss in zip(steps, steps[1:], strict=False) if loss.measured
    ]
    if not changes:
        return ""
    change, loss = max(changes, key=lambda pair: pair[0])
    return (
        f" The largest single change on the ladder is “{plain(loss.step)}”: "
        f"{with_error(change, loss.row.get('change_nats_stderr'))} nats."
    )


def _same_text(row: Row, duel: Duel) -> bool:
    return row.get("text") in (None, "") or str(row["text"]) == duel.arena.text


def _floor(duel: Duel | None) -> str:
    """What no Tucker decomposition of the best run's ranks can be below."""
    row: Row = duel.best.row if duel is not None and duel.best is not None else {}
    if not given(row, "floor"):
        return " The floor that truncating single modes sets: not measured."
    errors = {mode: float(row[f"mode_error_{mode}"]) for mode in MODES if given(row, f"mode_error_{mode}")}
    mode = f", that of truncating the {max(errors, key=lambda name: errors[name])} mode alone" if errors else ""
    own = f"; its own is {fixed(row['functional_error'])}" if given(row, "functional_error") else ""
    return (
        f" At the ranks of that best run no Tucker decomposition has a functional error below {fixed(row['floor'])}"
        f"{mode}{own}."
    )
