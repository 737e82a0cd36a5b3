"""The tables of `drift`: after the last layer, over depth, local against accumulated, by set of layers."""

from collections.abc import Callable, Sequence

from reports.drift.variants import ONE, Accumulation, Variant, largest
from reports.formats import EMPTY, fixed, percent
from reports.run import Row, given
from reports.tables import Cell, Table, status_of

HEADINGS = ("angle, °", "norm ratio", "same experts", "router JS distance")


def summary(listed: Sequence[Variant]) -> Table:
    """What was compressed together, and rounding."""
    lines = []
    for variant in largest(listed):
        row = variant.end
        if row is not None:
            saved = percent(row["bits_saved"]) if given(row, "bits_saved") else EMPTY
            lines.append(
                [Cell(variant.name), Cell(variant.layers or EMPTY), Cell(saved), Cell(str(row["layer"])), *_cells(row)]
            )
    headings = ("model", "layers", "bits saved", "after layer", *HEADINGS)
    return Table("After the last compressed layer: means over tokens ± standard error over windows", headings, lines)


def over_depth(listed: Sequence[Variant], columns: Sequence[tuple[str, Callable[[Row], Cell]]]) -> Table:
    """A line a decoder layer, a group of columns a variant."""
    shown = largest(listed)
    layers = sorted({layer for variant in shown for layer in variant.rows})
    lines = []
    for layer in layers:
        line = [Cell(str(layer))]
        for variant in shown:
            row = variant.rows.get(layer)
            line += [Cell(EMPTY, "not measured") if row is None else cell(row) for _, cell in columns]
        lines.append(line)
    return Table(
        f"At every decoder layer's output: {' and '.join(name for name, _ in columns)}",
        ["layer", *(name for _ in shown for name, _ in columns)],
        lines,
        groups=[("", 1), *((variant.name, len(columns)) for variant in shown)],
    )


def accumulated(found: Sequence[Accumulation]) -> Table:
    """Joint angle against those of single layers."""
    lines = [
        [
            Cell(one.name),
            Cell(str(one.layer)),
            Cell(fixed(one.together, 2)),
            Cell(fixed(one.root_sum_square, 2)),
            Cell(fixed(one.sum, 2)),
            Cell(fixed(one.together / one.root_sum_square, 2)),
        ]
        for one in found
        if one.root_sum_square > 0
    ]
    headings = ("model", "after layer", "together, °", "root sum square, °", "sum, °", "together / root sum square")
    return Table(
        "All layers compressed together against each of them alone, at the same layer's output", headings, lines
    )


def everything(listed: Sequence[Variant]) -> Table:
    """After the last compressed layer, of all variants."""
    lines = []
    for variant in listed:
        row = variant.end
        if row is not None:
            scope = "alone" if variant.scope == ONE else "together"
            line = [Cell(variant.name), Cell(variant.layers or EMPTY), Cell(scope), Cell(str(row["layer"]))]
            lines.append([*line, *_cells(row)])
    headings = ("model", "layers", "compressed", "after layer", *HEADINGS)
    return Table("Every variant after its last compressed layer", headings, lines)


def angle(row: Row) -> Cell:
    return _with_error(row, "angle_deg", "angle_stderr", 2)


def norm(row: Row) -> Cell:
    return _with_error(row, "norm_ratio", "norm_ratio_stderr", 4)


def same_experts(row: Row) -> Cell:
    if not given(row, "routing_agreement"):
        return Cell(EMPTY, status_of(row))
    return Cell(percent(row["routing_agreement"]))


def distance(row: Row) -> Cell:
    return _with_error(row, "routing_js", "routing_js_stderr", 4)


def _cells(row: Row) -> list[Cell]:
    return [angle(row), norm(row), same_experts(row), distance(row)]


def _with_error(row: Row, column: str, stderr: str, places: int) -> Cell:
    if not given(row, column):
        return Cell(EMPTY, status_of(row))
    error = f" ± {fixed(row[stderr], places)}" if given(row, stderr) else ""
    return Cell(f"{fixed(row[column], places)}{error}")
