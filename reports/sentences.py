"""Claims in words. A claim is a plain dict (see `said`); neighbours about one quantity are one sentence.

A sentence begins with the quantity's words and a colon, so that the page can set the clause in bold:

    values     Median alpha above its baseline: expert 0.019 (baseline 0.025) and input 0.190 (baseline 0.130).
    best       the same, least first
    share      Unfoldings steeper than their baseline: 11 of 12.
    extreme    Largest difference to the paper: −0.300 (layer 0, gate, input).
    between    Operator error over the least of the rank: from 1.00 to 1.79.
    missing    Functional error: not measured, no statistics of the inputs were given (--statistics).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from reports.formats import listing, measured
from reports.theme import title

Claim = Mapping[str, Any]


def sentences(claims: Sequence[Claim]) -> list[str]:
    """The claims in their order, those about one quantity together.

    Keys: subject, quantity, words, form, pattern, after, value, low, high, unit, of, reference (name: value), strength.
    """
    return [said(list(found)) for _, found in groupby(claims, key=lambda claim: (claim["quantity"], claim["words"]))]


def said(claims: Sequence[Claim]) -> str:
    """One sentence for claims about one quantity."""
    first = claims[0]
    pattern = "missing" if all(claim["value"] is None for claim in claims) else str(first["pattern"])
    text = f"{first['words']}: {PATTERNS[pattern](claims)}."
    return f"{text} {first['after']}" if first["after"] and pattern != "missing" else text


def _values(claims: Sequence[Claim]) -> str:
    """A unit that all have stands behind the last of them."""
    known = [claim for claim in claims if claim["value"] is not None]
    one = len({claim["unit"] for claim in known}) == 1
    bare = [claim if claim is known[-1] or not one else {**claim, "unit": ""} for claim in known]
    return listing([f"{title(str(claim['subject']))} {_value(claim)}".strip() for claim in bare])


def _best(claims: Sequence[Claim]) -> str:
    known = [claim for claim in claims if claim["value"] is not None]
    return _values(sorted(known, key=lambda claim: float(claim["value"])))


def _share(claims: Sequence[Claim]) -> str:
    parts = [
        f"{title(str(c['subject']))} {measured(c['value'], 'integer')} of {c['of']}{_unit(c)}{_references(c)}".strip()
        for c in claims
    ]
    return listing(parts)


def _extreme(claims: Sequence[Claim]) -> str:
    return listing([f"{_value(claim)} ({title(str(claim['subject']))})" for claim in claims])


def _between(claims: Sequence[Claim]) -> str:
    parts = []
    for claim in claims:
        low, high = (measured(claim[end], claim["form"]) for end in ("low", "high"))
        parts.append(f"{title(str(claim['subject']))} from {low} to {high}{_unit(claim)}{_references(claim)}".strip())
    return listing(parts)


def _missing(claims: Sequence[Claim]) -> str:
    reason = str(claims[0]["subject"])
    return f"not measured, {reason}" if reason else "not measured"


PATTERNS: dict[str, Callable[[Sequence[Claim]], str]] = {
    "values": _values,
    "best": _best,
    "share": _share,
    "extreme": _extreme,
    "between": _between,
    "missing": _missing,
}


def _value(claim: Claim) -> str:
    text = measured(claim["value"], claim["form"], low=claim["low"], high=claim["high"])
    return f"{text}{_unit(claim)}{_references(claim)}"


def _unit(claim: Claim) -> str:
    return f" {claim['unit']}" if claim["unit"] else ""


def _references(claim: Claim) -> str:
    """Values beside which the claim's is read, in brackets."""
    known = [
        f"{name} {measured(value, claim['form'])}" for name, value in claim["reference"].items() if value is not None
    ]
    return f" ({', '.join(known)})" if known else ""
