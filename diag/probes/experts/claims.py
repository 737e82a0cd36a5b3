"""Conclusions of the ablation: whether the expert mode binds, beside independent experts, and how alike they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from diag.declare.claim import Claim, Estimate, Evidence, Quantity, count, value
from diag.declare.column import Row
from diag.probes.experts.columns import MEASURES, SHARES, metric_error
from diag.statistics.medians import given, groups, middle, where
from reports.formats import percent

TITLE = "Expert mode: preserve against compress"
QUESTION = "Is the expert mode the binding constraint of a Tucker decomposition, and how alike are the experts?"

BINDS = Quantity(
    "binding", "The expert mode is the binding constraint", "integer", "share",
    after="It is where cutting experts certainly raises the least error and their mode costs most (95 % intervals).",
)  # fmt: skip
FREE = Quantity("not_binding", "Cutting experts certainly lowers the least error", "integer", "share")
GAIN = Quantity(
    "gain", "Least {error} that cutting experts saves at equal storage, in the median", "percent",
    after="Below 0 it adds to the error.",
)  # fmt: skip
APART = Quantity(
    "told_apart", "Saving told apart from that of independent experts", "integer", "share",
    after="Where it is not, nothing is claimed of what experts share.",
)  # fmt: skip
CHEAPER = Quantity("cheaper", "Of these, cheaper to cut than independent experts", "integer", "share")
PRICE = Quantity(
    "price_share", "Price of the expert mode over that plus the price of the cheapest other, in the median", "factor",
    after="Above 0.5 experts should be cut last, below it first.",
)  # fmt: skip
PUBLISHED = Quantity(
    "published_error", "Error of the published ranks with all experts ({error}), in the median", "error",
    after="They never look at the weights.",
)  # fmt: skip
CUT = Quantity("published_cut", "Published compress triples that cut experts", "integer", "share")
DIFFERENCE = Quantity("published_difference", "Of these, error above that of the published preserve triple, median",
                      "change")  # fmt: skip
ALIKE = Quantity(
    "similarity", "Likeness of two experts, mean over pairs", "error",
    after="All but the plain cosine are measured where the arbitrary order of hidden units plays no part.",
)  # fmt: skip


def claims(tables: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """The most important first; nothing without rows."""
    points, rows = tables.get("experts", ()), tables.get("binding", ())
    error, cut = metric_error(points), given(rows, "gain")
    if not cut and not rows:
        return []
    if not cut:
        return [Claim("no stack has experts that could be cut", BINDS, Estimate(None))]
    by_ratio = {f"{percent(ratio, 0)} removed": ours for ratio, ours in groups(cut, "ratio").items()}
    found = [*_counted(by_ratio), *_saved(by_ratio, error), *_apart(by_ratio), *_priced(by_ratio)]
    return [*found, *_published(points, by_ratio, error), *_similar(tables.get("similarity", ()))]


def _counted(by_ratio: Mapping[str, Sequence[Row]]) -> Iterator[Claim]:
    known = {subject: ours for subject, rows in by_ratio.items() if (ours := given(rows, "binding"))}
    if not known:
        yield Claim("no group of experts was left out for an interval (--jackknife)", BINDS, Estimate(None))
    for quantity, word in ((BINDS, "yes"), (FREE, "no")):
        for subject, rows in known.items():
            yield count(quantity, _evidence("binding", rows), len(where(rows, binding=word)), subject)


def _saved(by_ratio: Mapping[str, Sequence[Row]], error: str) -> Iterator[Claim]:
    for subject, rows in by_ratio.items():
        yield _beside_null(subject, replace(GAIN, words=GAIN.words.format(error=error)), rows)


def _priced(by_ratio: Mapping[str, Sequence[Row]]) -> Iterator[Claim]:
    for subject, rows in by_ratio.items():
        if priced := given(rows, "price_share"):
            yield _beside_null(subject, PRICE, priced)


def _beside_null(subject: str, quantity: Quantity, rows: Sequence[Row]) -> Claim:
    """The median, of a single stack with its interval, beside that of independent experts."""
    column = quantity.name
    low, high = (rows[0].get(f"{column}_{end}") if len(rows) == 1 else None for end in ("low", "high"))
    null = {"independent experts": middle(rows, f"{column}_null")}
    return Claim(subject, quantity, Estimate(middle(rows, column), low, high), null, _evidence(column, rows))


def _apart(by_ratio: Mapping[str, Sequence[Row]]) -> Iterator[Claim]:
    """Stacks whose interval leaves out the saving of independent experts."""
    known = {subject: given(rows, "gain_low", "gain_high", "gain_null") for subject, rows in by_ratio.items()}
    apart = {subject: [row for row in rows if not row["gain_low"] <= row["gain_null"] <= row["gain_high"]]
             for subject, rows in known.items()}  # fmt: skip
    for subject, rows in known.items():
        if rows:
            yield count(APART, _evidence("gain_null", rows), len(apart[subject]), subject)
    for subject, rows in apart.items():
        if rows:
            cheaper = sum(row["gain"] > row["gain_null"] for row in rows)
            yield count(CHEAPER, _evidence("gain_null", rows), cheaper, subject)


def _published(points: Sequence[Row], by_ratio: Mapping[str, Sequence[Row]], error: str) -> Iterator[Claim]:
    kept = given(where(points, point="headline", expert_mode="preserve"), "metric_error")
    for ratio, both in groups(kept, "ratio").items():
        ours, best = (where(both, allocation=name) for name in ("published", "exact"))
        evidence = Evidence("experts", "metric_error", len(ours), {"allocation": "published", "ratio": ratio})
        quantity = replace(PUBLISHED, words=PUBLISHED.words.format(error=error))
        yield value(f"{percent(ratio, 0)} removed", quantity, evidence, middle(ours, "metric_error"),
                    best_ranks_of_the_same_storage=middle(best, "metric_error"))  # fmt: skip
    cut: Mapping[str, Sequence[Row]] = {subject: given(rows, "due_to_experts") for subject, rows in by_ratio.items()}
    for subject, rows in by_ratio.items():
        yield count(CUT, _evidence("rank_expert_published", rows), len(cut[subject]), subject)
    for subject, rows in cut.items():
        if rows:
            parts = {"expert_mode": middle(rows, "due_to_experts"), "other_ranks": middle(rows, "due_to_ranks")}
            evidence = _evidence("published_difference", rows)
            yield value(subject, DIFFERENCE, evidence, middle(rows, "published_difference"), **parts)


def _similar(rows: Sequence[Row]) -> Iterator[Claim]:
    known = given(rows, "mean", "null_mean")
    free = [row for row in known if row["order_free"] or row["measure"] == "cosine"]
    for measure, ours in groups(free, "measure", SHARES).items():
        evidence = Evidence("similarity", "mean", len(ours), {"measure": measure})
        yield value(MEASURES[measure], ALIKE, evidence, middle(ours, "mean"), independent=middle(ours, "null_mean"))


def _evidence(column: str, rows: Sequence[Row]) -> Evidence:
    return Evidence("binding", column, len(rows), {"ratio": rows[0]["ratio"]})
