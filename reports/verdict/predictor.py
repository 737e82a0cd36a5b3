"""The fourth sentence: which error predicts the damage, of injected residuals and of the models of `attribution`."""

from collections.abc import Sequence

from reports.formats import fixed, listing, percent
from reports.injection.best import compared, difference, enough, is_less, laws
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
    """Injected residuals tell causes apart, models only go along with them: in that order."""
    injected = _injected(subject)
    found = [part for part in (injected, _attributed(subject, alone=not injected)) if part]
    if not found:
        return "Which error predicts the damage: not measured (injection does that)."
    return " ".join(found)


def _injected(subject: Subject) -> str:
    listed = [site for run in subject.runs if run["tables"].get("injection_contrasts") for site in sites(run)]
    site = next((site for site in listed if laws(site)), None)
    if site is None:
        return ""
    best, *others = laws(site)
    if not enough(site) or not others:
        exponent = between(best.get("low"), float(best["value"]), best.get("high")).text(worded=True)
        return compared(site, _where(site), exponent)
    name = NAMES[str(best["error"])]
    clear = all(is_less(site, best, other) for other in others)
    claim = f"The {name} predicts the damage best" if clear else "Which error predicts the damage best cannot be told"
    parts = [_behind(site, best, other, first=number == 0) for number, other in enumerate(others)]
    return (
        f"{claim}: over {int(best['count'])} kinds of injected residual a power of {'it' if clear else f'the {name}'} "
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


def _attributed(subject: Subject, *, alone: bool) -> str:
    """Of the run that compared most models; beside what injection says only the first error."""
    tables = [
        [row for row in rows if given(row, "rank_correlation")] for _, rows in subject.tables("attribution_predictors")
    ]
    rows = max(tables, key=_runs, default=[])
    if not rows:
        return ""
    best, *rest = _ties(rows)
    start = "Which error predicts the damage: over" if alone else "Over"
    many = f"{start} {best[0]['runs']} models of attribution the added loss has rank correlation"
    said = f"{many} {_with(best, ', were they independent' if alone else '')}"
    return f"{said}; next {_with(rest[0])}." if rest and alone else f"{said}."


def _ties(rows: Sequence[Row]) -> list[list[Row]]:
    """The strongest first; those that are written alike together."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: -float(row["rank_correlation"])):
        found.setdefault(fixed(row["rank_correlation"]), []).append(row)
    return list(found.values())


def _runs(rows: list[Row]) -> int:
    return max((int(row["runs"]) for row in rows), default=0)


def _with(tied: Sequence[Row], remark: str = "") -> str:
    """`0.97 (0.90 to 0.99) with the functional error`; steps of one ladder are not independent, as `remark` says."""
    first = tied[0]
    found = between(first.get("low"), float(first["rank_correlation"]), first.get("high"))
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f" ({INTERVAL if remark else ''}{fixed(found.low)} to {fixed(found.high)}{remark})"
    names = [f"the {_NAMES.get(str(row['error']), plain(row['error']))}" for row in tied]
    return f"{fixed(found.value)}{interval} with {listing(names)}"
