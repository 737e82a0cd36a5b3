"""What spectra conclude: how far exponents lie above their baseline, and what a quarter of the rank keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt

from diag.declare.claim import Claim, Estimate, Evidence, Quantity
from diag.declare.column import Row
from diag.probes.spectra.columns import difference
from diag.statistics.medians import given, middle, where
from tdmoe.numerics.gram import MODES

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
    rows = tables["spectra"]
    fitted = given(rows, "alpha", "alpha_null")
    if not fitted:
        return []
    return [_share(ABOVE, "alpha", fitted, [row for row in fitted if _excess(row) > 0]), *_modes(fitted), *_rest(rows)]


def _modes(fitted: Sequence[Row]) -> Iterator[Claim]:
    by_mode = {mode: ours for mode in MODES if (ours := where(fitted, mode=mode))}
    for mode, rows in by_mode.items():
        excess = middle([{"excess": _excess(row)} for row in rows], "excess")
        yield Claim(mode, EXCESS, Estimate(excess), evidence=_from("alpha", rows, mode=mode))
    known = given(fitted, "alpha_jackknife_stderr")
    if known:
        yield _share(CLEAR, "alpha_jackknife_stderr", known,
                     [row for row in known if _excess(row) > 2 * row["alpha_jackknife_stderr"]])  # fmt: skip
    for mode, rows in by_mode.items():
        left, null = (_left(middle(rows, column)) for column in ("energy_25", "energy_25_null"))
        yield Claim(mode, KEPT, Estimate(left), {"baseline": null}, _from("energy_25", rows, mode=mode))


def _rest(rows: Sequence[Row]) -> Iterator[Claim]:
    tails = given(rows, "alpha_density")
    yield _share(TAIL, "alpha_density", rows, tails)
    if tested := given(rows, "lognormal_ratio", "lognormal_p"):
        against = [row for row in tested if row["lognormal_p"] < 0.05 and row["lognormal_ratio"] < 0]
        yield _share(LOGNORMAL, "lognormal_ratio", tested, against)
    if known := given(rows, "alpha", "alpha_paper"):
        worst = max(known, key=lambda row: abs(row["alpha"] - row["alpha_paper"]))
        place = f"layer {worst['layer']}, {worst['projection']}, {worst['mode']}"
        yield Claim(place, PAPER, Estimate(worst["alpha"] - worst["alpha_paper"]), evidence=_from("alpha_paper", known))


def _share(quantity: Quantity, column: str, rows: Sequence[Row], found: Sequence[Row]) -> Claim:
    return Claim("", quantity, Estimate(len(found), of=len(rows)), evidence=_from(column, rows))


def _from(column: str, rows: Sequence[Row], **values: str) -> Evidence:
    return Evidence("spectra", column, len(rows), values)


def _excess(row: Row) -> float:
    found = difference(row)
    assert found is not None, "rows with both exponents"
    return found


def _left(energy: float | None) -> float | None:
    """Relative weight error of keeping that share of the energy in one mode."""
    return None if energy is None else sqrt(max(0.0, 1 - energy))
