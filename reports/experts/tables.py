"""The tables of `experts`: the answer by stack, the measured triples and the similarities of a layer."""

from collections.abc import Callable, Sequence

from reports.experts.data import NAMES, WeightStack, ratios_of
from reports.formats import EMPTY, fixed, integer, percent
from reports.run import Row, given
from reports.tables import Column, Table, table_of


def _is(form: Callable[[float | None], str], column: str) -> Callable[[Row], str]:
    return lambda row: form(row.get(column))


def _signed(value: float | None) -> str:
    return fixed(value, signed=True)


def _ranks(row: Row) -> str:
    if not given(row, "rank_expert"):
        return EMPTY
    return " × ".join(integer(row[f"rank_{mode}"]) for mode in ("expert", "output", "input"))


def _with_interval(name: str, factor: float = 1.0, places: int = 3, signed: bool = False) -> Callable[[Row], str]:
    """The value with its interval in brackets, ends in ascending order."""

    def text(row: Row) -> str:
        if not given(row, name):
            return EMPTY
        said = fixed(factor * row[name], places, signed)
        if given(row, f"{name}_low", f"{name}_high"):
            low, high = sorted(factor * row[f"{name}_{end}"] for end in ("low", "high"))
            said += f" ({fixed(low, places, signed)} to {fixed(high, places, signed)})"
        return said

    return text


def _change(column: str) -> Callable[[Row], str]:
    """A gain as what cutting changes, in per cent."""
    return lambda row: fixed(-100 * row[column], 1, signed=True) if given(row, column) else EMPTY


def _order_free(row: Row) -> str:
    return EMPTY if not given(row, "order_free") else "yes" if row["order_free"] else "no"


BINDING = (
    Column("layer, projection", lambda row: f"L{row['layer']} {row['projection']}"),
    Column("removed", _is(lambda value: percent(value, 0), "ratio")),
    Column("binding", lambda row: str(row.get("binding") or EMPTY)),
    Column("change by cutting (%)", _with_interval("gain", -100.0, 1, signed=True), "at equal storage"),
    Column("of independent experts (%)", _change("gain_null"), "at equal storage"),
    Column("price share", _with_interval("price_share", places=2), "at equal storage"),
    Column("of independent experts", _is(lambda value: fixed(value, 2), "price_share_null"), "at equal storage"),
    Column("best expert rank", _is(integer, "rank_expert"), "at equal storage"),
    Column("share of its error by cut experts", _is(percent, "expert_share"), "at equal storage"),
    Column("least error, all experts", _is(fixed, "error_preserve"), "error"),
    Column("least error, experts cut", _is(fixed, "error_compress"), "error"),
    Column("at expert rank", _is(integer, "rank_expert_compress"), "error"),
    Column("compress − preserve", _is(_signed, "published_difference"), "published ranks"),
    Column("at expert rank", _is(integer, "rank_expert_published"), "published ranks"),
    Column("due to experts", _is(_signed, "due_to_experts"), "published ranks"),
    Column("due to ranks", _is(_signed, "due_to_ranks"), "published ranks"),
)

POINTS = (
    Column("projection, removed", lambda row: f"{row['projection']}, {percent(row.get('ratio'), 0)}"),
    Column("allocation", lambda row: str(row.get("allocation") or EMPTY)),
    Column("expert mode", lambda row: str(row.get("expert_mode") or EMPTY)),
    Column("ranks (expert × output × input)", _ranks),
    Column("kept", _is(percent, "kept_ratio")),
    Column("weight", _is(fixed, "weight_error"), "error, of the factors as stored"),
    Column("functional", _is(fixed, "functional_error"), "error, of the factors as stored"),
    Column("operator", _is(fixed, "operator_error"), "error, of the factors as stored"),
    Column("expert", _is(lambda v: fixed(v, 4), "price_expert"), "price of 1 % of the parameters (squared error)"),
    Column("output", _is(lambda v: fixed(v, 4), "price_output"), "price of 1 % of the parameters (squared error)"),
    Column("input", _is(lambda v: fixed(v, 4), "price_input"), "price of 1 % of the parameters (squared error)"),
)

SIMILAR = (
    Column("projection, measure", lambda row: f"{row['projection']}, {NAMES.get(row['measure'], row['measure'])}"),
    Column("mean", _is(fixed, "mean"), "pairs of experts"),
    Column("5 %", _is(fixed, "q05"), "pairs of experts"),
    Column("median", _is(fixed, "median"), "pairs of experts"),
    Column("95 %", _is(fixed, "q95"), "pairs of experts"),
    Column("mean", _is(fixed, "null_mean"), "independent experts"),
    Column("standard deviation", _is(fixed, "null_sd"), "independent experts"),
    Column("beyond 97.5 % of them", _is(percent, "beyond_null"), "pairs of experts, again"),
    Column("pairs", _is(integer, "pairs"), "pairs of experts, again"),
    Column("leading directions", _is(integer, "directions"), "how"),
    Column("free of the units' order", _order_free, "how"),
)


def binding_table(listed: Sequence[WeightStack]) -> Table:
    """The answer of every stack and ratio; stacks that failed say so."""
    rows: list[Row] = []
    for stack in listed:
        found = [stack.binding[ratio] for ratio in sorted(stack.binding)]
        rows += found or [_absent(stack)]
    return table_of(rows, BINDING, "Is the expert mode the binding constraint? By stack and ratio, 95 % intervals")


def points_table(layer: int, listed: Sequence[WeightStack]) -> Table:
    """The four measured triples of every stack and ratio of a layer."""
    rows: list[Row] = []
    for stack in listed:
        found = [row for ratio in ratios_of([stack]) for row in stack.headlines(ratio).values()]
        rows += found or [_absent(stack)]
    return table_of(rows, POINTS, f"Measured triples of layer {layer}")


def similarity_table(layer: int, listed: Sequence[WeightStack]) -> Table:
    """Every measure of every stack of a layer, beside independent experts."""
    rows: list[Row] = []
    for stack in listed:
        rows += list(stack.similar.values()) or [_absent(stack) | {"measure": "similarity"}]
    return table_of(rows, SIMILAR, f"Similarity of the experts of layer {layer} (no unit but for angles)")


def _absent(stack: WeightStack) -> dict[str, object]:
    """A row that says why a stack has none."""
    known = next((str(row["status"]) for row in stack.points if row.get("status")), "not measured")
    status = stack.state if stack.state in {"failed", "pending"} else known
    return {"layer": stack.layer, "projection": stack.projection, "status": status}
