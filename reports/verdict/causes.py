"""The third sentence: what the spectra say, and whether the expert mode binds."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from reports.formats import fixed, listing, percent
from reports.run import MODES, Row, given
from reports.verdict.subjects import Subject, finite


def causes(subject: Subject, ratio: float | None) -> str:
    """The exponent of every mode beside its null; then the expert mode at that ratio."""
    return f"{_exponents(subject)} {_binding(subject, ratio)}"


def _exponents(subject: Subject) -> str:
    rows = [row for row in subject.rows("spectra") if given(row, "alpha", "alpha_null")]
    modes = [(mode, chosen) for mode in MODES if (chosen := [row for row in rows if row["mode"] == mode])]
    if not modes:
        return "What the spectra say: not measured (spectra does that)."
    (mode, rows), *rest = modes
    told = [f"{mode} mode {_exponent(rows, 'null ', 'range ')}", *(f"{mode} {_exponent(rows)}" for mode, rows in rest)]
    return f"Spectra: exponents, {', '.join(told)}."


def _exponent(rows: Sequence[Row], null: str = "", word: str = "") -> str:
    """`0.077 (null 0.025; range 0.052 to 0.190)`: medians over stacks; an exponent means little without its null."""
    values = [float(row["alpha"]) for row in rows]
    ends = f"; {word}{fixed(min(values))} to {fixed(max(values))}" if len(values) > 1 else ""
    return f"{fixed(median(values))} ({null}{fixed(_middle(rows, 'alpha_null'))}{ends})"


def _span(values: Sequence[float], unit: str) -> str:
    """A median and the range."""
    said = f"{fixed(median(values), 1)}{unit}"
    return said if len(values) == 1 else f"{said} (range {fixed(min(values), 1)} to {fixed(max(values), 1)})"


def _middle(rows: Sequence[Row], column: str) -> float:
    return median(float(row[column]) for row in rows)


def _binding(subject: Subject, ratio: float | None) -> str:
    """At the verdict's ratio where it was measured there, otherwise at the largest."""
    priced = [row for row in map(finite, subject.rows("binding")) if given(row, "ratio", "gain", "price_share")]
    known = {row["ratio"] for row in priced}
    if not known:
        return "Whether the expert mode binds: not measured (experts does that)."
    chosen = ratio if ratio is not None and ratio in known else max(known)
    rows = [row for row in priced if row["ratio"] == chosen]
    changes = [-100 * float(row["gain"]) for row in rows]
    up = median(changes) > 0
    size = _span(changes if up else [-change for change in changes], "\N{NO-BREAK SPACE}%")
    return (
        f"With {percent(chosen, 0)} removed the expert mode {_verdict(rows)}: cutting it "
        f"{'raises' if up else 'lowers'} the least error by {size}{_interval(rows, up=up)}"
        f"{f', {null}' if (null := _independent(rows, up=up)) else ''}."
    )


def _independent(rows: Sequence[Row], *, up: bool) -> str:
    """What cutting costs independent experts, and in how many stacks the two are told apart; nothing without it.

    They are where the baseline lies outside the interval of the stack's own change; `up`: as what it raises.
    """
    if not (nulls := [float(row["gain_null"]) for row in rows if given(row, "gain_null")]):
        return ""
    known = [row for row in rows if given(row, "gain", "gain_null", "gain_low", "gain_high")]
    said = f"independent experts' by {fixed((-100 if up else 100) * median(nulls), 1)}\N{NO-BREAK SPACE}%"
    apart = [row for row in known if not row["gain_low"] <= row["gain_null"] <= row["gain_high"]]
    if not known:
        return f"{said} (no interval)"
    if not apart:
        return f"{said}, not told apart: nothing is claimed of what experts share"
    cheaper = sum(row["gain"] > row["gain_null"] for row in apart)
    ways = ((cheaper, "cheaper"), (len(apart) - cheaper, "dearer"))
    how = listing([f"{word} in {count}" for count, word in ways if count])
    rest = "; of the others nothing is claimed" if len(apart) < len(known) else ""
    return f"{said}, told apart in {len(apart)} of {len(known)} stacks ({how}){rest}"


def _verdict(rows: Sequence[Row]) -> str:
    counts = Counter(str(row.get("binding")) for row in rows)
    if len(rows) == 1:
        words = {"yes": "binds", "no": "does not bind"}
        return words.get(str(rows[0].get("binding")), "cannot be told from the others")
    others = [f"{word} in {counts[name]}" for name, word in (("no", "not"), ("undecided", "undecided")) if counts[name]]
    return f"binds in {counts['yes']} of {len(rows)} stacks{f' ({listing(others)})' if others else ''}"


def _interval(rows: Sequence[Row], *, up: bool) -> str:
    """Of one stack; of several the range is told."""
    if len(rows) > 1:
        return ""
    if not given(rows[0], "gain_low", "gain_high"):
        return " (interval not measured)"
    low, high = sorted((-100 if up else 100) * float(rows[0][f"gain_{end}"]) for end in ("low", "high"))
    return f" (95\N{NO-BREAK SPACE}% interval {fixed(low, 1)} to {fixed(high, 1)})"
