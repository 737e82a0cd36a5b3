"""The tables of `superweights`: what was found, spikes by layer, recovery, places, ablation, every tracked entry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from reports.formats import EMPTY, fixed, integer, percent, significant
from reports.methods import method_name
from reports.run import Row, given
from reports.superweights.effects import NAMES
from reports.superweights.matrices import WORDS, Matrix
from reports.tables import Cell, Column, Table, status_of, table_of

_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)
_STORAGE = "of the dense storage"


def _is(form: Callable[[float | None], str], column: str) -> Callable[[Row], str]:
    return lambda row: form(row.get(column))


def _text(column: str) -> Callable[[Row], str]:
    return lambda row: EMPTY if row.get(column) is None else str(row[column]).replace("_", " ")


def _whole(row: Row) -> str:
    return percent(row.get("output_share"), 0)


def _nothing(row: Row) -> str:
    """The status stands in a column of its own."""
    return ""


def where(row: Row) -> str:
    """`L3 down, expert 26`."""
    if not given(row, "layer"):
        return EMPTY
    expert = f", expert {integer(row['expert'])}" if given(row, "expert") else ""
    return f"L{integer(row['layer'])} {row['projection']}{expert}"


_SPIKE = (
    Column("row", _is(integer, "row"), "", _nothing),
    Column("column", _is(integer, "column"), "", _nothing),
    Column("weight", _is(significant, "value"), "", _nothing),
    Column("input", _is(significant, "input_activation"), "activation", _nothing),
    Column("times the median", _is(integer, "input_ratio"), "activation", _nothing),
    Column("output", _is(significant, "output_activation"), "activation", _nothing),
    Column("times the median", _is(integer, "output_ratio"), "activation", _nothing),
    Column("share of the output", _whole, "activation", _nothing),
    Column("seen in", _text("source"), "", _nothing),
)


def found(rows: Sequence[Row]) -> Table:
    """One line a super weight."""
    columns = (
        Column("matrix", lambda row: "none" if row.get("layer") is None else where(row)),
        *_SPIKE,
        Column("published", _text("published"), "", _nothing),
        Column("status", _text("status")),
    )
    return table_of(rows, columns, "Super weights")


def spikes(rows: Sequence[Row]) -> Table:
    """One line a layer."""
    columns = (
        Column("matrix", where),
        *_SPIKE,
        Column("at one token", _text("same_token")),
    )
    return table_of(rows, columns, "Strongest spike of every layer, before any weight was zeroed")


def over_rank(listed: Sequence[Matrix]) -> Table:
    """Ranks from which on a share of each group stays recovered: exact, not those of the grid."""
    lines = []
    for matrix in listed:
        for group in matrix.groups:
            ranks = [matrix.rank_for(group, share) for share in _SHARES]
            share = [
                f"{integer(rank)} ({percent(None if rank is None else rank / matrix.full_rank, 0)})" for rank in ranks
            ]
            lines.append([Cell(f"{matrix.title}, {WORDS[group]}"), *map(Cell, share)])
    headings = ["matrix, group", *(percent(share, 0) for share in _SHARES)]
    caption = "Rank from which on this share of a group stays recovered (of the full rank)"
    return Table(caption, headings, lines)


def methods(matrix: Matrix) -> Table:
    """One line a method and storage."""
    rows = [row for row in matrix.recovery if row["method"] != "svd"]
    points: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        points.setdefault((row["method"], row.get("ratio"), row.get("rank"), row.get("kept_ratio")), {})[
            str(row.get("group") or "")
        ] = row
    groups = [group for group in WORDS if group in matrix.groups]
    lines = []
    for (method, _, rank, kept), by_group in points.items():
        line = [
            Cell(method_name(str(method))),
            Cell(str(rank or EMPTY)),
            Cell(percent(kept if isinstance(kept, float) else None)),
        ]
        for group in groups:
            row = by_group.get(group, by_group.get("", {}))
            line.append(Cell(percent(row.get("recovered_fraction"), 0), status_of(row)))
        lines.append(line)
    headings = ["method", "ranks", _STORAGE, *(f"{WORDS[group]} recovered" for group in groups)]
    return Table(f"Entries of {matrix.name} recovered by method", headings, lines)


def places(listed: Sequence[Matrix]) -> Table:
    """How entries gather in rows and columns."""
    lines = []
    for matrix in listed:
        for group in matrix.groups:
            rows = matrix.of(group)
            texts = [f"{matrix.title}, {WORDS[group]}", str(len(rows))]
            for side in ("row", "column"):
                counts = Counter(int(row[side]) for row in rows)
                most, times = counts.most_common(1)[0]
                texts += [str(len(counts)), f"{times} in {side} {most}"]
            lines.append([Cell(text) for text in texts])
    headings = ["matrix, group", "entries", "rows", "fullest row", "columns", "fullest column"]
    return Table("Rows and columns that hold the entries", headings, lines)


def ablations(rows: Sequence[Row]) -> Table:
    """One line a set of weights that was zeroed."""

    def what(row: Row) -> str:
        name = NAMES.get(str(row["group"]), str(row["group"]))
        if row["group"] == "random":
            name += f", draw {integer(row.get('draw'))}"
        return name if where(row) == EMPTY else f"{name}, {where(row)}"

    columns = (
        Column("zeroed", what),
        Column("weights", _is(integer, "zeroed")),
        Column("loss change (nats)", _is(lambda value: significant(value, 3), "loss_change")),
        Column("standard error", _is(lambda value: significant(value, 2), "loss_change_stderr")),
        Column("perplexity", _is(lambda value: fixed(value, 3), "perplexity")),
        Column("standard error", _is(lambda value: significant(value, 2), "perplexity_stderr")),
        Column("status", _text("status")),
    )
    return table_of(rows, columns, "Perplexity with weights set to zero")


def entries(matrix: Matrix) -> Table:
    """Every tracked entry."""
    columns = (
        Column("group", lambda row: WORDS.get(str(row["group"]), str(row["group"]))),
        Column("row", _is(integer, "row")),
        Column("column", _is(integer, "column")),
        Column("weight", _is(lambda value: significant(value, 4), "value")),
        Column("recovered first at rank", _is(integer, "first_rank")),
        Column("stays recovered from rank", _is(integer, "stays_from_rank")),
        Column("dominant component", _is(integer, "dominant_component")),
        Column("its share", _is(percent, "dominant_share")),
        Column("half of the magnitude by rank", _is(integer, "half_rank")),
    )
    return table_of(matrix.entries, columns, f"Tracked entries of {matrix.name}")
