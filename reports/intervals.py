"""Values with their 95 % intervals, and how they are written.

    d_1 - d_2,  half-width z (s_1 + s_2)

for two losses that are each paired with the dense model's on the same windows: |s_1 - s_2| <= s <= s_1 + s_2 whatever
their correlation, so the interval is never too narrow, and often far too wide. Where a table has the interval of two
losses paired with each other, that is taken (`diag.verdict.loss.difference`).
"""

from dataclasses import dataclass

from reports.formats import fixed, percent, places_of, significant

Z = 1.96  # of a normal distribution's central 95 %
_MOST_PLACES = 4
_SMALL = 0.1  # below it a value without an interval has so many
INTERVAL = "95\N{NO-BREAK SPACE}% interval "


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; without one where its error was not measured."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def known(self) -> bool:
        return self.low is not None and self.high is not None

    @property
    def above(self) -> bool:
        """The whole interval lies above 0."""
        return self.low is not None and self.low > 0

    @property
    def below(self) -> bool:
        return self.high is not None and self.high < 0

    @property
    def open(self) -> bool:
        """It holds 0; one that is not known says nothing."""
        return self.known and not (self.above or self.below)

    @property
    def turned(self) -> "Estimate":
        """With the other sign."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Estimate(-self.value, low, high)

    def less(self, other: "Estimate") -> "Estimate":
        """A number that is known less an estimate."""
        low, high = (None if end is None else self.value - end for end in (other.high, other.low))
        return Estimate(self.value - other.value, low, high)

    def text(self, *, signed: bool = False, worded: bool = False) -> str:
        """`0.266 (0.210 to 0.322)`; `worded` says what the brackets hold."""
        places = self.places
        said = fixed(self.value, places, signed=signed)
        if self.low is None or self.high is None:
            return f"{said} (interval not measured)"
        ends = f"{fixed(self.low, places, signed=signed)} to {fixed(self.high, places, signed=signed)}"
        return f"{said} ({INTERVAL if worded else ''}{ends})"

    def share(self, *, worded: bool = False) -> str:
        """Of a fraction, in per cent."""
        if self.low is None or self.high is None:
            return percent(self.value)
        ends = f"{fixed(100 * self.low, 1)} to {fixed(100 * self.high, 1)}"
        return f"{percent(self.value)} ({INTERVAL if worded else ''}{ends})"

    @property
    def places(self) -> int:
        """Decimals that it is written with."""
        if self.low is None or self.high is None or self.high <= self.low:
            return 3 if abs(self.value) >= _SMALL else _MOST_PLACES
        return places_of((self.high - self.low) / 2)


def of(value: float, stderr: float | None) -> Estimate:
    """From a standard error."""
    return Estimate(value) if stderr is None else Estimate(value, value - Z * stderr, value + Z * stderr)


def between(low: float | None, value: float, high: float | None) -> Estimate:
    """From an interval; without one where an end is missing."""
    return Estimate(value) if low is None or high is None else Estimate(value, low, high)


def bare(one: Estimate, *, signed: bool = False, worded: bool = False) -> str:
    """Its text, the value alone where no interval is known."""
    return one.text(signed=signed, worded=worded) if one.known else fixed(one.value, one.places, signed=signed)


def with_error(value: float, stderr: float | None, *, signed: bool = False, most: int = _MOST_PLACES) -> str:
    """`0.266 ± 0.012`, two digits of the error within `most` decimals; 0 where neither shows there."""
    if stderr is None:
        return f"{'+' if signed and value > 0 else ''}{significant(value, 4)}"
    places = min(most, places_of(stderr))
    if round(value, most) == 0 == round(stderr, most):
        return "0"
    signed = signed and round(value, places) != 0
    return f"{fixed(value, places, signed=signed)} ± {fixed(stderr, places)}"
