"""The answer in plain words, computed from the statistics: nothing is said that a number below does not support."""

from reports.formats import fixed, listing, percent, significant
from reports.injection.best import compared, laws
from reports.injection.sites import DESIGN_NAMES, DRAWN, ERRORS, NAMES, PER_EXPERT, Site, ratios, words
from reports.run import Row, given
from reports.tables import Cell, Table

LIMIT = (
    "This is of drawn residuals alone: what compression leaves is not drawn, and which error orders the losses of "
    "compressed models is measured by attribution."
)


def answer(found: list[Site]) -> list[str]:
    """Sentences for the top of the page: of the first site at length, of the others in a line each."""
    first = next((site for site in found if site.statistics("exponent")), None)
    if first is None:
        return ["No law could be fitted to the responses, so this run answers nothing yet."]
    said = [_best(first), LIMIT, _operator(first), *_pairs(first), _joint(first), _correlations(first), _own(first)]
    said += [_methods(first), *(_short(site) for site in found if site is not first), _coverage(found)]
    return [sentence for sentence in said if sentence]


def summary_table(found: list[Site]) -> Table | None:
    """Every site and error: rank correlation, law alone, exponent together."""
    lines = []
    for site in found:
        for error in (*ERRORS, PER_EXPERT):
            law, joint = site.statistic("exponent", error=error), site.statistic("joint", error=error)
            rank = site.statistic("spearman", error=error)
            if law or rank:
                explained = fixed(law["r2"], 3) if law else "—"
                cells = [_ranged(rank), _ranged(law), explained, _ranged(joint)]
                lines.append([Cell(f"{site.name}, {NAMES[error]}"), *map(Cell, cells)])
    headings = ("injected into, error", "rank correlation", "exponent alone", "R² alone", "exponent together")
    caption = "Which error predicts the increase of the loss, with 95 % intervals"
    return Table(caption, headings, lines) if lines else None


def _ranged(row: Row | None, places: int = 2) -> str:
    if row is None:
        return "—"
    if not given(row, "low", "high"):
        return fixed(row["value"], places)
    return f"{fixed(row['value'], places)} ({fixed(row['low'], places)} to {fixed(row['high'], places)})"


def _times(row: Row) -> str:
    said = significant(row["value"], 3)
    return (
        f"{said} times (95 % interval {significant(row['low'], 3)} to {significant(row['high'], 3)})"
        if given(row, "low", "high")
        else f"{said} times"
    )


def _best(site: Site) -> str:
    best = laws(site)[0]
    left = int(best.get("left_out") or 0)
    tail = f" {left} more did not clearly increase the loss and are left out." if left else ""
    return f"{compared(site, site.phrase, _ranged(best))}{tail}"


def _operator(site: Site) -> str:
    """What becomes of the claim that the operator norm governs."""
    joint = site.statistic("joint", error="operator_error")
    if joint is None or not given(joint, "low", "high"):
        return ""
    low, high = float(joint["low"]), float(joint["high"])
    said = f"With the other two errors held fixed, the exponent of the operator error is {_ranged(joint)}: "
    if low <= 0 <= high:
        return said + "no effect of the operator norm by itself was found."
    if high < 0:
        return said + "a larger operator norm goes with less damage, not more."
    return said + "a larger operator norm does add damage."


def _pairs(site: Site) -> list[str]:
    rows = {(row["design"], row["families"]): row for row in ratios(site)}
    said = []
    if (row := rows.get(("frobenius", "rank_one/flat"))) is not None:
        said.append(
            "At equal Frobenius norm, rank-one residuals have "
            f"{fixed(row['operator_error_ratio'], 2)} times the operator error of flat ones and "
            f"{fixed(row['functional_error_ratio'], 2)} times the functional error; their damage is {_times(row)}."
        )
    if (row := rows.get(("frobenius", "along/against"))) is not None:
        said.append(
            "At equal singular values, so that Frobenius and operator norm are both the same, residuals along the "
            f"inputs' strongest directions have {fixed(row['functional_error_ratio'], 2)} times the functional "
            f"error of those against them; their damage is {_times(row)}; the square of the functional error "
            f"would say {significant(float(row['functional_error_ratio']) ** 2, 3)}."
        )
    if (row := rows.get(("operator", "rank_one/flat"))) is not None:
        said.append(
            "At equal operator norm, rank-one residuals have "
            f"{fixed(row['functional_error_ratio'], 2)} times the functional error of flat ones; their damage is "
            f"{_times(row)}."
        )
    return said


def _joint(site: Site) -> str:
    rows = {row["error"]: row for row in site.statistics("joint")}
    if len(rows) < len(ERRORS):
        return ""
    parts = [f"{NAMES[error]} to the power {_ranged(rows[error])}" for error in ERRORS]
    return f"All three together: the damage grows as {listing(parts)}, R² {fixed(rows[ERRORS[0]]['r2'], 3)}."


def _correlations(site: Site) -> str:
    rows = [row for error in ERRORS if (row := site.statistic("spearman", error=error)) is not None]
    if not rows:
        return ""
    parts = [f"{_ranged(row)} with the {NAMES[row['error']]}" for row in rows]
    return (
        f"Rank correlation of the damage over all {rows[0]['count']} runs: {listing(parts)}. The runs share draws, "
        "windows and sizes, so that this ranks the errors and proves nothing by itself."
    )


def _own(site: Site) -> str:
    own, pooled = (site.statistic("exponent", error=error) for error in (PER_EXPERT, "functional_error"))
    if own is None or pooled is None:
        return ""
    return (
        f"Under each expert's own inputs the functional error explains {percent(own['r2'])}, under the pooled inputs "
        f"{percent(pooled['r2'])}."
    )


def _methods(site: Site) -> str:
    """What methods leave, against the law of the drawn residuals."""
    parts = []
    for row in site.statistics("excess", error="functional_error"):
        weight = site.statistic("excess", error="weight_error", families=row["families"])
        beside = f", of the same weight error {_times(weight)}" if weight is not None else ""
        parts.append(f"{row['families']} {_times(row)}{beside}")
    if not parts:
        return ""
    return f"Damage of what methods leave, against drawn residuals of the same functional error: {'; '.join(parts)}."


def _short(site: Site) -> str:
    found = laws(site)
    if not found:
        return f"Injected into {site.phrase}: no law could be fitted."
    parts = [f"{NAMES[row['error']]} {percent(row['r2'])}" for row in found]
    joint = site.statistic("joint", error="operator_error")
    beside = f"; exponent of the operator error beside the others {_ranged(joint)}" if joint is not None else ""
    return f"Injected into {site.phrase}: explained by {listing(parts)}{beside}."


def _coverage(found: list[Site]) -> str:
    rows = [row for site in found for row in site.rows if given(row, "loss_change")]
    missing = sum(not given(row, "loss_change") for site in found for row in site.rows)
    drawn = [words(name) for name in DRAWN if any(row["family"] == name for row in rows)]
    seeds = len({row["seed"] for row in rows if given(row, "seed")})
    designs = [DESIGN_NAMES[str(name)] for name in dict.fromkeys(row["design"] for row in rows)]
    sizes = [significant(size) for size in sorted({float(row["size"]) for row in rows})]
    said = (
        f"Measured: {len(rows)} runs over {max(int(row['tokens']) for row in rows):,} held-out tokens; families "
        f"{listing(drawn)}, {seeds} {'draw (seed)' if seeds == 1 else 'draws (seeds)'} of each; equal "
        f"{listing(designs)}; sizes {listing(sizes)}."
    )
    said += (
        " With one seed the intervals are over windows only."
        if seeds == 1
        else f" Intervals are Student's, over windows and over the {seeds} seeds of each family."
    )
    return said + (" The run is incomplete: all of the above holds for the measured part only." if missing else "")
