"""Rows of the tables as the page reads them: two ladders, what stands beside them, the gap between them.

`damage` is the mean held-out loss above the dense model's, in nats a token, paired by window. The gap is the damage of
TD-MoE as published less that of MoBE; where it cannot be told from nothing (status `no_gap`) no share of it is given.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reports import intervals
from reports.attribution.closed import Shares, of_one_run
from reports.formats import EMPTY, fixed
from reports.intervals import between
from reports.run import MODES, Row, Run, given
from reports.tables import status_of

TDMOE, COMBINATION, MOBE, BESIDE = "tdmoe", "combination", "mobe", "beside"
DENSE = "dense"
NO_GAP = "no_gap"
SAME_FORM = (
    "MoBE with one basis and no nonlinearity has the form of a Tucker decomposition that cuts the input mode alone"
)
_TELLING = ("weight_error", "functional_error")
_OF_A_PRESET = {"preset", "steps", "groups", "alignment", "damping"}
_SAME = 1e-6  # of a share that is 1 by definition


@dataclass(frozen=True)
class Step:
    """One row of attribution.csv."""

    row: Row

    @property
    def name(self) -> str:
        return str(self.row.get("step") or self.row.get("method") or "unnamed")

    @property
    def short(self) -> str:
        """Without what a combination consists of."""
        return self.name.partition(":")[0] if self.row.get("ladder") == COMBINATION else self.name

    @property
    def method(self) -> str:
        return str(self.row.get("method") or "")

    @property
    def family(self) -> str:
        """The method without its options."""
        return self.method.partition(":")[0]

    @property
    def options(self) -> dict[str, str]:
        """Those that the method's spec gives."""
        given_ = (part.partition("=") for part in self.method.partition(":")[2].split(",") if part)
        return {key: value for key, _, value in given_}

    @property
    def is_preset(self) -> bool:
        """MoBE as a whole: its sizes, nonlinearity and mixing are those of its preset."""
        return self.family == MOBE and set(self.options) <= _OF_A_PRESET

    @property
    def preset(self) -> str:
        """`published, 3,000 steps`: which MoBE this is."""
        steps = self.options.get("steps", "0")
        said = f", {int(steps):,} steps" if steps.isdigit() and int(steps) else ""
        return self.options.get("preset", "corrected") + said

    @property
    def measured(self) -> bool:
        return given(self.row, "loss_difference_nats")

    @property
    def damage(self) -> float:
        """Nats above dense; ask `measured` first."""
        return float(self.row["loss_difference_nats"])

    @property
    def reason(self) -> str:
        """Why it was not measured."""
        status = status_of(self.row)
        return status if status not in ("", NO_GAP.replace("_", " ")) else "not measured"

    def value(self, column: str) -> float | None:
        return float(self.row[column]) if given(self.row, column) else None

    def stderr(self, column: str = "loss_difference_nats") -> float:
        """Of a column, 0 where it has none: a bar of no length."""
        return self.value(f"{column}_stderr") or 0.0

    def says(self, column: str = "loss_difference_nats") -> str:
        """The value ± its standard error."""
        return with_error(self.value(column), self.value(f"{column}_stderr"), signed=column == "change_nats")

    def closed(self, places: int = 1) -> str:
        """Share of the gap with its interval, in per cent."""
        return share(self.row, "gap_closed", "gap_low", "gap_high", places)


@dataclass
class Attribution:
    """The whole run."""

    tdmoe: list[Step] = field(default_factory=list)
    combinations: list[Step] = field(default_factory=list)  # the best one of TD-MoE's switches, where it is no step
    mobe: list[Step] = field(default_factory=list)
    beside: list[Step] = field(default_factory=list)
    switches: list[Row] = field(default_factory=list)
    predictors: list[Row] = field(default_factory=list)
    table: list[Row] = field(default_factory=list)  # of shares

    @property
    def everything(self) -> list[Step]:
        return [*self.tensors, *self.mobe, *self.beside]

    @property
    def tensors(self) -> list[Step]:
        """TD-MoE's ladder, and what stands beside it of the same switches."""
        return [*self.tdmoe, *self.combinations]

    @property
    def dense(self) -> Step | None:
        return next((step for step in self.beside if step.method == DENSE), None)

    @property
    def published(self) -> Step | None:
        """The first step of TD-MoE's ladder, if it was measured."""
        return self.tdmoe[0] if self.tdmoe and self.tdmoe[0].measured else None

    @property
    def best(self) -> Step | None:
        """The TD-MoE that adds least to the loss, of those of the reference's projections where there are any.

        It is the one that the shares of the gap are of.
        """
        measured = [step for step in self.tensors if step.measured]
        named = [s for s in measured if (s.row.get("ladder"), s.row.get("step")) == Shares(self.table).step]
        alike = self.like(self.reference) if self.reference is not None else []
        return _least(named or alike or measured)

    @property
    def shares(self) -> Shares:
        """How much of the gap is how TD-MoE was run; without the table, of the best step's own row."""
        best, reference = self.best, self.reference
        closed = None if best is None else best.value("gap_closed")
        if self.table or best is None or reference is None or closed is None:
            return Shares(self.table)
        paired = best.value("mobe_difference_nats")
        rest = best.damage - reference.damage if paired is None else paired
        ends = (best.value(f"mobe_difference_{end}") for end in ("low", "high"))
        share = between(best.value("gap_low"), closed, best.value("gap_high"))
        refitted = best.options.get("refit") == "expert"
        return of_one_run(share, between(next(ends), rest, next(ends)), refitted=refitted)

    @property
    def wider(self) -> Step | None:
        """A TD-MoE of other projections than the reference's that adds less than the best of those."""
        least = _least([step for step in self.tensors if step.measured])
        return None if least is self.best else least

    @property
    def reference(self) -> Step | None:
        """The MoBE that the gap is to: whose share is 1 by definition, otherwise the preset that adds least."""
        found = [step for step in self.presets if step.measured]
        exact = [step for step in found if abs((step.value("gap_closed") or 0.0) - 1) < _SAME]
        return min(exact or found, key=lambda step: step.damage, default=None)

    @property
    def presets(self) -> list[Step]:
        """MoBE as a whole, on its ladder or beside."""
        return [step for step in (*self.mobe, *self.beside) if step.is_preset]

    @property
    def refitted(self) -> Step | None:
        """MoBE with the refit that TD-MoE has, over the reference's projections."""
        found = [step for step in self.mobe if step.measured and step.options.get("refit") == "expert"]
        alike = [s for s in found if self.reference and s.row["projections"] == self.reference.row["projections"]]
        return min(alike, key=lambda step: step.damage, default=None)

    @property
    def gap(self) -> float | None:
        """Nats between TD-MoE as published and MoBE; None where either is missing or the gap is not clear."""
        if self.published is None or self.reference is None or self.without_gap:
            return None
        return self.published.damage - self.reference.damage

    @property
    def without_gap(self) -> bool:
        """Whether both ends were measured and their difference holds 0."""
        return any(step.row.get("status") == NO_GAP for step in self.everything)

    @property
    def meeting(self) -> Step | None:
        """The step of TD-MoE whose weight and functional error are nearest to where MoBE's ladder starts.

        Errors, not losses: the same decomposition has the same ones, whatever the windows.
        """
        start = self.mobe[0] if self.mobe and self.mobe[0].measured else None
        steps = [step for step in self.tdmoe if step.measured and given(step.row, *_TELLING)]
        if start is None or not given(start.row, *_TELLING):
            return None
        return min(steps, key=lambda s: sum(abs(s.row[e] - start.row[e]) for e in _TELLING), default=None)

    @property
    def meets_in_form(self) -> bool:
        """Whether MoBE's ladder starts as one basis without nonlinearity: `mobe:bases=1,phi=identity`."""
        options = self.mobe[0].options if self.mobe else {}
        return options.get("bases") == "1" and options.get("phi") == "identity"

    def like(self, other: Step) -> list[Step]:
        """Measured steps of TD-MoE of the same projections."""
        return [s for s in self.tensors if s.measured and s.row.get("projections") == other.row.get("projections")]


def _least(steps: Sequence[Step]) -> Step | None:
    return min(steps, key=lambda step: step.damage, default=None)


def attribution(run: Run) -> Attribution:
    """The run's rows in their order; numbers that are none (NaN, infinite) count as not measured."""
    tables = run["tables"]
    found = Attribution(
        switches=[_finite(row) for row in tables.get("attribution_shapley", [])],
        predictors=[_finite(row) for row in tables.get("attribution_predictors", [])],
        table=[_finite(row) for row in tables.get("attribution_shares", [])],
    )
    places = {TDMOE: found.tdmoe, COMBINATION: found.combinations, MOBE: found.mobe}
    for row in tables.get("attribution", []):
        places.get(str(row.get("ladder")), found.beside).append(Step(_finite(row)))
    return found


def _finite(row: Row) -> dict[str, Any]:
    lost = {name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
    clean = {name: None if name in lost else value for name, value in row.items()}
    return clean | {"status": "not_finite"} if lost and clean.get("status") in (None, "", "ok") else clean


def with_error(value: float | None, stderr: float | None, *, signed: bool = False) -> str:
    """The share as the verdict writes it, so that one number is one text on a page."""
    return EMPTY if value is None else intervals.with_error(value, stderr, signed=signed)


def share(row: Row, column: str, low: str, high: str, places: int = 1, of: str = "") -> str:
    """`98.6 % (97.9 to 99.2)`; with `of` `98.6 % of the gap (97.9 to 99.2)`."""
    scaled = {name: 100 * row[name] for name in (column, low, high) if given(row, name)}
    if given(row, low, high) and row[high] - row[low] < _SAME:  # known by definition
        del scaled[low], scaled[high]
    return ranged(scaled, column, low, high, places, unit=f"\N{NO-BREAK SPACE}%{of}")


def ranged(row: Row, column: str, low: str, high: str, places: int, unit: str = "") -> str:
    """`0.98 (0.91 to 1.00)`; the unit before the interval."""
    if not given(row, column):
        return EMPTY
    said = fixed(row[column], places) + unit
    return f"{said} ({fixed(row[low], places)} to {fixed(row[high], places)})" if given(row, low, high) else said


def mode_errors(step: Step) -> dict[str, float]:
    """Relative functional error of cutting each mode alone, as far as measured."""
    found = {mode: step.value(f"mode_error_{mode}") for mode in MODES}
    return {mode: value for mode, value in found.items() if value is not None}


def by_strength(rows: Sequence[Row], column: str) -> list[Row]:
    """Rows with a value, the largest first."""
    return sorted((row for row in rows if given(row, column)), key=lambda row: -float(row[column]))
