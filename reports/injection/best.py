"""Which error predicts the damage of drawn residuals best: the claim, where intervals of R² differences allow one."""

from reports.formats import fixed, listing, percent
from reports.injection.sites import ERRORS, NAMES, Site
from reports.run import Row, given

UNTOLD = "Which error predicts the damage of drawn residuals best cannot be told"
LEAST_CELLS = 8  # kinds of residual (cells) below which no error is called the best: a line fits a few by chance


def laws(site: Site) -> list[Row]:
    """Of the three errors, the one that explains most first."""
    found = [row for error in ERRORS if (row := site.statistic("exponent", error=error)) is not None]
    return sorted((row for row in found if given(row, "r2")), key=lambda row: -float(row["r2"]))


def enough(site: Site) -> bool:
    """Whether there are kinds of residual enough to compare errors."""
    return all(int(law["count"]) >= LEAST_CELLS for law in laws(site)[:1])


def compared(site: Site, where: str, exponent: str) -> str:
    """The sentence; `where` says what was injected into, `exponent` is that of the best with its interval."""
    best, *others = laws(site)
    name, count = NAMES[str(best["error"])], int(best["count"])
    if not enough(site):
        return (
            f"{UNTOLD}: {count} kinds of residual injected into {where} clearly increased the loss, {LEAST_CELLS} are "
            "needed."
        )
    claim, of_it = claimed(site), "it" if not others or is_best(site) else f"the {name}"
    said = (
        f"{claim}: over {count} kinds of residual injected into {where}, a power of {of_it}, exponent {exponent}, "
        f"explains {percent(best['r2'])} of the variance of the logarithm of the added loss"
    )
    parts = [_beside(site, best, other) for other in others]
    return f"{said}; {listing(parts)}." if parts else f"{said}."


def claimed(site: Site) -> str:
    """The claim about drawn residuals, by name where the intervals allow it; it says nothing of what methods leave."""
    best, *others = laws(site)
    name = NAMES[str(best["error"])]
    if not others:
        return f"Beside the {name} no error gives a law of the damage of drawn residuals"
    return f"Of drawn residuals the {name} predicts the damage best" if is_best(site) else UNTOLD


def is_best(site: Site) -> bool:
    """Whether the first of the laws explains more than each of the others for certain."""
    best, *others = laws(site)
    return all(is_less(site, best, other) for other in others)


def difference(site: Site, best: Row, other: Row) -> tuple[float, float, float] | None:
    """R² of the best less that of another, with its interval."""
    for sign, first, second in ((1.0, best, other), (-1.0, other, best)):
        row = site.statistic("r2_difference", error=first["error"], other_error=second["error"])
        if row is not None and given(row, "low", "high"):
            low, high = sorted(sign * float(row[end]) for end in ("low", "high"))
            return sign * float(row["value"]), low, high
    return None


def is_less(site: Site, best: Row, other: Row) -> bool:
    """The whole interval of the difference lies above 0."""
    found = difference(site, best, other)
    return found is not None and found[1] > 0


def _beside(site: Site, best: Row, other: Row) -> str:
    said = f"the {NAMES[str(other['error'])]} {percent(other['r2'])}"
    found = difference(site, best, other)
    if found is None:
        return f"{said} (interval of the difference not measured)"
    value, low, high = (fixed(100 * number, 1) for number in found)
    apart = "" if found[1] > 0 else ", cannot be told apart"
    return f"{said} ({value} points less, 95 % interval {low} to {high}{apart})"
