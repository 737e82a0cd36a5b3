"""Conclusions of attribution: the gap to MoBE, how much of it is how TD-MoE was run, by which change, what remains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist

from diag.declare.claim import Claim, Estimate, Evidence, Quantity, count, value
from diag.declare.column import Row
from diag.probes.attribution.columns import (
    MOBE,
    NAME,
    PREDICTORS,
    PRESETS,
    SAME_CHANGES,
    SHAPLEY,
    SHARES,
    TDMOE,
    error_name,
)
from diag.probes.attribution.ends import (
    DAMAGE,
    OVER_MOBE,
    SINGLE_BASIS,
    best,
    family,
    known,
    least,
    meeting,
    options,
    presets,
    published,
    reference,
    refitted,
    tensors,
)
from diag.statistics.medians import where
from reports.formats import listing

TITLE = "What is self-inflicted, and what is structural"
QUESTION = "How much of TD-MoE's gap to MoBE is how TD-MoE was run, by which change, and what remains?"

GAP = Quantity("gap", "Gap of TD-MoE as published to MoBE, per token", "loss")
CLOSED = Quantity(
    "gap_closed", "Share of the gap that is how TD-MoE was run", "percent",
    after="TD-MoE's best run closes so much, chosen on one half of the windows and told of the other.",
)  # fmt: skip
LEFT = Quantity(
    "left", "What remains of it, per token", "loss",
    after="This bounds from above what is structural, against this MoBE: changes that were not tried may close more. "
    "Where the interval reaches 0, none of it has to be.",
)  # fmt: skip
STEP = Quantity("largest_change", "Change on the ladder that takes away most", "change", "extreme")
AVERAGED = Quantity("shapley", "Loss that each change takes away, averaged over orders (Shapley values)", "loss")
ORDER = Quantity(
    "order", "Largest difference between a change as the first and as the last", "loss",
    after="A ladder's step holds for the ladder's own order of changes.",
)  # fmt: skip
ADDED = Quantity("added", "Loss added to the dense model's, per token", "loss")
WIDER = Quantity("added_wider", "Loss added with as many bits saved over other projections", "loss")
BITS = Quantity("bits_saved", "Bits that these save", "percent")
FLOOR = Quantity(
    "floor", "Functional error that no Tucker decomposition of these ranks is below", "error",
    after="Where MoBE is below it, only other ranks or another form reach MoBE.",
)  # fmt: skip
ORIGIN = Quantity("origin", "Where MoBE's advantage comes from, loss added", "loss", after=f"{SINGLE_BASIS}.")
PREDICTS = Quantity(
    "rank_correlation", "Rank correlation of each error with the loss over the compressed models", "factor",
    after="Intervals are those of independent models, which steps of one ladder are not, and so too narrow.",
)  # fmt: skip
WINDOWS = Quantity("windows", "Windows that losses are means over", "integer")
STEPS = Quantity("steps_measured", "Steps measured, the dense model too", pattern="share")
_CHANGES = {"refit": "refit", "budget": "budget shared by sensitivity"}
_NORMAL = NormalDist().inv_cdf(0.975)


def claims(tables: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """The most important first; nothing without a measured loss."""
    rows, shares = tables.get(NAME, ()), tables.get(SHARES, ())
    if not known(rows, "loss_nats"):
        return []
    ours = best(rows, shares)
    found = [*_gap(rows, shares), *_largest(rows), *_shapley(tables.get(SHAPLEY, ()))]
    found += [*_added(rows, ours), *_floor(rows, ours), *_origin(rows), *_predictors(tables.get(PREDICTORS, ()))]
    return [*found, *_coverage(rows)]


def _gap(rows: Sequence[Row], shares: Sequence[Row]) -> Iterator[Claim]:
    """Size of the gap, the share that was closed, what remains: against MoBE with the same changes, then as it is."""
    start = published(rows)
    if start is None or not known([start], OVER_MOBE):
        lacking = MOBE if start is not None and known([start], "loss_nats") else TDMOE
        name = {MOBE: "for want of MoBE", TDMOE: "for want of TD-MoE as published"}[lacking]
        lost = presets(rows) if lacking == MOBE else [start]
        states = listing([str(row.get("status")).replace("_", " ") for row in lost if row])
        yield Claim(f"{name}{f' ({states})' if states else ''}", GAP, Estimate(None))
        return
    rivals = _rivals(shares)
    if not any(row["against"] == PRESETS for row in rivals):
        low, high = start.get("mobe_difference_low"), start.get("mobe_difference_high")
        of = Evidence(NAME, OVER_MOBE, 1, {"step": start["step"]})
        yield Claim("MoBE as it is", GAP, Estimate(start[OVER_MOBE], low, high, "nats"), {}, of)
    yield from (_share(row, GAP, "gap_nats", "gap_nats_low", "gap_nats_high", "nats") for row in rivals)
    told = known(rivals, "gap_closed")
    if not told:
        reason = "the gap's interval holds 0" if start.get("status") == "no_gap" else "no run to compare"
        yield Claim(reason, CLOSED, Estimate(None))
    yield from (_share(row, CLOSED, "gap_closed", "gap_low", "gap_high") for row in told)
    yield from (_share(row, LEFT, "left_nats", "left_low", "left_high", "nats") for row in told)


def _rivals(shares: Sequence[Row]) -> list[Row]:
    """Against MoBE with the same changes and as it is; one of them where they say the same."""
    found = [row for kind in (SAME_CHANGES, PRESETS) for row in known(where(shares, against=kind), "gap_nats")]
    if len({(row["gap_nats"], row.get("gap_closed"), row.get("left_nats")) for row in found}) == 1:
        return found[-1:]
    return found


def _rival(share: Row, *, lacks: bool) -> str:
    """MoBE of a row of shares, and what it `lacks`: `MoBE as it is (without the refit)`."""
    had, lacked = (
        listing([_CHANGES.get(name, name) for name in str(share.get(column) or "").split(",") if name])
        for column in ("given", "not_given")
    )
    same = f"MoBE given the same {had}" if had else "MoBE with the same changes"
    name = same if share.get("against") == SAME_CHANGES else "MoBE as it is"
    return f"{name} (without the {lacked})" if lacks and lacked else name


def _share(row: Row, quantity: Quantity, column: str, low: str, high: str, unit: str = "") -> Claim:
    evidence = Evidence(SHARES, column, 1, {"against": row["against"]})
    estimate = Estimate(row[column], row.get(low), row.get(high), unit)
    return Claim(_rival(row, lacks=quantity is CLOSED), quantity, estimate, {}, evidence)


def _largest(rows: Sequence[Row]) -> Iterator[Claim]:
    steps = known(where(rows, ladder=TDMOE), "change_nats")
    if steps:
        yield _paired(min(steps, key=lambda row: float(row["change_nats"])), STEP, "change_nats")


def _shapley(rows: Sequence[Row]) -> Iterator[Claim]:
    """Strongest first; then the change that depends most on what was changed before."""
    found = sorted(known(rows, "nats"), key=lambda row: -float(row["nats"]))
    if not found:
        yield Claim("for want of combinations of changes (--shapley)", AVERAGED, Estimate(None))
    for row in found:
        estimate = Estimate(row["nats"], row.get("nats_low"), row.get("nats_high"), "nats")
        yield Claim(_change(row), AVERAGED, estimate, {}, Evidence(SHAPLEY, "nats", 1, {"switch": row.get("switch")}))
    if both := known(rows, "alone_nats", "last_nats"):
        row = max(both, key=lambda row: abs(float(row["alone_nats"]) - float(row["last_nats"])))
        alone, last = row["alone_nats"], row["last_nats"]
        estimate = Estimate(abs(alone - last), unit="nats")
        places = {"as the first": alone, "as the last": last}
        yield Claim(_change(row), ORDER, estimate, places, Evidence(SHAPLEY, "alone_nats", len(both)))


def _added(rows: Sequence[Row], ours: Row | None) -> Iterator[Claim]:
    """Both ends, what lies between, and rounding; then a TD-MoE over other projections that adds less."""
    ends = [published(rows), ours, *presets(rows), refitted(rows), *(row for row in rows if family(row) == "rtn")]
    told = known(list({id(row): row for row in ends if row is not None}.values()), DAMAGE)
    if not told:
        yield Claim("for want of the dense model", ADDED, Estimate(None))
    yield from (_paired(row, ADDED, DAMAGE) for row in told)
    for row in known(told, "bits_saved"):
        yield value(_named(row), BITS, _from(row, "bits_saved"), row["bits_saved"])
    wider = least(tensors(rows))
    if wider is not None and ours is not None and wider[DAMAGE] < ours[DAMAGE]:
        mobe = least(known(where(rows, ladder=MOBE, projections=wider.get("projections")), DAMAGE))
        over = f" over {listing(str(wider.get('projections')).split(','))}"
        yield from (_paired(row, WIDER, DAMAGE, over) for row in (wider, mobe) if row is not None)


def _floor(rows: Sequence[Row], ours: Row | None) -> Iterator[Claim]:
    mobe = reference(rows)
    if ours is not None and known([ours], "floor"):
        theirs = None if mobe is None else mobe.get("functional_error")
        beside = {"this_run": ours.get("functional_error"), "MoBE": theirs}
        yield value(_named(ours), FLOOR, _from(ours, "floor"), ours["floor"], **beside)


def _origin(rows: Sequence[Row]) -> Iterator[Claim]:
    """MoBE's ladder in short: its start, more bases, the nonlinearity; the step of TD-MoE nearest to the start."""
    ladder = where(rows, ladder=MOBE)
    alike = known(where(ladder, projections=ladder[0].get("projections")), DAMAGE) if ladder else []
    if len(alike) < 2 or alike[0] is not ladder[0]:
        return
    start, *rest = alike
    linear = [row for row in rest if options(row).get("phi") == "identity"]
    bent = [row for row in rest if not {"refit", "mixing", "whitening"} & set(options(row)) and row not in linear]
    near = meeting(rows)
    beside = {} if near is None else {f"nearest step of TD-MoE “{near['step']}”": near[DAMAGE]}
    first = _paired(start, ORIGIN, DAMAGE)
    yield Claim(first.subject, ORIGIN, first.estimate, beside, first.evidence)
    yield from (_paired(row, ORIGIN, DAMAGE) for row in (least(linear), least(bent)) if row is not None)


def _predictors(rows: Sequence[Row]) -> Iterator[Claim]:
    found = sorted(known(rows, "rank_correlation"), key=lambda row: -float(row["rank_correlation"]))
    if not found:
        yield Claim("for want of enough different compressed models", PREDICTS, Estimate(None))
    for row in found:
        evidence = Evidence(PREDICTORS, "rank_correlation", int(row.get("runs") or 0), {"error": row["error"]})
        estimate = Estimate(row["rank_correlation"], row.get("low"), row.get("high"))
        yield Claim(error_name(row), PREDICTS, estimate, {}, evidence)


def _coverage(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in known(rows, "windows")[:1]:
        yield value(str(row.get("text")), WINDOWS, _from(row, "windows"), row["windows"], scored_tokens=row["tokens"])
    done = known(rows, "loss_nats")
    if len(done) < len(rows):
        yield count(STEPS, Evidence(NAME, "loss_nats", len(rows)), len(done))


def _paired(row: Row, quantity: Quantity, column: str, over: str = "") -> Claim:
    """A difference of losses with the interval of its standard error."""
    stderr, found = row.get(f"{column}_stderr"), float(row[column])
    low, high = (None if stderr is None else found + z * stderr for z in (-_NORMAL, _NORMAL))
    return Claim(f"{_named(row)}{over}", quantity, Estimate(found, low, high, "nats"), {}, _from(row, column))


def _named(row: Row) -> str:
    """`TD-MoE “+ core refit”`; other methods by their step alone."""
    step = str(row.get("step"))
    return f"{'MoBE' if family(row) == MOBE else 'TD-MoE'} “{step}”" if family(row) in (MOBE, TDMOE) else step


def _change(row: Row) -> str:
    return str(row.get("text") or row.get("switch"))


def _from(row: Row, column: str) -> Evidence:
    return Evidence(NAME, column, 1, {"ladder": row.get("ladder"), "step": row.get("step")})
