"""Sentences about single changes: which takes away most, which nothing, and whether their order matters."""

from reports.attribution.ladders import Attribution, Step, by_strength, ranged, share
from reports.attribution.shares import orders, switch_name
from reports.formats import fixed, listing, percent
from reports.run import Row, given

_MATTERS = 0.1  # of all that the changes take away: a difference between first and last that is worth a word
_FEW = 3


def effects(found: Attribution) -> list[str]:
    """By Shapley values where they were measured; by the ladder."""
    return [sentence for sentence in (_shapley(found), _ladder(found)) if sentence]


def _shapley(found: Attribution) -> str:
    rows = by_strength(found.switches, "nats")
    helps = [row for row in rows if _end(row, "nats_low") > 0][:_FEW]
    harms = [row for row in rows if given(row, "nats_high") and row["nats_high"] < 0]
    idle = [row for row in rows if given(row, "nats_low", "nats_high") and row["nats_low"] <= 0 <= row["nats_high"]]
    if not rows:
        return ""
    said = []
    if helps:
        first, *others = (f"{_nats(row)}{_of_gap(row)}" for row in helps)
        then = listing([f"{switch_name(row)} {text}" for row, text in zip(helps[1:], others, strict=True)])
        said.append(
            f"Averaged over {orders(rows)} (Shapley values), most is taken away by {switch_name(helps[0])}: "
            f"{first}" + (f"; then by {then}." if then else ".")
        )
    if harms:
        said.append(f"Harm: {listing([f'{switch_name(row)}, {_nats(row)}' for row in harms])}.")
    if idle:
        said.append(f"No effect that differs from 0: {listing([f'{switch_name(row)}, {_nats(row)}' for row in idle])}.")
    return " ".join(said)


def _end(row: Row, column: str) -> float:
    """Of the interval; the value itself where there is none."""
    return float(row[column] if given(row, column) else row["nats"])


def _nats(row: Row) -> str:
    return ranged(row, "nats", "nats_low", "nats_high", 3, unit=" nats")


def _of_gap(row: Row) -> str:
    said = share(row, "gap_share", "gap_share_low", "gap_share_high", of=" of the gap")
    return f", {said}" if given(row, "gap_share") else ""


def _ladder(found: Attribution) -> str:
    """The step that changed most in the ladder's own order."""
    changed = [step for step in found.tdmoe if step.value("change_nats") is not None]
    if not changed:
        return ""
    most = min(changed, key=lambda step: float(step.row["change_nats"]))
    if most.row["change_nats"] >= 0:
        return "On the ladder no change took anything away from the loss."
    said = f"On the ladder “{most.name}” changes most: {most.says('change_nats')} nats to the step before it"
    if found.gap:
        said += f", {percent(-float(most.row['change_nats']) / found.gap)} of the gap"
    said += "."
    worse = [step for step in changed if _clear_harm(step)]
    idle = [f"“{step.name}”" for step in changed if step.row["change_nats"] == 0]
    if worse:
        rises = [f"“{step.name}” ({step.says('change_nats')})" for step in worse]
        said += f" The loss rises at {listing(rises)}."
    if idle:
        said += f" {listing(idle)} {'changes' if len(idle) == 1 else 'change'} nothing here."
    if not by_strength(found.switches, "nats"):
        said += " Shapley values were not measured, so this holds for this order of changes only."
    return said


def _clear_harm(step: Step) -> bool:
    return float(step.row["change_nats"]) > 2 * step.stderr("change_nats") > 0


def order(found: Attribution) -> str:
    """What first and last differ by, of the changes that were measured as both."""
    rows = [row for row in found.switches if given(row, "alone_nats", "last_nats")]
    values = [float(row["nats"]) for row in found.switches if given(row, "nats")]
    total = sum(values)
    if not rows or total <= 0 or len(values) < len(found.switches):
        return ""
    most = max(rows, key=_spread)
    how_much = (
        f"{fixed(most['alone_nats'], 3)} nats as the first change and {fixed(most['last_nats'], 3)} as the last, a "
        f"difference of {percent(_spread(most) / total)} of the {fixed(total, 3)} nats that all take away together"
    )
    some = "" if len(rows) == len(found.switches) else f" ({len(rows)} of {len(found.switches)} measured as both)"
    if _spread(most) > _MATTERS * total:
        return f"Order matters: “{switch_name(most)}” takes away {how_much}{some}."
    return f"Order matters little: most to “{switch_name(most)}”, which takes away {how_much}{some}."


def _spread(row: Row) -> float:
    return abs(float(row["alone_nats"]) - float(row["last_nats"]))
