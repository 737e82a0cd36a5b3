"""The rows of `operator` by method and storage, averaged over stacks, and the names that methods are shown under."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, median

from reports.run import MODES, Row, Run, given

_TITLES = {
    "tdmoe": "TD-MoE", "mobe": "MoBE", "moe_svd": "MoE-SVD", "svd_llm": "SVD-LLM", "svd": "SVD of every expert",
    "d2_moe": "D2-MoE", "rtn": "RTN", "truncate": "truncated unfolding",
}  # fmt: skip
_WORDS = {
    "allocation=published": "published ranks", "decomposition=hosvd": "HOSVD", "decomposition=st_hosvd": "ST-HOSVD",
    "whitening=none": "unwhitened",
}  # fmt: skip


def title(method: str) -> str:
    """A spec in a reader's words: `tdmoe:whitening=none,decomposition=hosvd` is 'TD-MoE (HOSVD)'."""
    name, _, options = method.partition(":")
    if name == "truncate":
        return f"{options.removeprefix('mode=')} mode truncated"
    words = [word for option in options.split(",") if option and (word := _WORDS.get(option, option))]
    return _TITLES.get(name, name) + (f" ({', '.join(words)})" if words else "")


def at_storage(row: Row) -> bool:
    """Whether the row is of a method at a storage, and not of the grid of ranks."""
    method = str(row["method"])
    return row.get("ratio") is not None or not (method == "svd" or method.startswith(("truncate:", "tdmoe")))


@dataclass(frozen=True)
class Point:
    """A method at one place of its grid, over all stacks: rows of the experts' mean, and of their maximum."""

    method: str
    ratio: float | None
    rows: list[Row]
    worst: list[Row]

    def middle(self, column: str) -> float | None:
        return average(self.rows, column)

    @property
    def name(self) -> str:
        return title(self.method)


def average(rows: Iterable[Row], column: str, over: Callable[[Sequence[float]], float] = mean) -> float | None:
    """Of the rows that have it."""
    values = [float(row[column]) for row in rows if given(row, column)]
    return over(values) if values else None


def middle(rows: Iterable[Row], column: str) -> float | None:
    """Median of the rows that have it."""
    return average(rows, column, median)


def points(run: Run) -> list[Point]:
    """Every method at every place of its grid, in the order of the table."""
    found: dict[tuple[str, bool, int], tuple[list[Row], list[Row]]] = {}
    seen: dict[tuple[object, ...], int] = {}
    for row in run["tables"].get("operator", []):
        if row.get("expert") not in ("mean", "max"):
            continue
        stack = (row["layer"], row["projection"], row["method"], at_storage(row), row["expert"])
        place = seen[stack] = seen.get(stack, -1) + 1
        rows, worst = found.setdefault((row["method"], at_storage(row), place), ([], []))
        (rows if row["expert"] == "mean" else worst).append(row)
    return [
        Point(method, average(rows, "ratio") if storage else None, rows, worst)
        for (method, storage, _), (rows, worst) in found.items()
    ]


def compared(run: Run) -> list[Point]:
    """Those at a storage."""
    return [point for point in points(run) if at_storage(point.rows[0])]


def bounded(run: Run) -> list[Row]:
    """Rows of unfoldings with a bound, of truncations that cut other modes too: what is lost of one mode alone is 1.

    Where no other mode loses anything, the proven bound is that of Corollary 1 for d = 1.
    """
    rows = [row for row in run["tables"].get("operator", []) if given(row, "bound_paper", "bound_proven")]
    alone = [float(row["bound_paper"]) / sqrt(len(MODES)) for row in rows]
    return [row for row, one in zip(rows, alone, strict=True) if float(row["bound_proven"]) > one * (1 + 1e-6)]


def single_mode_cuts(run: Run, mode: str) -> list[Row]:
    """The experts' means where that mode alone is truncated."""
    rows = run["tables"].get("operator", [])
    return [row for row in rows if row["method"] == f"truncate:mode={mode}" and row.get("expert") == "mean"]


def best_of_each(points_: list[Point]) -> tuple[int, int]:
    """(how often, of how many): at a stack and storage, least weight error and least operator error in one method."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for point in points_:
        for row in point.rows:
            if row.get("ratio") is not None:
                groups.setdefault((row["layer"], row["projection"], row["ratio"]), []).append(row)
    several = [rows for rows in groups.values() if len(rows) > 1]
    same = sum(
        min(rows, key=lambda row: float(row["weight_error"])) is min(rows, key=lambda row: float(row["operator_error"]))
        for rows in several
    )
    return same, len(several)
