"""The fourth sentence: which error predicts the damage, of injected residuals and of the runs of `attribution`."""

from reports.formats import listing
from reports.injection.best import compared, enough, laws
from reports.injection.sites import NAMES, Site, sites
from reports.run import Row, given
from reports.verdict.intervals import between
from reports.verdict.subjects import Subject, plain

_NAMES = {
    **NAMES,
    "functional_error_expert": "functional error under each expert's own inputs",
    "angle_deg": "angle of the residual stream",
}


def predictor(subject: Subject) -> str:
    """Injected residuals tell causes apart, runs of methods only go along with them: in that order."""
    found = [part for part in (_injected(subject), _attributed(subject)) if part]
    if not found:
        return "Which error predicts the damage: not measured (injection does that)."
    return " ".join(found)


def _injected(subject: Subject) -> str:
    listed = [site for run in subject.runs if run["tables"].get("injection_contrasts") for site in sites(run)]
    site = next((site for site in listed if laws(site)), None)
    if site is None:
        return ""
    best = laws(site)[0]
    exponent = between(best.get("low"), float(best["value"]), best.get("high")).text(worded=True)
    said = compared(site, _where(site), exponent)
    return f"{said}{_ranks(site, best)}{_operator(site)}" if enough(site) else said


def _where(site: Site) -> str:
    layers = "all layers" if site.layer is None else f"layer {site.layer} alone"
    return f"{listing(plain(site.projection).split(','))} of {layers}"


def _ranks(site: Site, best: Row) -> str:
    """Whether the best one's rank correlation can be told apart from the operator error's."""
    other = "functional_error" if best["error"] == "operator_error" else "operator_error"
    rows = [row for error in (best["error"], other) if (row := site.statistic("spearman", error=error)) is not None]
    if len(rows) < 2:
        return ""
    parts = [f"{_ranged(row, 'value')} with the {NAMES[str(row['error'])]}" for row in rows]
    return f" Rank correlations: {listing(parts)}{'' if _apart(*rows) else ', which cannot be told apart'}."


def _operator(site: Site) -> str:
    joint = site.statistic("joint", error="operator_error")
    if joint is None or not given(joint, "low", "high"):
        return ""
    found = between(joint["low"], float(joint["value"]), joint["high"])
    told = "it adds damage of its own" if found.above else "a larger one goes with less damage, not more"
    told = "no effect of its own was found" if found.open else told
    return f" Beside the other errors the operator error has the exponent {found.text(signed=True)}: {told}."


def _attributed(subject: Subject) -> str:
    rows = [row for row in subject.rows("attribution_predictors") if given(row, "rank_correlation")]
    if not rows:
        return ""
    rows.sort(key=lambda row: -float(row["rank_correlation"]))
    parts = [
        f"{_ranged(row, 'rank_correlation')} with the {_NAMES.get(str(row['error']), plain(row['error']))}"
        for row in rows
    ]
    alike, others = sum(not _apart(rows[0], row) for row in rows[1:]), len(rows) - 1
    which = "none of the others" if alike == others else f"{alike} of the other {others}"
    tail = f"; {which} can{'' if alike == others else 'not'} be told apart from the first" if alike else ""
    return f"Over {rows[0]['runs']} runs of attribution the added loss has the rank correlation {listing(parts)}{tail}."


def _ranged(row: Row, column: str) -> str:
    return between(row.get("low"), float(row[column]), row.get("high")).text()


def _apart(one: Row, other: Row) -> bool:
    """Their intervals do not overlap."""
    if not (given(one, "low", "high") and given(other, "low", "high")):
        return False
    return bool(one["low"] > other["high"] or other["low"] > one["high"])
