"""The third sentence: what the spectra say, and whether the expert mode binds."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from reports.experts.data import WeightStack, answered, beside_null, expert_stacks, ratios_of
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
    stacks = [stack for run in subject.runs if run["tables"].get("binding") for stack in expert_stacks(run)]
    known = [found for found in ratios_of(stacks) if _priced(stacks, found)]
    if not known:
        return "Whether the expert mode binds: not measured (experts does that)."
    chosen = ratio if ratio is not None and ratio in known else max(known)
    rows = _priced(stacks, chosen)
    changes = [-100 * float(row["gain"]) for row in rows]
    up = median(changes) > 0
    size = _span(changes if up else [-change for change in changes], "\N{NO-BREAK SPACE}%")
    return (
        f"With {percent(chosen, 0)} removed the expert mode {_verdict(rows)}: cutting it "
        f"{'raises' if up else 'lowers'} the least error by {size}{_interval(rows, up=up)}"
        f"{f', {null}' if (null := beside_null(rows, up=up)) else ''}."
    )


def _priced(stacks: Sequence[WeightStack], ratio: float) -> list[Row]:
    return [row for row in map(finite, answered(stacks, ratio, "gain")) if given(row, "gain", "price_share")]


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
