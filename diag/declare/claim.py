"""Conclusions of a probe, as data for page, terminal and verdict.json; `reports.sentences` puts them into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Z = 1.96  # of a normal distribution's central 95 %


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; a count has in `of` what it is counted among. None: not measured."""

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    of: int | None = None

    @property
    def known(self) -> bool:
        """Tell whether it has an interval."""
        return self.low is not None and self.high is not None

    @property
    def above(self) -> bool:
        """Tell whether its whole interval lies above 0."""
        return self.low is not None and self.low > 0

    @property
    def below(self) -> bool:
        """Tell whether its whole interval lies below 0."""
        return self.high is not None and self.high < 0

    @property
    def open(self) -> bool:
        """Tell whether its interval holds 0; one that is not known says nothing."""
        return self.known and not (self.above or self.below)

    @property
    def turned(self) -> Estimate:
        """The same with the other sign."""
        value, low, high = (None if end is None else -end for end in (self.value, self.high, self.low))
        return replace(self, value=value, low=low, high=high)


def interval(value: float, stderr: float | None, unit: str = "") -> Estimate:
    """A mean and value -/+ 1.96 stderr; without a standard error the mean alone."""
    reach = None if stderr is None else Z * stderr
    return Estimate(value, unit=unit) if reach is None else Estimate(value, value - reach, value + reach, unit)


@dataclass(frozen=True)
class Quantity:
    """Subject of claims: `words` begin their sentence, `form` writes their numbers, `pattern` is of `sentences`.

    `after` ends the sentence: what the number means.
    """

    name: str
    words: str
    form: str = ""
    pattern: str = "values"
    after: str = ""


@dataclass(frozen=True)
class Evidence:
    """Rows that a claim was computed from: of a table those with these values, and the column that was read."""

    table: str
    column: str
    rows: int
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """`quantity` of `subject` is `estimate`, to be read beside `reference` (name: value), computed from `evidence`."""

    subject: str
    quantity: Quantity
    estimate: Estimate
    reference: Mapping[str, float | None] = field(default_factory=dict)
    evidence: Evidence | None = None

    @property
    def strength(self) -> str:
        """missing, count, estimate; clear or unclear, by whether its interval excludes the first reference, or 0."""
        found = self.estimate
        if found.value is None:
            return "missing"
        if found.of is not None:
            return "count"
        if found.low is None or found.high is None:
            return "estimate"
        other = next((value for value in self.reference.values() if value is not None), 0.0)
        return "unclear" if found.low <= other <= found.high else "clear"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as JSON has it."""
        return {
            "subject": self.subject,
            **{key: getattr(self.quantity, key) for key in ("words", "form", "pattern", "after")},
            "quantity": self.quantity.name,
            **{key: getattr(self.estimate, key) for key in ("value", "low", "high", "unit", "of")},
            "reference": dict(self.reference),
            "evidence": None if self.evidence is None else {**vars(self.evidence), "where": dict(self.evidence.where)},
            "strength": self.strength,
        }


def count(quantity: Quantity, evidence: Evidence, found: int, subject: str = "", unit: str = "") -> Claim:
    """A count of so many of the rows of the evidence."""
    return Claim(subject, quantity, Estimate(found, unit=unit, of=evidence.rows), {}, evidence)


def between(low: float | None, found: float, high: float | None, unit: str = "") -> Estimate:
    """A value with its interval; without one where an end is missing."""
    return Estimate(found, unit=unit) if low is None or high is None else Estimate(found, low, high, unit)


def value(
    subject: str, quantity: Quantity, evidence: Evidence, found: float | None, **reference: float | None
) -> Claim:
    """A number without an interval, beside others by name (`_` for a space)."""
    beside = {name.replace("_", " "): other for name, other in reference.items()}
    return Claim(subject, quantity, Estimate(found), beside, evidence)
