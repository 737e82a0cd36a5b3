"""Conclusions from operator errors: methods at equal storage, distance to the optimum, the paper's bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from statistics import median

from diag.declare.claim import Claim, Estimate, Evidence, Quantity, count, value
from diag.declare.column import Row
from diag.probes.operator.columns import at_storage, bounded
from diag.statistics.medians import given, groups, middle, over, where
from tdmoe.numerics.gram import MODES

TITLE = "Operator against Frobenius error"
QUESTION = "Is what a method loses larger as an operator than its Frobenius error says, and does the bound hold?"

OPERATOR = Quantity(
    "operator_over_svd", "Operator error over that of an SVD that stores no more, in the median", "factor", "best",
    after="The SVD cuts every expert's matrix by itself; above 1 a method is worse than that.",
)  # fmt: skip
WEIGHT = Quantity("weight_over_svd", "Weight error over that of the same SVD, in the median", "factor", "best")
WINNER = Quantity("same_best", "Method of the least weight error is also that of the least operator error", "integer",
                  "share")  # fmt: skip
OPTIMUM = Quantity(
    "operator_over_optimal", "One mode cut to rank k leaves of an expert, over sigma of k + 1, in the median", "factor",
    after="1 is the least that the rank allows (Eckart-Young).",
)  # fmt: skip
EXCEEDED = Quantity("bound_exceeded", "Corollary 1's bound is exceeded", pattern="share")
PROVEN = Quantity("proven_exceeded", "The proven bound is exceeded, which is a bug", pattern="share")
LOOSE = Quantity(
    "bound_over_measured", "Bounds as a multiple of the operator error that is there, in the median", "factor"
)
GROWTH = Quantity(
    "growth", "Growth of Corollary 1's bound with the width of a mode, as the exponent of the width", "factor",
    after="The prediction, 1/2 less alpha, is what remains of power laws for widths far above the rank.",
)  # fmt: skip
TENSOR = Quantity(
    "unfolding_over_tensor", "Norm of an unfolding over the stack's spectral norm as a tensor, at most", "factor",
    after="Proposition 1 limits it; the tensor's norm is known from below only.",
)  # fmt: skip
FUNCTIONAL = Quantity("functional_error", "Functional error")


def claims(tables: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """The most important first."""
    rows = tables["operator"]
    if not rows:
        return []
    means = where(rows, expert="mean")
    found = [*_storage([row for row in means if at_storage(row)]), *_optimum(means), *_bounds(bounded(rows))]
    found += [*_growth(tables.get("growth", ())), *_tensor(tables.get("tensor_norm", ()))]
    if not given(rows, "functional_error"):
        found.append(Claim("no statistics of the inputs were given (--statistics)", FUNCTIONAL, Estimate(None)))
    return found


def _storage(means: Sequence[Row]) -> Iterator[Claim]:
    for quantity in (OPERATOR, WEIGHT):
        for method, ours in groups(given(means, quantity.name), "method").items():
            if method != "svd":
                yield _middle(method, quantity, "operator", quantity.name, ours, method=method)
    stacks = [((row["layer"], row["projection"], row["ratio"]), row) for row in given(means, "ratio")]
    places = [[row for at, row in stacks if at == place] for place in dict.fromkeys(at for at, _ in stacks)]
    if several := [ours for ours in places if len(ours) > 1]:
        least = [[min(ours, key=itemgetter(error)) for error in ("weight_error", "operator_error")] for ours in several]
        yield count(WINNER, Evidence("operator", "operator_error", len(several)), sum(w is o for w, o in least))


def _optimum(means: Sequence[Row]) -> Iterator[Claim]:
    for mode in MODES:
        method = f"truncate:mode={mode}"
        if ours := given(where(means, method=method), "operator_over_optimal", "weight_over_optimal"):
            frobenius = middle(ours, "weight_over_optimal")
            yield _middle(mode, OPTIMUM, "operator", OPTIMUM.name, ours, {"Frobenius_norm": frobenius}, method=method)


def _bounds(rows: Sequence[Row]) -> Iterator[Claim]:
    if not rows:
        return
    for quantity, column, room in ((EXCEEDED, "bound_paper", 1.0), (PROVEN, "bound_proven", 1 + 1e-6)):
        above = sum(row["operator_over_optimal"] > row[column] * room for row in rows)
        if above or quantity is EXCEEDED:
            yield count(quantity, Evidence("operator", column, len(rows)), above)
    for name, column in (("Corollary 1", "bound_paper"), ("proven", "bound_proven")):
        multiples = median(row[column] / row["operator_over_optimal"] for row in rows)
        yield value(name, LOOSE, Evidence("operator", column, len(rows)), multiples)


def _growth(rows: Sequence[Row]) -> Iterator[Claim]:
    for mode, found in groups(given(rows, "slope_measured"), "mode", MODES).items():
        ours = list({(row["layer"], row["projection"]): row for row in found}.values())
        slopes = [over(ours, f"slope_{name}") for name in ("measured", "predicted", "power_law")]
        evidence = Evidence("growth", "slope_measured", len(ours), {"mode": mode})
        yield value(mode, GROWTH, evidence, slopes[0], predicted=slopes[1], exact_power_laws=slopes[2])


def _tensor(rows: Sequence[Row]) -> Iterator[Claim]:
    column = "unfolding_over_tensor_upper"
    for mode, ours in groups(given(rows, column), "mode", MODES).items():
        yield _middle(mode, TENSOR, "tensor_norm", column, ours, {"limit": middle(ours, "limit")}, mode=mode)


def _middle(
    subject: str, quantity: Quantity, table: str, column: str, rows: Sequence[Row],
    reference: Mapping[str, float | None] | None = None, **values: str,
) -> Claim:  # fmt: skip
    evidence = Evidence(table, column, len(rows), values)
    return value(subject, quantity, evidence, middle(rows, column), **(reference or {}))
