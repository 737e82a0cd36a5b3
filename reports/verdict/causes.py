"""The third and the fourth sentence: what the spectra and the expert mode say, and which error predicts the damage."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from reports.experts.data import ExpertStack, answered, expert_stacks, middle, ratios_of
from reports.formats import fixed, listing, percent
from reports.injection.sites import ERRORS, NAMES, Site, sites
from reports.run import MODES, Row, given
from reports.verdict.intervals import between
from reports.verdict.subjects import Subject, finite

_JACKKNIFE = 2  # standard errors above the null that count as clear
_PREDICTORS = {**NAMES, "functional_error_expert": "functional error under each expert's own inputs",
               "angle_deg": "angle of the residual stream"}  # fmt: skip


def spectra(subject: Subject, ratio: float | None) -> str:
    """Exponents beside their null, the flattest mode, and whether the expert mode binds."""
    return f"{_exponents(subject)} {_binding(subject, ratio)}"


def _exponents(subject: Subject) -> str:
    rows = [row for row in subject.rows("spectra") if given(row, "alpha", "alpha_null")]
    modes = [(mode, chosen) for mode in MODES if (chosen := [row for row in rows if row["mode"] == mode])]
    if not modes:
        return "Spectra: not measured (spectra does that)."
    parts = [
        f"{_span(ours, 'alpha')} in the {mode} mode (null {fixed(_middle(ours, 'alpha_null'))})" for mode, ours in modes
    ]
    said = f"Spectra: the singular values fall with the exponent {listing(parts)}{_what(modes)}"
    flattest, ours = min(modes, key=lambda pair: _middle(pair[1], "alpha"))
    if len(modes) > 1:
        said += f"; flattest is the {flattest} mode"
        kept = [row for row in ours if given(row, "energy_25", "energy_25_null")]
        if kept:
            said += (
                f", where a quarter of the rank holds {percent(_middle(kept, 'energy_25'))} of the energy (Gaussian "
                f"weights {percent(_middle(kept, 'energy_25_null'))})"
            )
    return f"{said}.{_clear(rows)}"


def _what(modes: Sequence[tuple[str, list[Row]]]) -> str:
    most = max(len(rows) for _, rows in modes)
    spread = f"medians and ranges over {most} stacks; " if most > 1 else ""
    return f" ({spread}the null is Gaussian weights of the same shape)"


def _clear(rows: Sequence[Row]) -> str:
    known = [row for row in rows if given(row, "alpha_jackknife_stderr")]
    if not known:
        above = sum(float(row["alpha"]) > float(row["alpha_null"]) for row in rows)
        return (
            f" {above} of {len(rows)} exponents lie above their null; their uncertainty was not measured (--jackknife)."
        )
    clear = sum(row["alpha"] - row["alpha_null"] > _JACKKNIFE * row["alpha_jackknife_stderr"] for row in known)
    return f" {clear} of {len(known)} exponents lie more than two jackknife standard errors above their null."


def _span(rows: Sequence[Row], column: str) -> str:
    values = [float(row[column]) for row in rows]
    said = fixed(median(values))
    return said if len(values) == 1 else f"{said} ({fixed(min(values))} to {fixed(max(values))})"


def _middle(rows: Sequence[Row], column: str) -> float:
    return median(float(row[column]) for row in rows)


def _binding(subject: Subject, ratio: float | None) -> str:
    """At the verdict's ratio where it was measured there, otherwise at the largest."""
    stacks = [stack for run in subject.runs if run["tables"].get("binding") for stack in expert_stacks(run)]
    known = [found for found in ratios_of(stacks) if _priced(stacks, found)]
    if not known:
        return "Whether the expert mode binds: not measured (experts does that)."
    chosen = ratio if ratio in known else max(known)
    assert chosen is not None, "one that is known"
    rows = [row for row in map(finite, answered(stacks, chosen, "gain")) if given(row, "gain", "price_share")]
    counts = Counter(str(row.get("binding")) for row in rows)
    if len(rows) == 1:
        verdict = {"yes": "binds", "no": "does not bind"}.get(
            str(rows[0].get("binding")), "cannot be told from the others"
        )
    else:
        verdict = (
            f"binds in {counts['yes']} of {len(rows)} stacks (not in {counts['no']}, undecided {counts['undecided']})"
        )
    change = -100 * (middle(rows, "gain") or 0.0)
    said = (
        f"With {percent(chosen, 0)} removed the expert mode {verdict}: cutting it {'raises' if change > 0 else 'lowers'} "
        f"the least error at equal storage by {fixed(abs(change), 1)} %, and its price share is "
        f"{_span(rows, 'price_share')}{_interval(rows)}, above 0.5 where it should be cut last"
    )
    return f"{said}{_independent(rows)}."


def _priced(stacks: Sequence[ExpertStack], ratio: float) -> bool:
    return any(given(row, "price_share") for row in map(finite, answered(stacks, ratio, "gain")))


def _interval(rows: Sequence[Row]) -> str:
    known = [row for row in rows if given(row, "price_share_low", "price_share_high")]
    if not known:
        return " (interval not measured)"
    if len(rows) == 1:
        return f" (95 % interval {fixed(known[0]['price_share_low'])} to {fixed(known[0]['price_share_high'])})"
    clear = sum(row["price_share_low"] > 0.5 or row["price_share_high"] < 0.5 for row in known)
    return f" (median and range; in {clear} of {len(known)} the 95 % interval leaves out 0.5)"


def _independent(rows: Sequence[Row]) -> str:
    """Beside experts that share nothing."""
    beside = [row for row in rows if given(row, "price_share_null")]
    if not beside:
        return ""
    said = f"; experts that share nothing would have {fixed(middle(beside, 'price_share_null'))}"
    known = [row for row in beside if given(row, "price_share_low", "price_share_high")]
    if not known:
        return said
    alike = sum(row["price_share_low"] <= row["price_share_null"] <= row["price_share_high"] for row in known)
    return f"{said}, which lies within the interval of {alike} of {len(known)}"


def predictor(subject: Subject) -> str:
    """Which error predicts the damage: injected residuals, and the runs of `attribution`."""
    found = [part for part in (_injected(subject), _attributed(subject)) if part]
    return " ".join(found) if found else "Which error predicts the damage: not measured (injection does that)."


def _injected(subject: Subject) -> str:
    listed = [site for run in subject.runs if run["tables"].get("injection_contrasts") for site in sites(run)]
    site = next((site for site in listed if site.statistics("exponent")), None)
    if site is None:
        return ""
    laws = [
        row for error in ERRORS if (row := site.statistic("exponent", error=error)) is not None and given(row, "r2")
    ]
    if not laws:
        return ""
    laws.sort(key=lambda row: -float(row["r2"]))
    best, others = laws[0], laws[1:]
    exponent = between(best.get("low"), float(best["value"]), best.get("high"))
    said = (
        f"Of residuals of prescribed norms injected into {site.phrase}, the {NAMES[best['error']]} predicts the damage "
        f"best: a power of it (exponent {exponent.text(worded=True)}) explains {percent(best['r2'])} of the variance of the "
        f"logarithm of the added loss over {best['count']} kinds"
    )
    parts = [f"the {NAMES[row['error']]} {percent(row['r2'])}" for row in others]
    return f"{said}{', ' if parts else ''}{listing(parts)}.{_ranks(site, str(best['error']))}{_operator(site)}"


def _ranks(site: Site, best: str) -> str:
    """Whether the best one's rank correlation is told apart from the operator error's."""
    names = [best, *(["operator_error"] if best != "operator_error" else ["functional_error"])]
    rows = [row for name in names if (row := site.statistic("spearman", error=name)) is not None]
    if len(rows) < 2:
        return ""
    told = [
        f"{between(r.get('low'), float(r['value']), r.get('high')).text()} with the {NAMES[r['error']]}" for r in rows
    ]
    apart = "" if _apart(rows[0], rows[1]) else ", which cannot be told apart"
    return f" Rank correlation: {listing(told)}{apart}."


def _apart(one: Row, other: Row) -> bool:
    """Their intervals do not overlap."""
    if not (given(one, "low", "high") and given(other, "low", "high")):
        return False
    return bool(one["low"] > other["high"] or other["low"] > one["high"])


def _operator(site: Site) -> str:
    joint = site.statistic("joint", error="operator_error")
    if joint is None or not given(joint, "low", "high"):
        return ""
    found = between(joint["low"], float(joint["value"]), joint["high"])
    told = "no effect of its own was found" if found.open else "it adds damage of its own" if found.above else (
        "a larger one goes with less damage"
    )  # fmt: skip
    return f" With the other errors held fixed the operator error has the exponent {found.text(signed=True)}: {told}."


def _attributed(subject: Subject) -> str:
    rows = [row for row in subject.rows("attribution_predictors") if given(row, "rank_correlation")]
    if not rows:
        return ""
    rows.sort(key=lambda row: -float(row["rank_correlation"]))
    told = [
        f"{between(r.get('low'), float(r['rank_correlation']), r.get('high')).text()} with the "
        f"{_PREDICTORS.get(str(r['error']), str(r['error']))}"
        for r in rows
    ]
    alike = sum(not _apart(rows[0], row) for row in rows[1:])
    tail = f"; {alike} of the other {len(rows) - 1} cannot be told apart from the first" if alike else ""
    return f"Over the {rows[0]['runs']} runs of attribution the rank correlation with the added loss is {listing(told)}{tail}."
