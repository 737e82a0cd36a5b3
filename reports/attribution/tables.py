"""The tables of `attribution`: losses, errors, ranks and specs a line a step; Shapley values; rank correlations."""

from collections.abc import Callable, Sequence

from reports.attribution.ladders import Attribution, Step, mode_errors, ranged, share, with_error
from reports.attribution.shares import correlation, error_name, switch_name
from reports.formats import EMPTY, fixed, integer, percent
from reports.run import MODES, Row
from reports.tables import Column, Table, table_of

_MOST = 4  # ranks in a cell
TOLERANCE = 0.005  # of stored bits, within which they are matched


def _step(text: Callable[[Step], str]) -> Callable[[Row], str]:
    return lambda row: text(Step(row))


def _number(column: str, places: int) -> Callable[[Row], str]:
    return lambda row: fixed(row.get(column), places)


def _no_reason(row: Row) -> str:
    return ""


def _unmeasured(row: Row) -> str:
    """Why a loss is missing; a missing gap is none."""
    step = Step(row)
    return "" if step.measured or step.method == "dense" else step.reason


def _bits(row: Row) -> str:
    """Saved, and what more or fewer are stored than `beside` where that is more than the tolerance."""
    saved, beside = row.get("bits_saved"), row.get("beside")
    if saved is None or not beside or row.get("ratio") is None or abs(more := (1 - saved) / beside - 1) <= TOLERANCE:
        return percent(saved)
    return f"{percent(saved)} ({percent(abs(more))} {'more' if more > 0 else 'fewer'} stored)"


def _few(ranks: str) -> str:
    """Those of the first stacks, and how many others there are."""
    parts = ranks.split()
    return " ".join(parts[:_MOST]) + (f" and {len(parts) - _MOST} more" if len(parts) > _MOST else "") or EMPTY


NAME = Column("step", _step(lambda step: step.name))
LOSS = (
    Column("above dense, nats", _step(lambda step: step.says()), reason=_unmeasured),
    Column("change, nats", _step(lambda step: step.says("change_nats")), reason=_no_reason),
    Column("gap closed (95 %)", _step(lambda step: step.closed())),
    Column("bits saved", lambda row: _bits(row), reason=_no_reason),
    Column(
        "perplexity",
        lambda row: with_error(row.get("perplexity"), row.get("perplexity_stderr")),
        reason=_no_reason,
    ),
)
ERRORS = (
    *(
        Column(name, _number(column, 3), "relative error", reason=_no_reason)
        for name, column in (
            ("weight", "weight_error"),
            ("functional", "functional_error"),
            ("functional, own inputs", "functional_error_expert"),
            ("operator", "operator_error"),
        )
    ),
    Column("angle, °", _number("angle_deg", 2), "stream after the last layer", reason=_no_reason),
    Column("norm ratio", _number("norm_ratio", 3), "stream after the last layer", reason=_no_reason),
)
RANKS = (
    Column("ranks", lambda row: _few(str(row.get("ranks") or "")), reason=_no_reason),
    *(Column(mode, _number(f"mode_error_{mode}", 3), "cutting one mode alone", reason=_no_reason) for mode in MODES),
    Column("floor", _number("floor", 3), "functional error"),
    Column("of the step", _number("functional_error", 3), "functional error", reason=_no_reason),
)
SPECS = (
    Column("method", lambda row: str(row.get("method") or EMPTY)),
    Column("ratio", lambda row: EMPTY if row.get("ratio") is None else f"{row['ratio']:.3g}", reason=_no_reason),
    Column("projections", lambda row: str(row.get("projections") or EMPTY).replace(",", ", "), reason=_no_reason),
    Column("seconds", _number("seconds", 1), reason=_no_reason),
)


def losses(steps: Sequence[Step], caption: str, *, ladder: str = "") -> Table:
    """What each step adds to the loss. In the table of a ladder the presets of MoBE stand for the whole of it."""
    saved = next((step.value("bits_saved") for step in steps if step.value("bits_saved") is not None), None)
    usual = {"beside": None if saved is None else 1 - saved}
    rows = [
        {**step.row, **usual, "step": f"MoBE, {step.preset}", "change_nats": None}
        if step.is_preset and step.row.get("ladder") != ladder
        else {**step.row, **usual}
        for step in steps
    ]
    return table_of(rows, (NAME, *LOSS), caption)


def errors(found: Attribution) -> Table:
    """Errors and drift of everything that was measured."""
    rows = [step.row for step in found.everything if step.method != "dense"]
    return table_of(rows, (NAME, *ERRORS), "Errors of the factors, and where the residual stream ends")


def ranks(found: Attribution) -> Table:
    """Of TD-MoE's steps."""
    return table_of(
        [step.row for step in found.tensors if mode_errors(step) or step.row.get("ranks")],
        (NAME, *RANKS),
        "Ranks (expert x output x input) and what they cost in functional error, means over stacks",
    )


def specs(found: Attribution) -> Table:
    """What to type for each step."""
    return table_of([step.row for step in found.everything], (NAME, *SPECS), "Every step as a spec of --method")


def ends(found: Attribution) -> Table | None:
    """The answer at a glance: TD-MoE's first and best step, MoBE's presets, rounding."""
    chosen: list[tuple[str, Step]] = []
    if found.published is not None:
        chosen.append((f"TD-MoE {found.published.name}", found.published))
    if found.best is not None and found.best is not found.published:
        chosen.append(("TD-MoE, best step", found.best))
    chosen += [(f"MoBE, {step.preset}", step) for step in found.presets]
    chosen += [(step.name, step) for step in found.beside if step.family == "rtn"]
    if not chosen:
        return None
    columns = (Column("model", lambda row: str(row["named"])), *(LOSS[n] for n in (0, 2, 3, 4)))
    rows = [{**step.row, "named": named} for named, step in chosen]
    return table_of(rows, columns, "Loss above the dense model, mean ± paired standard error")


def shapley(found: Attribution) -> Table:
    """Every change, in the order of the ladder."""
    columns = (
        Column("change", switch_name),
        Column("Shapley value, nats (95 %)", lambda row: ranged(row, "nats", "nats_low", "nats_high", 4)),
        Column("share of the gap (95 %)", lambda row: share(row, "gap_share", "gap_share_low", "gap_share_high")),
        Column("alone", _number("alone_nats", 4), "nats, switched on", reason=_no_reason),
        Column("last", _number("last_nats", 4), "nats, switched on", reason=_no_reason),
        Column("orders", lambda row: _count(row, "orders"), reason=_no_reason),
        Column("models", lambda row: _count(row, "coalitions"), reason=_no_reason),
        Column("windows", lambda row: _count(row, "windows"), reason=_no_reason),
    )
    return table_of(found.switches, columns, "Loss that each change takes away, over the orders to switch them on")


def predictors(found: Attribution) -> Table:
    """Every error."""
    columns = (
        Column("error", error_name),
        Column("rank correlation (95 %)", correlation),
        Column("models", lambda row: _count(row, "runs"), reason=_no_reason),
    )
    return table_of(found.predictors, columns, "Rank correlation with the loss above the dense model")


def _count(row: Row, column: str) -> str:
    value = row.get(column)
    return EMPTY if value is None else integer(value) if isinstance(value, int | float) else str(value)
