"""The rows of an `experts` run by stack: what was asked for, measured or not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from reports.formats import fixed, listing
from reports.run import Row, Run, given, projection_order

SIMILARITIES = ("cosine", "aligned_cosine", "input_overlap", "output_overlap", "cka", "cka_isotropic")
NAMES = {
    "cosine": "cosine of weights",
    "aligned_cosine": "cosine, units aligned",
    "input_overlap": "overlap of leading input directions",
    "input_angle": "angle of leading input directions, mean (degrees)",
    "input_angle_least": "angle of leading input directions, least (degrees)",
    "output_overlap": "overlap of leading output directions",
    "output_angle": "angle of leading output directions, mean (degrees)",
    "output_angle_least": "angle of leading output directions, least (degrees)",
    "cka": "CKA on the inputs' second moment",
    "cka_isotropic": "CKA on isotropic inputs",
}

_JOB = re.compile(r"experts-L(\d+)-(.+)", re.DOTALL)


@dataclass
class WeightStack:
    """One (layer, projection): rows of the three tables, arrays, and the state of the job that made them."""

    layer: int
    projection: str
    state: str = "done"
    points: list[Row] = field(default_factory=list)
    binding: dict[float, Row] = field(default_factory=dict)
    similar: dict[str, Row] = field(default_factory=dict)
    arrays: Any = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"L{self.layer} {self.projection}"

    def curve(self, ratio: float) -> list[Row]:
        """The best triple of every expert rank."""
        return [row for row in self.points if row.get("point") == "curve" and row["ratio"] == ratio]

    def headlines(self, ratio: float) -> dict[tuple[str, str], Row]:
        """{(allocation, expert mode): row}; without ranks where no expert can be cut."""
        rows = (row for row in self.points if row.get("point") == "headline" and row["ratio"] == ratio)
        return {(row["allocation"], row["expert_mode"]): row for row in rows}


def expert_stacks(run: Run) -> list[WeightStack]:
    """Every stack of the run in order, from its jobs and its rows."""
    found: dict[tuple[int, str], WeightStack] = {}
    for job in run["jobs"]:
        if match := _JOB.fullmatch(job["key"]):
            stack = WeightStack(int(match[1]), match[2], job["state"], arrays=run["arrays"].get(job["key"], {}))
            found[stack.layer, stack.projection] = stack

    def of(row: Row) -> WeightStack:
        key = int(row["layer"]), str(row["projection"])
        return found.setdefault(key, WeightStack(*key))

    for row in run["tables"].get("experts", []):
        of(row).points.append(row)
    for row in run["tables"].get("binding", []):
        if given(row, "ratio"):
            of(row).binding[row["ratio"]] = row
    for row in run["tables"].get("similarity", []):
        if given(row, "measure"):
            of(row).similar[row["measure"]] = row
    return sorted(found.values(), key=lambda stack: (stack.layer, projection_order(stack.projection)))


def ratios_of(listed: Sequence[WeightStack]) -> list[float]:
    """The ratios that occur, ascending."""
    return sorted({ratio for stack in listed for ratio in stack.binding})


def answered(listed: Sequence[WeightStack], ratio: float, *columns: str) -> list[Row]:
    """Rows of `binding` at a ratio that hold these columns."""
    rows = [stack.binding[ratio] for stack in listed if ratio in stack.binding]
    return [row for row in rows if given(row, *columns)]


def middle(rows: Sequence[Row], column: str) -> float | None:
    """Median over the rows that hold the column."""
    values = [float(row[column]) for row in rows if given(row, column)]
    return median(values) if values else None


def beside_null(rows: Sequence[Row], *, up: bool) -> str:
    """What cutting costs independent experts, and in how many stacks the two are told apart; nothing without it.

    They are where the baseline lies outside the interval of the stack's own change; `up`: as what it raises.
    """
    known = [row for row in rows if given(row, "gain", "gain_null", "gain_low", "gain_high")]
    if (null := middle(rows, "gain_null")) is None:
        return ""
    said = f"independent experts' by {fixed((-100 if up else 100) * null, 1)}\N{NO-BREAK SPACE}%"
    apart = [row for row in known if not row["gain_low"] <= row["gain_null"] <= row["gain_high"]]
    cheaper = sum(row["gain"] > row["gain_null"] for row in apart)
    if not known:
        return f"{said} (no interval)"
    if not apart:
        return f"{said}, not told apart: nothing is claimed of what experts share"
    ways = ((cheaper, "cheaper"), (len(apart) - cheaper, "dearer"))
    how = listing([f"{word} in {count}" for count, word in ways if count])
    rest = "; of the others nothing is claimed" if len(apart) < len(known) else ""
    return f"{said}, told apart in {len(apart)} of {len(known)} stacks ({how}){rest}"


def metric_name(listed: Sequence[WeightStack]) -> str:
    """What errors are measured in."""
    rows = [row for stack in listed for row in stack.points if row.get("metric") == "inputs"]
    if not rows:
        return "weight error"
    curves = [row for row in rows if row.get("point") == "curve"]
    return "functional error" if all(given(row, "functional_error") for row in curves) else "damped functional error"
