"""Conclusions of spectra: how far exponents lie above their baseline, and what a quarter of the rank keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt

from diag.declare.claim import Claim, Evidence, Quantity, count, value
from diag.declare.column import Row
from diag.probes.spectra.columns import difference
from diag.statistics.medians import given, groups, middle
from tdmoe.numerics.gram import MODES

TITLE = "Spectra of the mode unfoldings"
QUESTION = "How far can each mode of the experts' tensor be truncated, and is its spectrum steeper than chance?"

ABOVE = Quantity("above_baseline", "Spectra steeper than that of a Gaussian stack of the same shape", pattern="share")
EXCESS = Quantity(
    "excess", "Alpha above that of the Gaussian stack, in the median", "change",
    after="Close to 0 the slope is that of the unfolding's aspect ratio, no sign of heavy tails.",
)  # fmt: skip
CLEAR = Quantity("clear_excess", "Above it by more than two jackknife standard errors", pattern="share")
KEPT = Quantity(
    "quarter_error", "Weight error that a quarter of one mode's rank leaves, in the median", "percent",
    after="A Tucker decomposition cuts modes together; its error is at least the largest of these.",
)  # fmt: skip
TAIL = Quantity("tail_fitted", "Tails of eigenvalues long enough for a density exponent", pattern="share")
LOGNORMAL = Quantity("lognormal", "Of these, a lognormal fits better than a power law (p < 0.05)", pattern="share")
PAPER = Quantity("paper", "Largest difference to Table 1 of the paper, whose fit range is not stated", "change",
                 "extreme")  # fmt: skip


def claims(tables: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """The most important first; nothing where no exponent has its baseline."""
    rows = [{**row, "excess": difference(row)} for row in tables["spectra"]]
    fitted = given(rows, "excess")
    return [*_modes(fitted), *_rest(rows)] if fitted else []


def _modes(fitted: Sequence[Row]) -> Iterator[Claim]:
    by_mode = groups(fitted, "mode", MODES)
    yield count(ABOVE, _from("alpha", fitted), sum(row["excess"] > 0 for row in fitted))
    for mode, rows in by_mode.items():
        yield value(mode, EXCESS, _from("alpha", rows, mode=mode), middle(rows, "excess"))
    if known := given(fitted, "alpha_jackknife_stderr"):
        clear = sum(row["excess"] > 2 * row["alpha_jackknife_stderr"] for row in known)
        yield count(CLEAR, _from("alpha_jackknife_stderr", known), clear)
    for mode, rows in by_mode.items():
        left, null = (_left(middle(rows, column)) for column in ("energy_25", "energy_25_null"))
        yield value(mode, KEPT, _from("energy_25", rows, mode=mode), left, baseline=null)


def _rest(rows: Sequence[Row]) -> Iterator[Claim]:
    yield count(TAIL, _from("alpha_density", rows), len(given(rows, "alpha_density")))
    if tested := given(rows, "lognormal_ratio", "lognormal_p"):
        against = sum(row["lognormal_p"] < 0.05 and row["lognormal_ratio"] < 0 for row in tested)
        yield count(LOGNORMAL, _from("lognormal_ratio", tested), against)
    if known := given(rows, "alpha", "alpha_paper"):
        worst = max(known, key=lambda row: abs(row["alpha"] - row["alpha_paper"]))
        place = f"layer {worst['layer']}, {worst['projection']}, {worst['mode']}"
        yield value(place, PAPER, _from("alpha_paper", known), worst["alpha"] - worst["alpha_paper"])


def _from(column: str, rows: Sequence[Row], **values: str) -> Evidence:
    return Evidence("spectra", column, len(rows), values)


def _left(energy: float | None) -> float | None:
    """Relative weight error of keeping that share of the energy in one mode."""
    return None if energy is None else sqrt(max(0.0, 1 - energy))
