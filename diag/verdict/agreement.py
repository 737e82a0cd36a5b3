"""Agreement of a claim for the same methods on other texts, at other ratios or of other layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diag.declare.claim import Claim, Estimate, Quantity

_WORDS = {
    "gap": "The same two elsewhere (other texts, ratios or layers), how many agree",
    "alternatives": "The same methods elsewhere, how many comparisons lead to the same choice",
}


def agreement(name: str, same: Sequence[bool]) -> Iterator[Claim]:
    """A count, where there is anything to count."""
    if same:
        yield Claim("", Quantity(f"{name}_elsewhere", _WORDS[name], pattern="share"), Estimate(sum(same), of=len(same)))
