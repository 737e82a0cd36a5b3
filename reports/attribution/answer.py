"""The answer in plain words, computed from the rows: nothing is said that a number does not support."""

from reports.attribution.effects import effects, order
from reports.attribution.ladders import DENSE, Attribution
from reports.attribution.origins import floor, origin, predictors, rounding
from reports.attribution.verdict import verdict
from reports.formats import listing

_NOTHING = "No step of TD-MoE was measured, so this run does not say what is self-inflicted."
_NO_DENSE = "The dense model was not measured, so this run does not say what TD-MoE adds to its loss."


def answer(found: Attribution) -> list[str]:
    """Sentences for the top of the page, the most important first."""
    nothing = _NO_DENSE if any(step.value("loss_nats") is not None for step in found.tdmoe) else _NOTHING
    first = [nothing] if found.best is None else verdict(found)
    said = [*first, *effects(found), order(found), floor(found), origin(found), rounding(found)]
    said += [predictors(found), _coverage(found)]
    return [sentence for sentence in said if sentence]


def _coverage(found: Attribution) -> str:
    """On what, and what is missing."""
    row = next((step.row for step in found.everything if step.row.get("windows") is not None), None)
    said = []
    if row is not None:
        tokens = f", {int(row['tokens']):,} scored tokens" if row.get("tokens") is not None else ""
        said.append(f"Measured on {int(row['windows'])} windows of {row.get('text') or 'a held-out text'}{tokens}.")
    missing = [
        f"{step.name} ({step.reason})" if step.reason != "not measured" else step.name
        for step in found.everything
        if not step.measured and step.method != DENSE
    ]
    missing += [] if found.switches else ["Shapley values"]
    missing += [] if found.predictors else ["which error predicts the loss"]
    if missing:
        said.append(f"Not measured: {listing(missing)}.")
    return " ".join(said)
