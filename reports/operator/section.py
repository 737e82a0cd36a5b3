"""The section that `operator` puts on the page."""

from collections.abc import Sequence
from statistics import median

from reports.drawing import Figure
from reports.formats import EMPTY, fixed, integer, percent, significant
from reports.operator.answer import answer, storage_table, summary_table
from reports.operator.data import bounded, points, title
from reports.operator.figures import BOUNDS, GROWTH, STORAGE
from reports.run import MODES, Row, Run, Stack, stacks
from reports.sections import Block, Section
from reports.tables import Cell, Column, Table, table_of

_OPEN_LAYERS = 2  # with more layers than this their long tables start folded


def operator_section(run: Run, figures: Sequence[Figure]) -> Section:
    """Answer, errors over storage, bounds, growth, tensor norms, and every layer's measurements."""
    listed = stacks(run, "tensor_norm")
    drawn = {figure.name: figure for figure in figures}
    rows = run["tables"].get("operator", [])
    wide = []
    if found := points(run):
        caption = "Every method at every storage and rank, means over stacks"
        wide.append(
            _block(
                "storage", "Operator and Frobenius error over storage", storage_table(caption, found), drawn, STORAGE
            )
        )
    if bounded(run):
        wide.append(_block("bounds", "Measured operator error and its bounds", _bounds_table(run), drawn, BOUNDS))
    if growth := run["tables"].get("growth", []):
        wide.append(
            _block(
                "growth",
                "Growth of the bound with the width",
                table_of(growth, _GROWTH, "Corollary 1's bound at a fixed rank on parts of the stack"),
                drawn,
                GROWTH,
            )
        )
    if norms := run["tables"].get("tensor_norm", []):
        table = table_of(norms, _TENSOR, "Spectral norms of the unfoldings beside that of the stack as a tensor")
        wide.append(Block("tensor-norm", "Spectral norm as a tensor", table, folded=True))
    layers = sorted({stack.layer for stack in listed})
    return Section(
        title="Operator against Frobenius error",
        answer=answer(run, listed),
        summary=summary_table(run),
        wide=wide,
        tiles_title="Layer by layer",
        tiles=[_layer(layer, listed, rows, folded=len(layers) > _OPEN_LAYERS) for layer in layers],
        method="operator_method.html.j2",
    )


def _block(anchor: str, heading: str, table: Table, drawn: dict[str, Figure], name: str) -> Block:
    return Block(anchor, heading, table, figure=drawn.get(name), folded=True)


def _layer(layer: int, listed: list[Stack], rows: list[Row], *, folded: bool) -> Block:
    ours = [row for row in rows if int(row["layer"]) == layer and row.get("expert") == "mean"]
    ours += [
        {
            "projection": stack.projection,
            "method": EMPTY,
            "status": stack.state if stack.state != "done" else "not measured",
        }
        for stack in listed
        if stack.layer == layer and not stack.rows
    ]
    caption = f"All methods and ranks of layer {layer}, means over experts"
    return Block(f"layer-{layer}", f"Layer {layer}", table_of(ours, _MEASUREMENTS, caption), folded=folded)


def _absence(stack: Stack) -> str:
    """Why a stack has no row."""
    return stack.state if stack.state in {"failed", "pending"} else "not measured"


def _bounds_table(run: Run) -> Table:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in bounded(run):
        groups.setdefault((row["method"], row["mode"]), []).append(row)
    lines = []
    for (method, mode), rows in sorted(groups.items(), key=lambda item: (item[0][0], MODES.index(item[0][1]))):
        measured, paper, proven = (
            [float(row[c]) for row in rows] for c in ("operator_over_optimal", "bound_paper", "bound_proven")
        )
        above = sum(m > p for m, p in zip(measured, paper, strict=True))
        numbers = (median(measured), max(measured), median(paper), median(proven))
        texts = (f"{title(method)}, {mode}", *(fixed(n, 2) for n in numbers), f"{above} of {len(rows)}")
        lines.append([Cell(text) for text in texts])
    headings = ("method, unfolding", "measured, median", "measured, largest", "Corollary 1, median", "proven, median",
                "above Corollary 1")  # fmt: skip
    return Table("Operator error of unfoldings over the least of the rank, and its bounds", headings, lines)


_GROWTH = (
    Column("layer, projection, mode", lambda row: f"L{row['layer']} {row['projection']}, {row.get('mode') or EMPTY}"),
    Column("width", lambda row: integer(row.get("width"))),
    Column("rank", lambda row: integer(row.get("k"))),
    Column("alpha", lambda row: fixed(row.get("alpha"))),
    Column("bound", lambda row: fixed(row.get("bound"), 2)),
    Column("slope measured", lambda row: fixed(row.get("slope_measured"))),
    Column("slope predicted", lambda row: fixed(row.get("slope_predicted"))),
    Column("slope of exact power laws", lambda row: fixed(row.get("slope_power_law"))),
)
_TENSOR = (
    Column("layer, projection, mode", lambda row: f"L{row['layer']} {row['projection']}, {row.get('mode') or EMPTY}"),
    Column("unfolding", lambda row: significant(row.get("unfolding_norm"), 4)),
    Column("tensor, at least", lambda row: significant(row.get("tensor_norm_lower"), 4)),
    Column("ratio, at most", lambda row: fixed(row.get("unfolding_over_tensor_upper"), 2)),
    Column("limit of Proposition 1", lambda row: fixed(row.get("limit"), 2)),
)
_MEASUREMENTS = (
    Column("projection, method", lambda row: f"{row['projection']}, {title(str(row['method']))}"),
    Column("rank", lambda row: str(row.get("rank") or EMPTY)),
    Column("kept", lambda row: percent(row.get("kept_ratio"))),
    Column("weight error", lambda row: fixed(row.get("weight_error"))),
    Column("functional error", lambda row: fixed(row.get("functional_error"))),
    Column("operator error", lambda row: fixed(row.get("operator_error"))),
    Column("its upper end", lambda row: fixed(row.get("operator_error_upper"))),
    Column("operator error over the least of the rank", lambda row: fixed(row.get("operator_over_optimal"), 2)),
    Column("weight error over the least of the rank", lambda row: fixed(row.get("weight_over_optimal"), 2)),
    Column("operator error over the SVD's", lambda row: fixed(row.get("operator_over_svd"), 2)),
)
