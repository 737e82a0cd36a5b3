"""Conclusions of injections: which error predicts the loss that drawn residuals add, and which says nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from diag.declare.claim import Claim, Estimate, Evidence, Quantity, count, value
from diag.declare.column import Row
from diag.probes.injection.columns import CONTRASTS, ERRORS, NAME, PER_EXPERT, compared, error_name, ratios, site, sites
from diag.statistics.medians import given, where

TITLE = "Which error predicts the damage"
QUESTION = "Of weight, functional and operator error, which one predicts how much a residual adds to the loss?"
LEAST_KINDS = 8  # of residual, below which no error is called the best: a line fits a few by chance

EXPLAINED = Quantity("explained", "Variance of the log of the added loss that a power of one error explains", "percent")
AHEAD = Quantity(
    "explained_difference", "How much more the first of these explains than the others", "percent",
    after="Where an interval holds 0 the two cannot be told apart. This is of drawn residuals alone; which error "
    "orders the losses of compressed models is measured by attribution.",
)  # fmt: skip
TOGETHER = Quantity(
    "exponent_together", "Exponent of each error with the others held fixed", "factor",
    after="Where an interval holds 0, no effect of that error by itself was found.",
)  # fmt: skip
ALONE = Quantity("exponent", "Exponent of the added loss as a power of one error alone", "factor")
PAIRS = Quantity(
    "ratio", "Loss added by one family over that of another at an equal norm", "",
    after="Loss that grew with the square of an error would have that error's ratio squared, in brackets.",
)  # fmt: skip
RANK = Quantity(
    "rank_correlation", "Rank correlation of each error with the added loss over all runs", "factor",
    after="Runs share draws, windows and sizes: this ranks errors and proves nothing by itself.",
)  # fmt: skip
OWN = Quantity("explained_own", "Explained under each expert's own inputs", "percent")
METHODS = Quantity("excess", "Loss that a method's residual adds over that of drawn ones of equal functional error", "")
ELSEWHERE = Quantity("explained_elsewhere", "Explained where residuals were injected elsewhere", "percent")
LEFT_OUT = Quantity("left_out", "Kinds of residual that did not clearly increase the loss, left out", "integer")
RUNS = Quantity("runs", "Runs", pattern="share")
SEEDS = Quantity("seeds", "Draws of each family", "integer",
                 after="Intervals are over windows and draws; with one draw over windows only.")  # fmt: skip


def claims(tables: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """The first site that has laws at length, others in short; nothing without a law."""
    found = sites(given(tables.get(CONTRASTS, ()), "value"))
    fitted = {name: rows for name, rows in found.items() if _laws(rows)}
    if not fitted:
        return []
    name, *others = fitted
    rows = fitted[name]
    made = [*_explained(name, rows), *_exponents(rows), *_pairs(rows), *_rest(rows)]
    for other in others:
        for law in _laws(fitted[other]):
            made.append(value(f"{other}, {error_name(law['error'])}", ELSEWHERE, _from(law, "r2"), law["r2"]))
    return [*made, *_coverage(tables.get(NAME, ()))]


def _laws(rows: Sequence[Row]) -> list[Row]:
    """Laws of the three errors, the one that explains most first."""
    found = [row for row in given(where(rows, statistic="exponent"), "r2") if row["error"] in ERRORS]
    return sorted(found, key=lambda row: -float(row["r2"]))


def _explained(name: str, rows: Sequence[Row]) -> Iterator[Claim]:
    best, *others = _laws(rows)
    quantity = replace(EXPLAINED, words=f"{EXPLAINED.words}, {name}")
    for law in (best, *others):
        yield value(error_name(law["error"]), quantity, _from(law, "r2"), law["r2"])
    kinds = int(best.get("count") or 0)
    if kinds < LEAST_KINDS:
        reason = f"{kinds} kinds of residual clearly increased the loss, {LEAST_KINDS} are needed"
        yield Claim(reason, AHEAD, Estimate(None))
    else:
        yield from (_ahead(rows, best, other) for other in others)
    if left := int(best.get("left_out") or 0):
        yield value("", LEFT_OUT, _from(best, "left_out"), left)


def _ahead(rows: Sequence[Row], best: Row, other: Row) -> Claim:
    """R² of the best less that of another, with its interval where that was measured."""
    subject = f"{error_name(best['error'])} over {error_name(other['error'])}"
    for sign, first, second in ((1.0, best, other), (-1.0, other, best)):
        found = where(rows, statistic="r2_difference", error=first["error"], other_error=second["error"])
        for row in given(found, "low", "high"):
            low, high = sorted(sign * float(row[end]) for end in ("low", "high"))
            return Claim(subject, AHEAD, Estimate(sign * row["value"], low, high), {}, _from(row, "value"))
    return value(subject, AHEAD, _from(other, "r2"), best["r2"] - other["r2"])


def _exponents(rows: Sequence[Row]) -> Iterator[Claim]:
    for quantity, statistic in ((TOGETHER, "joint"), (ALONE, "exponent")):
        for error in ERRORS:
            for row in where(rows, statistic=statistic, error=error)[:1]:
                yield _claim(error_name(error), quantity, row)


def _pairs(rows: Sequence[Row]) -> Iterator[Claim]:
    for row in ratios(rows):
        beside = {
            f"{error_name(error)} squared": None if (ratio := row.get(f"{error}_ratio")) is None else ratio**2
            for error in ("functional_error", "operator_error")
        }
        yield replace(_claim(compared(row), PAIRS, row), reference=beside)


def _rest(rows: Sequence[Row]) -> Iterator[Claim]:
    for error in ERRORS:
        yield from (_claim(error_name(error), RANK, row) for row in where(rows, statistic="spearman", error=error)[:1])
    own, pooled = (where(rows, statistic="exponent", error=error) for error in (PER_EXPERT, "functional_error"))
    if own and pooled:
        beside = {"pooled_inputs": pooled[0]["r2"]}
        yield value("functional error", OWN, _from(own[0], "r2"), own[0]["r2"], **beside)
    for row in where(rows, statistic="excess", error="functional_error"):
        weight = where(rows, statistic="excess", error="weight_error", families=row["families"])
        same = {"equal weight error": weight[0]["value"] if weight else None}
        yield replace(_claim(str(row["families"]), METHODS, row), reference=same)


def _coverage(rows: Sequence[Row]) -> Iterator[Claim]:
    for name, ours in sites(rows).items():
        yield count(RUNS, Evidence(NAME, "loss_change", len(ours)), len(given(ours, "loss_change")), f"{name},")
    if seeds := {row["seed"] for row in given(rows, "loss_change", "seed")}:
        yield value("", SEEDS, Evidence(NAME, "seed", len(rows)), len(seeds))


def _claim(subject: str, quantity: Quantity, row: Row) -> Claim:
    estimate = Estimate(row["value"], row.get("low"), row.get("high"))
    return Claim(subject, quantity, estimate, {}, _from(row, "value"))


def _from(row: Row, column: str) -> Evidence:
    keys = ("statistic", "error", "other_error", "design", "families", "size")
    known = {key: row[key] for key in keys if row.get(key) is not None}
    return Evidence(CONTRASTS, column, 1, {**known, "site": site(row)})
