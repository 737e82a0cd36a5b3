"""The fourth sentence: which error predicts the damage of drawn residuals, and which that of compressed models."""

from collections.abc import Sequence

from reports.formats import fixed, listing, percent
from reports.injection.best import claimed, compared, difference, enough, is_best, laws
from reports.injection.sites import NAMES, Site, sites
from reports.intervals import INTERVAL, between
from reports.run import Row, given
from reports.verdict.subjects import Subject, plain

_NAMES = {
    **NAMES,
    "functional_error_expert": "functional error (own inputs)",
    "angle_deg": "angle of the residual stream",
}


def predictor(subject: Subject) -> str:
    """Two statements that may differ: of drawn residuals, which tell causes apart, and of compressed models."""
    site = _site(subject)
    models = _compressed(subject, None if site is None else str(laws(site)[0]["error"]))
    if site is None and not models:
        return "Which error predicts the damage: not measured (injection and attribution do that)."
    drawn = "Of drawn residuals: not measured (injection does that)." if site is None else _drawn(site)
    models = models or "Of compressed models: not measured (attribution does that)."
    return f"{models} {drawn}" if site is None else f"{drawn} {models}"


def _site(subject: Subject) -> Site | None:
    listed = [site for run in subject.runs if run["tables"].get("injection_contrasts") for site in sites(run)]
    return next((site for site in listed if laws(site)), None)


def _drawn(site: Site) -> str:
    best, *others = laws(site)
    if not enough(site) or not others:
        exponent = between(best.get("low"), float(best["value"]), best.get("high")).text(worded=True)
        return compared(site, _where(site), exponent)
    of_it = "it" if is_best(site) else f"the {NAMES[str(best['error'])]}"
    parts = [_behind(site, best, other, first=number == 0) for number, other in enumerate(others)]
    return (
        f"{claimed(site)}: over {int(best['count'])} kinds a power of {of_it} "
        f"explains {percent(best['r2'])} of the variance of the log loss, {listing(parts)}."
    )


def _where(site: Site) -> str:
    layers = "all layers" if site.layer is None else f"layer {site.layer} alone"
    return f"{listing(plain(site.projection).split(','))} of {layers}"


def _behind(site: Site, best: Row, other: Row, *, first: bool) -> str:
    """How much less another error explains, in points."""
    name, found = NAMES[str(other["error"])], difference(site, best, other)
    if found is None:
        return f"the {name} {percent(other['r2'])} (interval of the difference not measured)"
    value, low, high = (fixed(100 * number, 1) for number in found)
    interval = f"{'95 % interval ' if first else ''}{low} to {high}"
    return f"the {name} {value}{' points' if first else ''} less ({interval})"


def _compressed(subject: Subject, named: str | None) -> str:
    """What the attribution with most models says: the first error, and the place of the one of drawn residuals."""
    tables = [
        [row for row in rows if given(row, "rank_correlation")] for _, rows in subject.tables("attribution_predictors")
    ]
    rows = max(tables, key=_runs, default=[])
    if not rows:
        return ""
    first, *rest = _ties(rows)
    start = f"Of {first[0]['runs']} compressed models"
    if _apart(first, rest):
        said = f"{start} {_names(first)} orders the added loss best: rank correlation {_value(first[0], worded=True)}"
    else:
        said = f"{start} no error is known to order the added loss best: rank correlation "
        said += f"{_value(first[0], worded=True)} with {_names(first)}"
    row = next((row for tied in rest for row in tied if row["error"] == named), None)
    if row is not None:
        place = 1 + sum(float(other["rank_correlation"]) > float(row["rank_correlation"]) for other in rows)
        order = "last" if place == len(rows) else f"number {place}"
        return f"{said}; {_names([row])} is {order} of {len(rows)}, {_value(row)}."
    return f"{said}; next {_value(rest[0][0])} with {_names(rest[0])}." if rest else f"{said}."


def _apart(first: Sequence[Row], rest: Sequence[Sequence[Row]]) -> bool:
    """Whether the intervals of all others end below that of the first, of which there is one."""
    low, others = first[0].get("low"), [row for tied in rest for row in tied]
    below = [given(row, "high") and low is not None and row["high"] < low for row in others]
    return len(first) == 1 and bool(below) and all(below)


def _ties(rows: Sequence[Row]) -> list[list[Row]]:
    """The strongest first; those that are written alike together."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: -float(row["rank_correlation"])):
        found.setdefault(fixed(row["rank_correlation"]), []).append(row)
    return list(found.values())


def _runs(rows: list[Row]) -> int:
    return max((int(row["runs"]) for row in rows), default=0)


def _value(row: Row, *, worded: bool = False) -> str:
    """`0.97 (0.90 to 0.99)`; steps of one ladder are not independent, as the words say."""
    found = between(row.get("low"), float(row["rank_correlation"]), row.get("high"))
    if found.low is None or found.high is None:
        return fixed(found.value)
    ends = f"{fixed(found.low)} to {fixed(found.high)}"
    return (
        f"{fixed(found.value)} ({INTERVAL}{ends}, were they independent)"
        if worded
        else f"{fixed(found.value)} ({ends})"
    )


def _names(tied: Sequence[Row]) -> str:
    return listing([f"the {_NAMES.get(str(row['error']), plain(row['error']))}" for row in tied])
