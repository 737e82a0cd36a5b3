"""The table of `spectra`, and how people read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diag.declare.column import Column, Columns, Row, View
from diag.declare.common_columns import common

_FIT, _TAIL, _RANK, _ENERGY = "log-log fit", "density of the tail", "rank", "energy"
_POINTS, _SHORT = ("insufficient_points",), ("insufficient_points", "insufficient_tail")

TABLES = {
    "spectra": Columns(
        *common("layer", "projection", "mode"),
        Column("n", "singular values of the unfolding", form="integer"),
        Column("alpha", "exponent of sigma_i ~ i^-alpha, by least squares over the fit range of logarithms",
               form="exponent", baseline="alpha_null", group=_FIT, why=_POINTS),
        Column("alpha_stderr", "standard error of that regression, far too small as an uncertainty of alpha",
               "OLS standard error", form="rough", group=_FIT, why=_POINTS),
        Column("r2", "share of the variance that the line explains", "R²", form="exponent", group=_FIT, why=_POINTS),
        Column("fit_first", "first index of the fit range", form="integer", group=_FIT, why=_POINTS),
        Column("fit_last", "last index of the fit range", form="integer", group=_FIT, why=_POINTS),
        Column("alpha_null", "the same fit on a Gaussian stack of that shape", form="exponent"),
        Column("alpha_density", "exponent of the density of the eigenvalues, by maximum likelihood", "exponent",
               form="factor", error="alpha_density_stderr", group=_TAIL, why=_SHORT),
        Column("effective_rank", "exponential of the entropy of sigma_i / sum sigma", form="dimension",
               baseline="effective_rank_null", group=_RANK),
        Column("stable_rank", "sum of sigma^2 over the largest sigma^2", form="dimension", group=_RANK),
        Column("sigma_max", "largest singular value", "largest σ", form="norm", group=_RANK),
        Column("noise_floor", "singular value below which nothing is fitted", "noise floor of σ", form="rough",
               group=_RANK),
        *common("status"),
        Column("alpha_jackknife_stderr", "standard error of alpha by leaving out groups of experts",
               "jackknife standard error of alpha", form="rough", group=_FIT),
        Column("alpha_density_stderr", "standard error of alpha_density", form="rough"),
        Column("density_xmin", "eigenvalue from which the density is fitted", "tail starts at λ", group=_TAIL,
               why=_SHORT),
        Column("density_tail", "eigenvalues in the tail", "values", form="integer", group=_TAIL, why=_SHORT),
        Column("lognormal_ratio", "log-likelihood of the power law less that of a lognormal", "against lognormal",
               group=_TAIL, why=_SHORT),
        Column("lognormal_p", "chance of a ratio as large if both fitted equally well", "p", form="rough", group=_TAIL,
               why=_SHORT),
        Column("truncated_ratio", "log-likelihood of the power law less that of a truncated one", "against truncated",
               group=_TAIL, why=_SHORT),
        Column("truncated_p", "chance of a ratio as large if both fitted equally well", "p", form="rough", group=_TAIL,
               why=_SHORT),
        Column("effective_rank_null", "effective rank of the Gaussian stack", form="dimension"),
        Column("energy_10", "share of sum sigma^2 in the first tenth of the indices", "10 % of the rank",
               form="percent", baseline="energy_10_null", group=_ENERGY),
        Column("energy_25", "share of sum sigma^2 in the first quarter", "25 % of the rank", form="percent",
               baseline="energy_25_null", group=_ENERGY),
        Column("energy_50", "share of sum sigma^2 in the first half", "50 % of the rank", form="percent",
               baseline="energy_50_null", group=_ENERGY),
        Column("energy_10_null", "energy_10 of the Gaussian stack", form="percent"),
        Column("energy_25_null", "energy_25 of the Gaussian stack", form="percent"),
        Column("energy_50_null", "energy_50 of the Gaussian stack", form="percent"),
        Column("alpha_paper", "exponent in Table 1 of the paper, whose fit range is not stated", "paper",
               form="exponent"),
        Column("precision", "type in which products were taken", form="text"),
    )
}  # fmt: skip
_SPECTRA = TABLES["spectra"]


def views(tables: Mapping[str, Sequence[Row]]) -> list[View]:
    """Table 1 of the paper; the excess of every exponent over its baseline; everything."""
    rows = tables["spectra"]
    keys = ("layer", "projection")
    published = ("alpha_paper",) if any(row.get("alpha_paper") is not None for row in rows) else ()
    caption = "Exponent alpha of each unfolding, in brackets that of a Gaussian stack of the same shape (no unit)"
    exponents = _SPECTRA.pick(*keys, "mode", "alpha", "alpha_null", *published)
    excess = Column("excess", "alpha less alpha_null", "alpha − baseline", form="change", why=_POINTS)
    over = [{**row, "excess": difference(row)} for row in rows]
    return [
        View("exponents", "Exponents", caption, exponents, rows, keys, "mode"),
        View("depth", "Exponents over depth", "Alpha less that of the Gaussian baseline (no unit)",
             [*_SPECTRA.pick(*keys, "mode"), excess], over, keys, "mode", folded=True),
        View("measurements", "All measurements", "All measurements, a line an unfolding", _SPECTRA.pick(), rows,
             folded=True),
    ]  # fmt: skip


def difference(row: Row) -> float | None:
    """alpha - alpha_null; None where either is missing."""
    alpha, null = row.get("alpha"), row.get("alpha_null")
    return None if alpha is None or null is None else float(alpha) - float(null)
