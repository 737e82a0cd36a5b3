"""Why: exponents of the spectra, whether the expert mode binds, and what happens to stream and routing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from diag.declare.claim import Claim, Estimate, Evidence, Quantity, between
from diag.statistics.medians import given, groups, middle
from diag.verdict.evaluations import removed
from diag.verdict.loss import MOBE, TDMOE, Z
from diag.verdict.models import Compared
from diag.verdict.subjects import Row, Subject, number
from tdmoe.numerics.gram import MODES

EXPONENT = Quantity("exponent", "Exponents of the modes' spectra, in the median", "exponent")
ROTATION = Quantity("rotation", "Rotation of the residual stream after the last compressed layer", "angle")
ROUTING = Quantity("routing", "Share of a token's experts that stay the same, at the worst layer", "percent")


def spectra_claims(subject: Subject) -> Iterator[Claim]:
    """The exponent of every mode beside its baseline."""
    rows = given(subject.rows("spectra"), "alpha", "alpha_null")
    by_mode = groups(rows, "mode", MODES)
    if not by_mode:
        yield Claim("spectra does that", EXPONENT, Estimate(None))
    for mode, ours in by_mode.items():
        values = [float(row["alpha"]) for row in ours]
        beside = {"baseline": middle(ours, "alpha_null"), **_ends(values)}
        evidence = Evidence("spectra", "alpha", len(ours), {"mode": mode})
        yield Claim(mode, EXPONENT, Estimate(median(values)), beside, evidence)


def expert_claims(subject: Subject, ratio: float | None) -> Iterator[Claim]:
    """Tell whether the expert mode binds, at the verdict's ratio if measured there, otherwise at the largest."""
    stacks: dict[tuple[Any, ...], Row] = {}
    for run, listed in subject.tables("binding"):
        for row in given(listed, "ratio"):
            stacks[run, row["layer"], row["projection"], row["ratio"]] = row
    rows = given(stacks.values(), "gain", "price_share")
    known = {float(row["ratio"]) for row in rows}
    if not known:
        yield Claim("experts does that", Quantity("binding", "Whether the expert mode binds"), Estimate(None))
        return
    chosen = ratio if ratio in known else max(known)
    rows = [row for row in rows if row["ratio"] == chosen]
    words = f"Stacks whose expert mode binds with {removed(chosen)} removed"
    counts = {word: sum(str(row.get("binding")) == word for row in rows) for word in ("yes", "no", "undecided")}
    others = {word: float(n) for word, n in (("not", counts["no"]), ("undecided", counts["undecided"])) if n}
    where = {"ratio": chosen}
    binding = Quantity("binding", words, "integer", "share")
    yield Claim("", binding, Estimate(counts["yes"], of=len(rows)), others, Evidence("binding", "binding", len(rows),
                                                                                     where))  # fmt: skip
    yield from _cost(rows, Evidence("binding", "gain", len(rows), where))


def drift_claims(models: Sequence[Compared]) -> Iterator[Claim]:
    """Rotation and routing of TD-MoE and MoBE, as far as drift or attribution have them."""
    ours = [model for model in models if model.loss.family in (TDMOE, MOBE)]
    for model in ours:
        row = model.end or {}
        if (angle := number(row, "angle_deg")) is not None:
            reach = number(row, "angle_stderr")
            low, high = (None, None) if reach is None else (angle - Z * reach, angle + Z * reach)
            evidence = Evidence(model.end_table, "angle_deg", 1, {"method": model.loss.method, "ratio": model.ratio})
            yield Claim(model.title, ROTATION, between(low, angle, high), {}, evidence)
    for model in ours:
        if model.routed is not None:
            layer, share = model.routed
            where = {"method": model.loss.method, "ratio": model.ratio, "layer": layer}
            yield Claim(model.title, ROUTING, Estimate(share), {}, Evidence("drift", "routing_agreement", 1, where))


def _cost(rows: Sequence[Row], evidence: Evidence) -> Iterator[Claim]:
    """Change of the least error by cutting the expert mode, here and with independent experts.

    The two are told apart where the baseline lies outside the interval of the stack's own change.
    """
    sign = -1.0 if middle(rows, "gain") < 0 else 1.0  # type: ignore[operator]  # all rows have it
    sizes = [sign * float(row["gain"]) for row in rows]
    null = middle(rows, "gain_null")
    words = f"Least error {'raised' if sign < 0 else 'lowered'} by cutting the expert mode, in the median"
    low, high = None, None
    if len(rows) == 1 and given(rows, "gain_low", "gain_high"):
        low, high = sorted(sign * float(rows[0][f"gain_{end}"]) for end in ("low", "high"))
    beside = {"independent experts": None if null is None else sign * null, **_ends(sizes)}
    cost = Quantity("binding_cost", words, "percent")
    yield Claim("", cost, between(low, median(sizes), high), beside, evidence)
    if null is None:
        return
    quantity = Quantity("told_from_independent", "Stacks told apart from independent experts", "integer", "share")
    known = given(rows, "gain_null", "gain_low", "gain_high")
    if not known:
        yield Claim("no interval is known", quantity, Estimate(None))
        return
    apart = [row for row in known if not row["gain_low"] <= row["gain_null"] <= row["gain_high"]]
    cheaper = sum(row["gain"] > row["gain_null"] for row in apart)
    ways = {word: float(n) for word, n in (("cheaper", cheaper), ("dearer", len(apart) - cheaper)) if n}
    after = "Of the others nothing is claimed." if apart else "Nothing is claimed of what experts share."
    after = "" if len(apart) == len(known) else after
    told = Quantity(quantity.name, quantity.words, "integer", "share", after)
    yield Claim("", told, Estimate(len(apart), of=len(known)), ways, evidence)


def _ends(values: Sequence[float]) -> dict[str, float | None]:
    """The least and the most of several."""
    return {"least": min(values), "most": max(values)} if len(values) > 1 else {}
