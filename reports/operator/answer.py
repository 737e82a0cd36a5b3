"""The answer in plain words, computed from the rows: nothing is said that a number below does not support."""

from reports.formats import fixed, listing, percent
from reports.operator.data import (
    Point,
    average,
    best_of_each,
    bounded,
    compared,
    middle,
    single_mode_cuts,
    title,
)
from reports.run import MODES, Row, Run, Stack, given
from reports.tables import Cell, Table


def answer(run: Run, listed: list[Stack]) -> list[str]:
    """Sentences for the top of the page, the most important first."""
    if not run["tables"].get("operator"):
        return ["No stack was measured, so this run answers nothing yet."]
    said = (_storage(compared(run)), _winner(compared(run)), _optimum(run), _bounds(bounded(run)), _growth(run),
            _tensor(run), _calibrated(run), _coverage(listed))  # fmt: skip
    return [sentence for sentence in said if sentence]


def _storage(points: list[Point]) -> str:
    by_method: dict[str, list[Row]] = {}
    for point in points:
        by_method.setdefault(point.method, []).extend(point.rows)
    parts = []
    for method, rows in by_method.items():
        operator, weight = middle(rows, "operator_over_svd"), middle(rows, "weight_over_svd")
        if method != "svd" and operator is not None and weight is not None:
            parts.append(
                f"{title(method)} {fixed(operator, 2)} times the operator error ({fixed(weight, 2)} the weight error)"
            )
    if not parts:
        return ""
    return (
        "At the storage of each, against a truncated SVD of every expert that stores no more (medians over stacks and "
        f"storages): {listing(parts)}. Above 1 the method is worse than cutting every matrix by itself."
    )


def _winner(points: list[Point]) -> str:
    same, total = best_of_each(points)
    if not total:
        return ""
    return (
        f"At one stack and storage, the method of the least weight error also has the least operator error in "
        f"{same} of {total} cases."
    )


def _optimum(run: Run) -> str:
    parts = []
    for mode in MODES:
        rows = [
            row for row in single_mode_cuts(run, mode) if given(row, "operator_over_optimal", "weight_over_optimal")
        ]
        if rows:
            operator, weight = middle(rows, "operator_over_optimal"), middle(rows, "weight_over_optimal")
            parts.append(f"{mode} mode {fixed(operator, 2)} ({fixed(weight, 2)} in the Frobenius norm)")
    if not parts:
        return ""
    return (
        "How far from what the rank allows (Eckart-Young): one mode of all experts truncated at rank k leaves an "
        f"expert's matrix with a multiple of its own sigma of k + 1, in the median {listing(parts)}. Of the unfolding "
        "that is cut itself it is exactly 1."
    )


def _bounds(rows: list[Row]) -> str:
    if not rows:
        return ""
    measured = [float(row["operator_over_optimal"]) for row in rows]
    above = sum(m > float(row["bound_paper"]) for m, row in zip(measured, rows, strict=True))
    broken = sum(m > float(row["bound_proven"]) * (1 + 1e-6) for m, row in zip(measured, rows, strict=True))
    loose = middle([{"x": float(row["bound_paper"]) / m} for m, row in zip(measured, rows, strict=True)], "x")
    proven = middle([{"x": float(row["bound_proven"]) / m} for m, row in zip(measured, rows, strict=True)], "x")
    how = "is exceeded nowhere" if above == 0 else f"is exceeded in {above} of {len(rows)} unfoldings"
    kept = f"exceeded in {broken} cases, which is a bug" if broken else "exceeded nowhere"
    return (
        f"Where several modes are cut, Corollary 1's bound {how} ({len(rows)} measured); in the median it is "
        f"{fixed(loose, 1)} times the operator error that is really there. The bound that is proven for any spectra "
        f"is {fixed(proven, 1)} times it, and {kept}. "
        f"Measured operator errors are {fixed(min(measured), 2)} to {fixed(max(measured), 2)} times the least of that "
        "rank."
    )


def _growth(run: Run) -> str:
    parts = []
    for mode in MODES:
        rows = growth_slopes(run, mode)
        if rows:
            measured, predicted, law = (
                fixed(average(rows, c), 2) for c in ("slope_measured", "slope_predicted", "slope_power_law")
            )
            parts.append(f"{mode} {measured} (predicted {predicted}, exact power laws of these widths {law})")
    if not parts:
        return ""
    return (
        "Growth of Corollary 1's bound with the width of a mode, as the exponent of the width (means over stacks): "
        f"{listing(parts)}. The prediction, 1/2 minus alpha, is what remains of the power laws for widths far above "
        "the rank."
    )


def growth_slopes(run: Run, mode: str) -> list[Row]:
    """One row a stack, where a slope could be measured."""
    found: dict[tuple[object, ...], Row] = {}
    for row in run["tables"].get("growth", []):
        if row.get("mode") == mode and given(row, "slope_measured"):
            found[row["layer"], row["projection"]] = row
    return list(found.values())


def _tensor(run: Run) -> str:
    rows = [r for r in run["tables"].get("tensor_norm", []) if given(r, "unfolding_over_tensor_upper")]
    if not rows:
        return ""
    share = average([{"x": r["unfolding_over_tensor_upper"] / r["limit"]} for r in rows], "x")
    largest = max(float(row["unfolding_over_tensor_upper"]) for row in rows)
    return (
        "Proposition 1: the norm of an unfolding is at most "
        f"{fixed(middle(rows, 'unfolding_over_tensor_upper'), 2)} times the stack's spectral norm as a tensor in the "
        f"median, {fixed(largest, 2)} at the most, in the mean {percent(share, 0)} of the limit of the worst case. The "
        "tensor's norm is known from below only, so these ratios are upper ends."
    )


def _calibrated(run: Run) -> str:
    rows = run["tables"].get("operator", [])
    if any(given(row, "functional_error") for row in rows):
        return ""
    return "No statistics of the inputs were given (--statistics), so functional errors were not measured."


def _coverage(listed: list[Stack]) -> str:
    measured = sum(bool(stack.rows) for stack in listed)
    return f"Measured: {measured} of {len(listed)} expert stacks." + (
        "" if measured == len(listed) else " The run is incomplete: all of the above holds for the measured part only."
    )


def summary_table(run: Run) -> Table | None:
    """The numbers behind the first sentence, one line a method and storage."""
    if not (found := compared(run)):
        return None
    return storage_table("Methods by storage, means over all measured stacks (relative to the dense norms)", found)


def storage_table(caption: str, found: list[Point]) -> Table:
    """Kept storage and errors of points."""
    headings = ("method", "kept", "weight error", "functional error", "operator error (experts' mean)",
                "largest of an expert", "operator error over the SVD's", "weight error over the SVD's",
                "stacks")  # fmt: skip
    lines = [
        [Cell(text) for text in (
            point.name, percent(point.middle("kept_ratio")), fixed(point.middle("weight_error")),
            fixed(point.middle("functional_error")), fixed(point.middle("operator_error")),
            fixed(average(point.worst, "operator_error", max)), fixed(point.middle("operator_over_svd"), 2),
            fixed(point.middle("weight_over_svd"), 2), str(len(point.rows)),
        )] for point in sorted(found, key=lambda point: (point.middle("kept_ratio") or 0.0, point.name))
    ]  # fmt: skip
    return Table(caption, headings, lines)
