"""The tables of `operator`, and how people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import median
from typing import Any

from diag.declare.column import Column, Columns, Row, View
from diag.declare.common_columns import COMMON, common
from diag.statistics.medians import given, over, where
from tdmoe.numerics.gram import MODES

_NO_RANK = ("full_rank", "below_noise_floor")
_SLOPE = ("insufficient_points",)

TABLES = {
    "operator": Columns(
        *common("layer", "projection", "expert", "mode", "method", "rank", "stored_bits", "kept_ratio", "weight_error"),
        *common("functional_error", "operator_error"),
        Column("operator_error_upper", "end above which operator_error certainly does not lie", "its upper end",
               form="error"),
        Column("operator_over_optimal", "operator error over sigma of k + 1, the least that rank k can leave",
               "operator error over the least of the rank", form="factor", why=_NO_RANK),
        Column("bound_paper", "Corollary 1 of the paper on operator_over_optimal", "Corollary 1", form="factor",
               why=_NO_RANK),
        Column("bound_proven", "what is proven on it for any spectra", "proven bound", form="factor", why=_NO_RANK),
        *common("status", "ratio"),
        Column("operator_norm", "||W_e - W^_e||_2", form="norm"),
        Column("operator_norm_upper", "end above which operator_norm certainly does not lie", form="norm"),
        Column("upper_end", "what gave the upper ends", form="text"),
        Column("sigma_next", "sigma of k + 1", form="norm", why=_NO_RANK),
        Column("weight_over_optimal", "weight error over the least that rank k can leave",
               "weight error over the least of the rank", form="factor", why=_NO_RANK),
        Column("operator_over_svd", "operator error over that of an SVD of every expert that stores no more",
               "operator error over the SVD's", form="factor"),
        Column("weight_over_svd", "weight error over that of the same SVD", "weight error over the SVD's",
               form="factor"),
        *common("variant"),
    ),
    "growth": Columns(
        *common("layer", "projection", "mode"),
        Column("width", "indices of the mode that are kept", form="integer"),
        Column("alpha", "rank exponent, fitted anew at this width", form="exponent"),
        Column("bound", "Corollary 1's bound at rank k", form="factor"),
        Column("slope_measured", "slope of log bound on log width", form="exponent", why=_SLOPE),
        Column("slope_predicted", "1/2 less the mean alpha", form="exponent", why=_SLOPE),
        *common("status"),
        Column("k", "rank", form="integer"),
        Column("slope_power_law", "slope of exact power laws with these exponents at these widths",
               "slope of exact power laws", form="exponent", why=_SLOPE),
    ),
    "tensor_norm": Columns(
        *common("layer", "projection", "mode"),
        Column("unfolding_norm", "largest singular value of the unfolding", "unfolding", form="norm"),
        Column("tensor_norm_lower", "lower end of the stack's spectral norm as a tensor", "tensor, at least",
               form="norm"),
        Column("unfolding_over_tensor_upper", "upper end of their ratio", "ratio, at most", form="factor"),
        Column("limit", "limit of Proposition 1", "limit of Proposition 1", form="factor"),
        Column("starts", "starts of the power iteration", form="integer"),
        Column("rounds", "rounds of it", form="integer"),
        *common("status"),
    ),
}  # fmt: skip
_OPERATOR = TABLES["operator"]
_POINT = [
    *common("method", "ratio", "kept_ratio", "weight_error", "functional_error", "operator_error"),
    Column("largest", "largest operator error of an expert", "largest of an expert", form="error"),
    *_OPERATOR.pick("operator_over_svd", "weight_over_svd"),
    Column("stacks", "stacks in the mean", form="integer"),
]
_BOUNDS = [
    COMMON["method"], COMMON["mode"],
    Column("middle", "measured over the least of the rank, median", "measured, median", form="factor"),
    Column("largest", "measured over the least of the rank, largest", "measured, largest", form="factor"),
    Column("paper", "Corollary 1, median", "Corollary 1, median", form="factor"),
    Column("proven", "proven bound, median", "proven, median", form="factor"),
    Column("above", "unfoldings above Corollary 1", "above Corollary 1", form="integer"),
    Column("unfoldings", "unfoldings measured", form="integer"),
]  # fmt: skip


def views(tables: Mapping[str, Sequence[Row]]) -> list[View]:
    """Methods at equal storage; every rank; bounds; growth; tensor norms; all experts' means."""
    rows, keys = tables["operator"], ("layer", "projection", "mode")
    means = [row for row in rows if row.get("expert") == "mean" or "method" not in row]
    found = points(rows)
    stored = sorted((point for point in found if point["at_storage"]), key=lambda p: (p["kept_ratio"], p["method"]))
    measurements = _OPERATOR.pick(
        *("layer", "projection", "method", "rank", "kept_ratio", "weight_error", "functional_error", "operator_error"),
        *("operator_error_upper", "operator_over_optimal", "weight_over_optimal", "operator_over_svd", "status"),
    )
    return [
        View("methods", "Methods at equal storage", "Means over stacks, relative to the dense norms", _POINT, stored),
        View("storage", "Operator and Frobenius error over storage", "Every method at every storage and rank, means "
             "over stacks", _POINT, found, folded=True),
        View("bounds", "Measured operator error and its bounds", "Operator error of unfoldings over the least of the "
             "rank, and its bounds", _BOUNDS, _bounds(bounded(rows)), folded=True),
        View("growth", "Growth of the bound with the width", "Corollary 1's bound at a fixed rank on parts of the "
             "stack", TABLES["growth"].pick(*keys, "width", "k", "alpha", "bound", "slope_measured", "slope_predicted",
                                            "slope_power_law"), tables.get("growth", ()), folded=True),
        View("tensor-norm", "Spectral norm as a tensor", "Spectral norms of the unfoldings beside that of the stack",
             TABLES["tensor_norm"].pick(), tables.get("tensor_norm", ()), folded=True),
        View("measurements", "All methods and ranks", "Means over experts, a line a stack, method and rank",
             measurements, means, folded=True),
    ]  # fmt: skip


def at_storage(row: Row) -> bool:
    """Tell whether the row is of a method at a storage, and not of the grid of ranks."""
    method = str(row["method"])
    return row.get("ratio") is not None or not (method == "svd" or method.startswith(("truncate:", "tdmoe")))


def points(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every method at every place of its grid, as means over stacks; the place is that of its row in each stack."""
    found: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
    seen: dict[tuple[Any, ...], int] = {}
    for row in rows:
        if row.get("expert") not in ("mean", "max"):
            continue
        stack = (row["layer"], row["projection"], row["method"], at_storage(row), row["expert"])
        place = seen[stack] = seen.get(stack, -1) + 1
        kinds = found.setdefault((row["method"], at_storage(row), place), {"mean": [], "max": []})
        kinds[row["expert"]].append(row)
    columns = (
        "kept_ratio",
        "weight_error",
        "functional_error",
        "operator_error",
        "operator_over_svd",
        "weight_over_svd",
    )
    return [
        {"method": method, "at_storage": stored, "ratio": over(kinds["mean"], "ratio") if stored else None}
        | {column: over(kinds["mean"], column) for column in columns}
        | {
            "largest": over(kinds["max"], "operator_error", max),
            "stacks": len(kinds["mean"]),
            "status": "not_calibrated",
        }
        for (method, stored, _), kinds in found.items()
    ]


def bounded(rows: Sequence[Row]) -> list[Row]:
    """Rows of unfoldings with a bound, of truncations that cut other modes too: what is lost of one mode alone is 1.

    Where no other mode loses anything, the proven bound is that of Corollary 1 for d = 1.
    """
    found = given(rows, "bound_paper", "bound_proven")
    return [row for row in found if row["bound_proven"] > row["bound_paper"] / sqrt(len(MODES)) * (1 + 1e-6)]


def _bounds(rows: Sequence[Row]) -> list[Row]:
    found: list[Row] = []
    for method in sorted({row["method"] for row in rows}):
        for mode in MODES:
            if ours := where(rows, method=method, mode=mode):
                measured = {"middle": over(ours, "operator_over_optimal", median),
                            "largest": over(ours, "operator_over_optimal", max)}  # fmt: skip
                limits = {name: over(ours, f"bound_{name}", median) for name in ("paper", "proven")}
                above = sum(row["operator_over_optimal"] > row["bound_paper"] for row in ours)
                found.append({"method": method, "mode": mode, **measured, **limits, "above": above,
                              "unfoldings": len(ours)})  # fmt: skip
    return found
