"""The tables of a run, computed anew from its parts: rows of the steps, Shapley values, predictors, shares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diag.probes.attribution.columns import MEASURED, NAME, PREDICTORS, SHAPLEY, SHARES
from diag.probes.attribution.ladder import COMBINATION, MOBE, PUBLISHED, TDMOE, Step
from diag.probes.attribution.plan import Plan, Variant
from diag.probes.attribution.predictors import Model, predictors
from diag.probes.attribution.rows import NO_GAP, NOT_FINITE, NOT_MEASURED, Measurement, Row, attribution_rows
from diag.probes.attribution.shapley import Coalition, sampled
from diag.probes.attribution.shares import Candidate, share_rows
from diag.probes.attribution.switches import SWITCHES
from diag.statistics.gap import Gap, Vector, crossed, interval, resampled_orders, resamples
from tdmoe.compression.counted import denominator

LEAST_ORDERS = 8  # drawn, below which their spread says nothing


def tables(plan: Plan) -> dict[str, list[Row]]:
    """Of what is measured so far."""
    found = {variant: _measurement(plan, variant) for variant in plan.variants}
    best = _best_combination(plan, found)
    steps = [*plan.steps, *([] if best is None else [best])]
    of_step = {step: found[plan.variant(step)] for step in steps}
    measured = {step: this for step, this in of_step.items() if this is not None}
    failed = {s: plan.folder.outcomes[plan.parts[plan.variant(s)].key].state for s in steps if s not in measured}
    weights_BW = resamples(plan.request.seed, len(plan.windows_WT))
    gap, dense = _gap(measured, weights_BW), found[Variant(None)]
    windows, length = plan.windows_WT.shape
    common = {"text": Path(plan.request.text).name, "windows": windows, "tokens": windows * (length - 1)}
    common["bits_saved_of"] = denominator(plan.checkpoint)
    tails: Mapping[tuple[int, str], Any] = {place: plan.folder.arrays(part) for place, part in plan.modes.items()}
    known = {place: tail for place, tail in tails.items() if tail}
    rows = attribution_rows(steps, measured, failed, dense, gap, known, common)
    if best is not None:
        rows[-1] |= _chosen(plan, found, gap)
    return {
        NAME: rows,
        SHAPLEY: _shapley(plan, found, gap, weights_BW),
        PREDICTORS: _predictors(rows, of_step, dense),
        SHARES: _shares(plan, found, best, weights_BW, common),
    }


def _measurement(plan: Plan, variant: Variant) -> Measurement | None:
    part = plan.parts[variant]
    outcome = plan.folder.outcomes[part.key]
    if outcome.state != "done":
        return None
    arrays = plan.folder.arrays(part)
    return Measurement(outcome.tables[MEASURED][0], arrays["losses"], arrays["angles"], arrays["norm_ratios"])


def _gap(measured: Mapping[Step, Measurement], weights_BW: Vector) -> Gap | None:
    """None where one of its ends was not measured; a preset that failed leaves the others."""
    finite = {step: this for step, this in measured.items() if this.finite}
    published = next((this for step, this in finite.items() if step.phrase == PUBLISHED), None)
    presets = [this.losses_W for step, this in finite.items() if step.preset]
    return Gap.of(published.losses_W, presets, weights_BW) if published is not None and presets else None


def _best_combination(plan: Plan, found: Mapping[Variant, Measurement | None]) -> Step | None:
    """The combination of switches that loses least; None where it is not known, or a step of the ladder."""
    losses = _combinations(plan, found)
    if not losses:
        return None
    best = min(losses, key=lambda on: losses[on].mean())  # the first, so the smallest, of equals
    variant = plan.coalition(best)
    of_steps = (found[plan.variant(step)] for step in plan.steps)
    if any(this is not None and np.array_equal(this.losses_W, losses[best]) for this in of_steps):
        return None  # with a switch that changes nothing, perhaps
    models = len({plan.coalition(on) for on in losses})
    return Step(f"best of {models} combinations: {_listed(best)}", COMBINATION, variant.recipe, variant.projections)


def _listed(on: Coalition) -> str:
    return ", ".join(text for switch, text in SWITCHES.items() if switch in on)


def _combinations(plan: Plan, found: Mapping[Variant, Measurement | None]) -> dict[Coalition, Vector]:
    """Losses by window, where all of a game's combinations were measured; those of drawn orders are no choice."""
    if plan.game is None or plan.game.orders is not None:
        return {}
    known = {on: found[plan.coalition(on)] for on in plan.game.coalitions}
    finite = {on: this.losses_W for on, this in known.items() if this is not None and this.finite}
    return finite if len(finite) == len(known) else {}


def _chosen(plan: Plan, found: Mapping[Variant, Measurement | None], gap: Gap | None) -> Row:
    """The share of the gap that the best combination closes, told on windows that it was not chosen on."""
    if gap is None or not gap.clear:
        return {}
    value, (low, high) = gap.closed(crossed(list(_combinations(plan, found).values())))
    return {"gap_closed": value, "gap_low": low, "gap_high": high}


def _shares(
    plan: Plan,
    found: Mapping[Variant, Measurement | None],
    best: Step | None,
    weights_BW: Vector,
    common: Mapping[str, Any],
) -> list[Row]:
    """Against MoBE with the same changes and as it is, of all runs over the projections that were asked for."""

    def candidate(step: Step) -> Candidate | None:
        this = found[plan.variant(step)]
        if this is None or not this.finite or step.recipe is None or step.projections != plan.projections:
            return None
        return Candidate(step.phrase, step.ladder, step.recipe.method, this.losses_W, step.preset)

    runs: dict[str, list[Candidate]] = {TDMOE: [], MOBE: []}
    for step in plan.steps:
        if step.ladder in runs and (run := candidate(step)) is not None:
            runs[step.ladder].append(run)
    named = {plan.variant(step) for step in plan.steps}
    for on in _combinations(plan, found):
        variant = plan.coalition(on)
        if variant not in named:
            other = Step(f"combination: {_listed(on)}", COMBINATION, variant.recipe, variant.projections)
            same = best is not None and plan.variant(best) == variant
            runs[TDMOE] += filter(None, [candidate(best if best is not None and same else other)])
            named.add(variant)
    published = next((run for run in runs[TDMOE] if run.phrase == PUBLISHED), None)
    return [] if published is None else share_rows(runs[TDMOE], runs[MOBE], published.losses_W, weights_BW, common)


def _shapley(plan: Plan, found: Mapping[Variant, Measurement | None], gap: Gap | None, weights_BW: Vector) -> list[Row]:
    """A row a switch; none where they were not asked for."""
    game = plan.game
    if game is None:
        return []
    known = {on: found[plan.coalition(on)] for on in game.coalitions}
    measured = {on: this for on, this in known.items() if this is not None}
    losses = {on: this.losses_W for on, this in measured.items()}
    usual = {"orders": game.orders_said, "coalitions": len(game.coalitions), "windows": len(plan.windows_WT)}
    status = "ok"
    if len(measured) < len(known):
        status = NOT_MEASURED
    elif not all(this.finite for this in measured.values()):
        status = NOT_FINITE
    values = game.values(losses) if status == "ok" else {}
    weights_BK = resampled_orders(plan.request.seed, len(game.orders or [()]))
    whole: Coalition = frozenset(game.switches)
    rows = []
    for name in game.switches:
        row: Row = dict.fromkeys(("nats", "nats_low", "nats_high", "gap_share", "gap_share_low", "gap_share_high"))
        row |= {"switch": name, "text": SWITCHES[name], **usual, "status": status}
        row |= {"alone_nats": _difference(losses, frozenset(), frozenset({name}))}
        row |= {"last_nats": _difference(losses, whole - {name}, whole)}
        if name in values:
            gained, gained_B = float(values[name].mean()), sampled(values[name], weights_BK, weights_BW)
            row["nats"] = gained
            if game.orders is None or len(game.orders) >= LEAST_ORDERS:
                row["nats_low"], row["nats_high"] = interval(gained_B, len(plan.windows_WT))
            if gap is not None and gap.clear:
                row["gap_share"], ends = gap.share(gained, gained_B)
                if row["nats_low"] is not None:
                    row["gap_share_low"], row["gap_share_high"] = ends
            else:
                row["status"] = NO_GAP if gap is not None else NOT_MEASURED
        rows.append(row)
    return rows


def _difference(losses: Mapping[Coalition, Vector], before: Coalition, after: Coalition) -> float | None:
    """Loss removed; None where one of the two was not measured."""
    if before not in losses or after not in losses:
        return None
    found = float((losses[before] - losses[after]).mean())
    return found if np.isfinite(found) else None


def _predictors(rows: list[Row], of_step: Mapping[Step, Measurement | None], dense: Measurement | None) -> list[Row]:
    if dense is None or not dense.finite:
        return []
    models = [
        Model(row, this.losses_W - dense.losses_W)
        for row, this in zip(rows, of_step.values(), strict=True)
        if this is not None and this.finite
    ]
    return predictors(models)
