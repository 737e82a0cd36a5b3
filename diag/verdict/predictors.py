"""Errors that predict the damage: of injected residuals, and of compressed models. The two may differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from diag.declare.claim import Claim, Estimate, Evidence, Quantity, between
from diag.statistics.medians import given
from diag.verdict.subjects import Row, Subject, number, plain

ERRORS = ("weight_error", "functional_error", "operator_error")
NAMES = {name: name.replace("_", " ") for name in ERRORS} | {
    "functional_error_expert": "functional error per expert",
    "angle_deg": "angle of the residual stream",
}
LEAST_CELLS = 8  # kinds of residual below which no error is called the best: a line fits a few by chance
UNTOLD = "Which error predicts the damage of injected residuals best cannot be told"
EXPONENT = Quantity("damage_exponent", "Exponent of that power law", "factor")
LESS = Quantity("predictor_injected_less", "Others explain less of it, by", "percent")
NO_INTERVAL = Quantity("predictor_injected_other", "Others explain, without an interval of the difference", "percent")
_TABLE, _MODELS = "injection_contrasts", "attribution_predictors"
_INDEPENDENT = "Intervals hold for independent models, which steps of one ladder are not."


def predictor_claims(subject: Subject) -> Iterator[Claim]:
    """Two statements that may differ: of injected residuals, which tell causes apart, and of compressed models."""
    site = next((rows for rows in _sites(subject) if laws(rows)), None)
    if site is None:
        words = "Which error predicts the damage of injected residuals"
        yield Claim("injection does that", Quantity("predictor_injected", words), Estimate(None))
    else:
        yield from _injected(site)
    yield from _compressed(subject)


def laws(site: Sequence[Row]) -> list[Row]:
    """Power laws of the three errors, the one that explains most first."""
    found = [row for error in ERRORS for row in _statistic(site, "exponent", error=error)[:1]]
    return sorted(given(found, "r2"), key=lambda row: -float(row["r2"]))


def difference(site: Sequence[Row], best: Row, other: Row) -> Estimate | None:
    """R² of the best less that of another, with its interval; None where that is not known."""
    for turned, first, second in ((False, best, other), (True, other, best)):
        for row in _statistic(site, "r2_difference", error=first["error"], other_error=second["error"])[:1]:
            found = between(number(row, "low"), float(row["value"]), number(row, "high"))
            if found.known:
                return found.turned if turned else found
    return None


def _sites(subject: Subject) -> list[list[Row]]:
    """Contrasts by what was injected into at once: all layers first, most projections first."""
    found: dict[tuple[int, str, Any, str], list[Row]] = {}
    for run, rows in subject.tables(_TABLE):
        for row in rows:
            found.setdefault((run, str(row["scope"]), row.get("layer"), str(row["projection"])), []).append(row)

    def place(key: tuple[int, str, Any, str]) -> tuple[Any, ...]:
        run, _, layer, projection = key
        return run, layer is not None, layer or 0, -projection.count(","), projection

    return [found[key] for key in sorted(found, key=place)]


def _statistic(site: Sequence[Row], statistic: str, **values: Any) -> list[Row]:
    rows = [row for row in given(site, "value") if row["statistic"] == statistic]
    return [row for row in rows if all(row.get(column) == value for column, value in values.items())]


def _injected(site: Sequence[Row]) -> Iterator[Claim]:
    """The claim by name where the intervals of all differences lie above 0 and there are kinds of residual enough."""
    best, *others = laws(site)
    name, count = NAMES[str(best["error"])], int(best["count"])
    evidence = Evidence(_TABLE, "r2", 1, {"statistic": "exponent", "error": best["error"]})
    if count < LEAST_CELLS:
        unit = "kinds of residual that have to increase the loss"
        few = Quantity("predictor_injected", UNTOLD, "integer", "share")
        yield Claim("", few, Estimate(count, unit=unit, of=LEAST_CELLS), {}, evidence)
        return
    less = {str(other["error"]): difference(site, best, other) for other in others}
    clear = all(found is not None and found.above for found in less.values())
    words = f"Of injected residuals the {name} predicts the damage best" if clear else UNTOLD
    if not others:
        words = f"No error but the {name} gives a law of the damage of injected residuals"
    after = f"Share of the variance of the log loss that a power of it explains, over {count} kinds of residual."
    yield Claim(name, Quantity("predictor_injected", words, "percent", after=after), Estimate(best["r2"]), {}, evidence)
    if not others:
        estimate = between(number(best, "low"), float(best["value"]), number(best, "high"))
        yield Claim("", EXPONENT, estimate, {}, evidence)
    for quantity, known in ((LESS, True), (NO_INTERVAL, False)):
        for other in others:
            found = less[str(other["error"])]
            if (found is not None) == known:
                where = {"statistic": "r2_difference", "error": best["error"], "other_error": other["error"]}
                yield Claim(NAMES[str(other["error"])], quantity, found or Estimate(other["r2"]), {},
                            Evidence(_TABLE, "value", 1, where))  # fmt: skip


def _compressed(subject: Subject) -> Iterator[Claim]:
    """Claims of the attribution with most models: rank correlations with the added loss, the strongest first."""
    tables = [given(rows, "rank_correlation") for _, rows in subject.tables(_MODELS)]
    rows = max(tables, key=_runs, default=[])
    if not rows:
        words = "Which error orders the added loss of compressed models"
        yield Claim("attribution does that", Quantity("predictor_models", words), Estimate(None))
        return
    first, *rest = sorted(rows, key=lambda row: -float(row["rank_correlation"]))
    start = f"Of {first['runs']} compressed models"
    clear = bool(rest) and all(_ends_below(row, number(first, "low")) for row in rest)
    words = f"{start} no error is known to order the added loss best, rank correlations"
    if clear:
        words = f"{start} the {_name(first)} orders the added loss best, rank correlations"
    known = all(number(row, end) is not None for row in (first, *rest) for end in ("low", "high"))
    quantity = Quantity("predictor_models", words, "exponent", after=_INDEPENDENT if known else "")
    for row in (first, *rest):
        estimate = between(number(row, "low"), float(row["rank_correlation"]), number(row, "high"))
        evidence = Evidence(_MODELS, "rank_correlation", 1, {"error": row["error"]})
        yield Claim(_name(row), quantity, estimate, {}, evidence)


def _ends_below(row: Row, low: float | None) -> bool:
    high = number(row, "high")
    return high is not None and low is not None and high < low


def _runs(rows: Sequence[Row]) -> int:
    return max((int(row["runs"]) for row in rows), default=0)


def _name(row: Row) -> str:
    return NAMES.get(str(row["error"]), plain(row["error"]))
