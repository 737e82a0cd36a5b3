"""Is the expert mode the binding constraint? Its row of `binding.csv`, from error tables of all rank triples.

The numbers are those of tdmoe/tucker/expert_mode.py, their intervals a jackknife over groups of experts.

The paper compares one published triple of each mode, whose ranks are an accident of the budget. That difference is
taken apart, e the error in the metric and r_E the expert rank of the published compress triple:

    published_difference = e(published compress) - e(published preserve)
    due_to_experts       = min e at that r_E - min e with all experts         ranks of the other modes re-optimised
    due_to_ranks         = the rest

They are empty where the published compress triple cuts no expert, and the row says `nothing_to_cut`.

What independent experts would give stands beside the answer: with flat spectra the expert mode is dear to cut even
where experts share nothing, and it is the other modes that decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from diag.statistics.powerlaw import jackknife_stderr
from tdmoe.numerics.ranks import Ranks, budget, published_ranks
from tdmoe.tucker.expert_mode import Binding, Point, at_ranks, binding
from tdmoe.tucker.rank_search import ErrorTable

CONFIDENCE = 0.95

Row = dict[str, Any]


def binding_row(
    table: ErrorTable, left_out: Sequence[ErrorTable], null: Sequence[ErrorTable], found: Sequence[Point], ratio: float
) -> Row:
    """Is the expert mode the binding constraint: the numbers, and their intervals by leaving out groups of experts."""
    shape = table.shape
    whole = binding(table, budget(shape, ratio))
    assert whole is not None, "checked before: the least ranks with every expert fit"
    without, independent = ([binding(t, budget(t.shape, ratio)) for t in tables] for tables in (left_out, null))
    row: Row = {"experts": shape[0], "groups": len(left_out) or None, **_best(table, whole)}
    for name in ("gain", "price_share"):
        estimate = getattr(whole, name)
        row[name] = estimate
        row[f"{name}_low"], row[f"{name}_high"] = interval(
            estimate, [None if one is None else getattr(one, name) for one in without]
        )
        values = [getattr(one, name) for one in independent if one is not None and getattr(one, name) is not None]
        row[f"{name}_null"] = float(np.mean(values)) if values else None
    row |= _taken_apart(table, found, whole, ratio)
    cut = whole.cut is not None and row["rank_expert_published"] < shape[0]
    return row | {"binding": verdict(row), "status": "ok" if cut else "nothing_to_cut"}


def _best(table: ErrorTable, whole: Binding) -> Row:
    best, alone = whole.best, Ranks(whole.best.ranks.expert, *table.shape[1:])
    share = at_ranks(table, alone).squared / best.squared if best.squared > 0.0 else None
    return {
        **{"rank_expert": best.ranks.expert, "error_preserve": whole.whole.error},
        **{"error_compress": whole.cut.error if whole.cut else None},
        **{"rank_expert_compress": whole.cut.ranks.expert if whole.cut else None, "expert_share": share},
    }


def _taken_apart(table: ErrorTable, found: Sequence[Point], whole: Binding, ratio: float) -> Row:
    preserve, compress = (
        at_ranks(table, published_ranks(table.shape, ratio, expert_mode=mode)) for mode in ("preserve", "compress")
    )
    if compress.ranks.expert == table.shape[0]:
        return {"rank_expert_published": compress.ranks.expert}
    same = next((point for point in found if point.ranks.expert == compress.ranks.expert), None)
    difference = compress.error - preserve.error
    experts = None if same is None else same.error - whole.whole.error
    return {
        **{"rank_expert_published": compress.ranks.expert, "published_difference": difference},
        **{"due_to_experts": experts, "due_to_ranks": None if experts is None else difference - experts},
    }


def interval(estimate: float | None, left_out: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Estimate -/+ t * the delete-a-group standard error, t of groups - 1 degrees of freedom at CONFIDENCE."""
    values = [value for value in left_out if value is not None]
    if estimate is None or len(values) < max(2, len(left_out)):
        return None, None
    error = jackknife_stderr(values)
    assert error is not None
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return estimate - reach, estimate + reach


def verdict(row: Row) -> str | None:
    """`no` where cutting experts lowers the error for certain; `yes` where it raises it and their mode costs most."""
    if row["gain"] is None or row["gain_low"] is None:
        return None
    if row["gain_low"] > 0.0:
        return "no"
    if row["gain_high"] < 0.0 and row["price_share_low"] is not None and row["price_share_low"] > 0.5:
        return "yes"
    return "undecided"
