"""Sentences about what stands beside TD-MoE's ladder: its floor, where MoBE's advantage is from, rounding, errors."""

from reports.attribution.ladders import SAME_FORM, Attribution, Step, by_strength, mode_errors
from reports.attribution.shares import correlation, error_name
from reports.formats import fixed, listing, percent
from reports.run import given


def floor(found: Attribution) -> str:
    """Whether MoBE's functional error is in reach of any Tucker decomposition of the best step's ranks."""
    reference = found.reference
    steps = [step for step in found.tensors if step.measured and step.value("floor") is not None]
    if reference is not None:
        steps = [step for step in steps if step in found.like(reference)] or steps
    step = min(steps, key=lambda one: one.damage, default=None)
    if step is None:
        return ""
    least, modes = step.value("floor"), mode_errors(step)
    assert least is not None, "chosen by it"
    worst = max(modes, key=lambda mode: modes[mode], default="")
    said = (
        f"At the ranks of “{step.name}” no Tucker decomposition has a functional error below {fixed(least, 3)}"
        f"{f', the cost of cutting the {worst} mode alone' if worst else ''}; the step has "
        f"{fixed(step.value('functional_error'), 3)}"
    )
    theirs = reference.value("functional_error") if reference is not None else None
    if theirs is None:
        return said + "."
    if theirs < least:
        return f"{said}, MoBE {fixed(theirs, 3)}: below the floor, which only other ranks or another form could reach."
    return f"{said}, MoBE {fixed(theirs, 3)}: above the floor, so these ranks do not stand between TD-MoE and MoBE."


def origin(found: Attribution) -> str:
    """MoBE's own ladder: more bases, the nonlinearity, the training."""
    steps = [s for s in found.mobe if s.measured and s.row["projections"] == found.mobe[0].row["projections"]]
    if len(steps) < 2 or steps[0] is not found.mobe[0]:
        return ""
    start, meeting = steps[0], found.meeting
    linear = [step for step in steps[1:] if step.options.get("phi") == "identity"]
    whole = [s for s in steps[1:] if s.options.get("phi") != "identity" and s.options.get("preset") != "published"]
    bent = [step for step in whole if "refit" not in step.options]
    trained = [step for step in steps[1:] if step.options.get("preset") == "published"]
    said = f"Where MoBE's advantage comes from: “{start.name}” adds {start.says()} nats"
    if found.meets_in_form:
        said = f"{SAME_FORM}, and adds {start.says()} nats"
    if meeting is not None:
        said += f" (the step of TD-MoE with the nearest errors, “{meeting.name}”: {meeting.says()})"
    parts, before = [], start.damage
    stages = (
        (linear, ("more bases take", "more bases add")),
        (bent, ("the nonlinearity takes", "the nonlinearity adds"))
        if linear
        else (bent, ("bases and nonlinearity together take", "bases and nonlinearity together add")),
    )
    for chosen, (takes, adds) in stages:
        if chosen:
            best = _least(chosen)
            less = before - best.damage
            how = f"{takes} away {fixed(less, 3)}" if less >= 0 else f"{adds} {fixed(-less, 3)}"
            parts.append(f"{how} nats (“{best.name}”: {best.says()})")
            before = best.damage
    if parts:
        said += f". From there {listing(parts)}"
    if found.refitted is not None:
        said += f". With its left factors refitted it adds {found.refitted.says()}"
    published = [step for step in trained if not {"mixing", "whitening"} & set(step.options)]
    if published:
        said += f". Trained as published it adds {_least(published).says()} (“{_least(published).name}”)"
        changed = [f"{step.says()} (“{step.name}”)" for step in trained if step not in published]
        said += f", and by the same optimiser {listing(changed)}" if changed else ""
    return said + "."


def _least(steps: list[Step]) -> Step:
    return min(steps, key=lambda step: step.damage)


def rounding(found: Attribution) -> str:
    """Every RTN beside the best of both; which to choose is the verdict's to say."""
    rounded = [step for step in found.beside if step.family == "rtn" and step.measured]
    if not rounded:
        return ""
    ends = [("the best TD-MoE", found.best), ("MoBE", found.reference)]
    named = [*((step.name, step) for step in rounded), *((name, step) for name, step in ends if step is not None)]
    parts = [f"{name} {step.says()} nats at {percent(step.value('bits_saved'))}" for name, step in named]
    return f"Rounding beside, loss added at bits saved: {listing(parts)}."


def predictors(found: Attribution) -> str:
    """Rank correlations with the loss, the best first, and whether the runs tell the first two apart."""
    rows = by_strength(found.predictors, "rank_correlation")
    if not rows:
        return ""
    parts = [f"the {error_name(row)} {correlation(row)}" for row in rows]
    runs = next((row["runs"] for row in rows if given(row, "runs")), None)
    over = f" over {fixed(runs, 0)} compressed models" if runs is not None else ""
    said = f"Rank correlation with the loss{over}: {listing(parts)}."
    low = rows[0].get("low")
    unclear = [
        f"the {error_name(row)}" for row in rows[1:] if low is not None and given(row, "high") and row["high"] >= low
    ]
    if unclear:
        said += f" The interval of {listing(unclear)} reaches into that of the first: their order is not certain."
    return said
