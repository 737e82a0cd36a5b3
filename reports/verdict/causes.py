"""The third sentence: what the spectra say, and whether the expert mode binds."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from reports.experts.data import ExpertStack, answered, expert_stacks, middle, ratios_of
from reports.formats import fixed, listing, percent
from reports.run import MODES, Row, given
from reports.verdict.subjects import Subject, finite

_JACKKNIFE = 2  # standard errors above the null that count as clear


def causes(subject: Subject, ratio: float | None) -> str:
    """Exponents beside their null and the flattest mode; then the expert mode at that ratio."""
    return f"{_exponents(subject)} {_binding(subject, ratio)}"


def _exponents(subject: Subject) -> str:
    rows = [row for row in subject.rows("spectra") if given(row, "alpha", "alpha_null")]
    modes = [(mode, chosen) for mode in MODES if (chosen := [row for row in rows if row["mode"] == mode])]
    if not modes:
        return "What the spectra say: not measured (spectra does that)."
    stacks = max(len(ours) for _, ours in modes)
    spread = "" if stacks == 1 else f", medians and ranges over {stacks} stacks"
    parts = [f"{mode} mode {_span(ours, 'alpha')}, null {fixed(_middle(ours, 'alpha_null'))}" for mode, ours in modes]
    said = (
        f"Spectra: exponents of the singular values' decay (null: Gaussian weights of the same shape{spread}): "
        f"{'; '.join(parts)}."
    )
    return f"{said}{_flattest(modes)}{_clear(rows)}"


def _flattest(modes: Sequence[tuple[str, list[Row]]]) -> str:
    """And how little of its rank holds, beside the steepest mode."""
    if len(modes) < 2:
        return ""
    order = sorted(modes, key=lambda pair: _middle(pair[1], "alpha"))
    said = f" The {order[0][0]} mode is the flattest"
    kept = [(mode, [row for row in ours if given(row, "energy_25", "energy_25_null")]) for mode, ours in order]
    (_, few), (steep, many) = kept[0], kept[-1]
    if not few or not many:
        return f"{said}."
    return (
        f"{said}: a quarter of its rank holds {percent(_middle(few, 'energy_25'))} of the energy (of Gaussian weights "
        f"{percent(_middle(few, 'energy_25_null'))}), of the {steep} mode's {percent(_middle(many, 'energy_25'))} "
        f"({percent(_middle(many, 'energy_25_null'))})."
    )


def _clear(rows: Sequence[Row]) -> str:
    known = [row for row in rows if given(row, "alpha_jackknife_stderr")]
    if not known:
        above = sum(float(row["alpha"]) > float(row["alpha_null"]) for row in rows)
        return f" {above} of {len(rows)} exponents lie above their null; their errors: not measured (--jackknife)."
    clear = sum(row["alpha"] - row["alpha_null"] > _JACKKNIFE * row["alpha_jackknife_stderr"] for row in known)
    return f" {clear} of {len(known)} exponents lie more than two jackknife standard errors above their null."


def _span(rows: Sequence[Row], column: str, places: int = 3) -> str:
    values = [float(row[column]) for row in rows]
    said = fixed(median(values), places)
    return said if len(values) == 1 else f"{said} ({fixed(min(values), places)} to {fixed(max(values), places)})"


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
    change = -100 * (middle(rows, "gain") or 0.0)
    many = "" if len(rows) == 1 else " (median)"
    return (
        f"With {percent(chosen, 0)} removed the expert mode {_verdict(rows)}: cutting it "
        f"{'raises' if change > 0 else 'lowers'} the least error at equal storage by {fixed(abs(change), 1)} %{many}; "
        f"its price share, above 0.5 where it should be cut last, is {_span(rows, 'price_share', 2)}"
        f"{_interval(rows)}{_independent(rows)}."
    )


def _priced(stacks: Sequence[ExpertStack], ratio: float) -> list[Row]:
    return [row for row in map(finite, answered(stacks, ratio, "gain")) if given(row, "gain", "price_share")]


def _verdict(rows: Sequence[Row]) -> str:
    counts = Counter(str(row.get("binding")) for row in rows)
    if len(rows) == 1:
        words = {"yes": "binds", "no": "does not bind"}
        return words.get(str(rows[0].get("binding")), "cannot be told from the others")
    others = [f"{word} in {counts[name]}" for name, word in (("no", "not"), ("undecided", "undecided")) if counts[name]]
    return f"binds in {counts['yes']} of {len(rows)} stacks{f' ({listing(others)})' if others else ''}"


def _interval(rows: Sequence[Row]) -> str:
    known = [row for row in rows if given(row, "price_share_low", "price_share_high")]
    if not known:
        return " (interval not measured)"
    if len(rows) == 1:
        return f" (95 % interval {fixed(known[0]['price_share_low'], 2)} to {fixed(known[0]['price_share_high'], 2)})"
    clear = sum(row["price_share_low"] > 0.5 or row["price_share_high"] < 0.5 for row in known)
    return f", with a 95 % interval that leaves out 0.5 in {clear} of {len(known)}"


def _independent(rows: Sequence[Row]) -> str:
    """Beside experts that share nothing."""
    beside = [row for row in rows if given(row, "price_share_null")]
    if not beside:
        return ""
    said = f"; independent experts would have {fixed(middle(beside, 'price_share_null'), 2)}"
    known = [row for row in beside if given(row, "price_share_low", "price_share_high")]
    if not known:
        return said
    alike = sum(row["price_share_low"] <= row["price_share_null"] <= row["price_share_high"] for row in known)
    return f"{said}, which the interval holds in {alike} of {len(known)}"
