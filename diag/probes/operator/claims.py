"""What the operator errors conclude: methods at equal storage, distance to the optimum, the paper's bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from diag.declare.claim import Claim, Estimate, Evidence, Quantity
from diag.declare.column import Row
from diag.probes.operator.columns import at_storage, bounded
from diag.statistics.medians import given, middle, over, where
from tdmoe.numerics.gram import MODES

SVD = "a truncated SVD of every expert that stores no more"
OPERATOR = Quantity(
    "operator_over_svd", f"Operator error as a multiple of that of {SVD}, in the median", "factor", "best",
    after="Above 1 the method is worse than cutting every matrix by itself.",
)  # fmt: skip
WEIGHT = Quantity("weight_over_svd", "Weight error as a multiple of the same SVD's, in the median", "factor", "best")
WINNER = Quantity("same_best", "Method of the least weight error is also that of the least operator error", "integer",
                  "share")  # fmt: skip
OPTIMUM = Quantity(
    "operator_over_optimal", "One mode truncated at rank k leaves of an expert, in multiples of its sigma of k + 1 "
    "(Eckart-Young), in the median", "factor",
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
    methods = [method for method in dict.fromkeys(row["method"] for row in means) if method != "svd"]
    for quantity in (OPERATOR, WEIGHT):
        for method in methods:
            ours = given(where(means, method=method), quantity.name)
            if ours:
                yield _claim(
                    method, quantity, middle(ours, quantity.name), "operator", quantity.name, ours, method=method
                )
    places: dict[tuple[object, ...], list[Row]] = {}
    for row in given(means, "ratio"):
        places.setdefault((row["layer"], row["projection"], row["ratio"]), []).append(row)
    several = [ours for ours in places.values() if len(ours) > 1]
    if several:
        same = sum(min(ours, key=_by("weight_error")) is min(ours, key=_by("operator_error")) for ours in several)
        yield Claim(
            "", WINNER, Estimate(same, of=len(several)), evidence=Evidence("operator", "operator_error", len(means))
        )


def _optimum(means: Sequence[Row]) -> Iterator[Claim]:
    for mode in MODES:
        method = f"truncate:mode={mode}"
        ours = given(where(means, method=method), "operator_over_optimal", "weight_over_optimal")
        if ours:
            frobenius = {"Frobenius norm": middle(ours, "weight_over_optimal")}
            yield _claim(
                mode, OPTIMUM, middle(ours, OPTIMUM.name), "operator", OPTIMUM.name, ours, frobenius, method=method
            )


def _bounds(rows: Sequence[Row]) -> Iterator[Claim]:
    if not rows:
        return
    for quantity, column, room in ((EXCEEDED, "bound_paper", 1.0), (PROVEN, "bound_proven", 1 + 1e-6)):
        above = sum(row["operator_over_optimal"] > row[column] * room for row in rows)
        if above or quantity is EXCEEDED:
            yield Claim("", quantity, Estimate(above, of=len(rows)), evidence=Evidence("operator", column, len(rows)))
    for name, column in (("Corollary 1", "bound_paper"), ("proven", "bound_proven")):
        multiples = [{"x": row[column] / row["operator_over_optimal"]} for row in rows]
        yield _claim(name, LOOSE, middle(multiples, "x"), "operator", column, rows)


def _growth(rows: Sequence[Row]) -> Iterator[Claim]:
    for mode in MODES:
        stacks = {(row["layer"], row["projection"]): row for row in given(where(rows, mode=mode), "slope_measured")}
        if ours := list(stacks.values()):
            others = {"predicted": over(ours, "slope_predicted"), "exact power laws": over(ours, "slope_power_law")}
            yield _claim(
                mode, GROWTH, over(ours, "slope_measured"), "growth", "slope_measured", ours, others, mode=mode
            )


def _tensor(rows: Sequence[Row]) -> Iterator[Claim]:
    for mode in MODES:
        ours = given(where(rows, mode=mode), "unfolding_over_tensor_upper")
        if ours:
            middles = middle(ours, "unfolding_over_tensor_upper")
            yield _claim(mode, TENSOR, middles, "tensor_norm", "unfolding_over_tensor_upper", ours,
                         {"limit": middle(ours, "limit")}, mode=mode)  # fmt: skip


def _claim(
    subject: str, quantity: Quantity, value: float | None, table: str, column: str, rows: Sequence[Row],
    reference: Mapping[str, float | None] | None = None, **values: str,
) -> Claim:  # fmt: skip
    return Claim(subject, quantity, Estimate(value), reference or {}, Evidence(table, column, len(rows), values))


def _by(column: str) -> Callable[[Row], float]:
    return lambda row: float(row[column])
