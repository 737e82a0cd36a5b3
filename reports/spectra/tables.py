"""The tables of `spectra`: the one shaped like the paper's Table 1, the one over depth, the full one of a layer."""

from collections.abc import Callable

from reports.formats import EMPTY, fixed, integer, percent, range_of, significant
from reports.run import MODES, Row, Stack, given, projections_of
from reports.spectra.depth import excess
from reports.tables import Cell, Column, Table, status_of, table_of


def _is(form: Callable[[float | None], str], column: str) -> Callable[[Row], str]:
    return lambda row: form(row.get(column))


def _beside_null(column: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value, null = row.get(column), row.get(f"{column}_null")
        return EMPTY if value is None else f"{percent(value)} ({percent(null)})"

    return text


def _comparison(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if not given(row, f"{name}_ratio"):
            return EMPTY
        return f"{significant(row[f'{name}_ratio'])} (p {significant(row.get(f'{name}_p'), 2)})"

    return text


def _rough(value: float | None) -> str:
    return significant(value, 2)


def _why(said: dict[str, str]) -> Callable[[Row], str]:
    """The statuses of the two fits, in the words of this column; any other status stands for every column."""
    words = {"insufficient_points": "", "insufficient_tail": ""} | said
    return lambda row: words.get(str(row.get("status")), status_of(row))


_LINE = _why({"insufficient_points": "insufficient points"})
_TAIL = _why({"insufficient_points": "insufficient tail", "insufficient_tail": "insufficient tail"})
_OTHER = _why({})

MEASUREMENTS = (
    Column("projection, mode", lambda row: f"{row['projection']}, {row['mode']}"),
    Column("n", _is(integer, "n")),
    Column("alpha", _is(fixed, "alpha"), "log-log fit", _LINE),
    Column("OLS standard error", _is(_rough, "alpha_stderr"), "log-log fit", _LINE),
    Column(
        "jackknife standard error",
        _is(_rough, "alpha_jackknife_stderr"),
        "log-log fit",
        _OTHER,
    ),
    Column("R²", _is(fixed, "r2"), "log-log fit", _LINE),
    Column("fit range (index)", lambda row: range_of(row.get("fit_first"), row.get("fit_last")), "log-log fit", _LINE),
    Column("alpha of the null", _is(fixed, "alpha_null"), "log-log fit", _LINE),
    Column("density exponent", _is(lambda value: fixed(value, 2), "alpha_density"), "density of the tail", _TAIL),
    Column("standard error", _is(_rough, "alpha_density_stderr"), "density of the tail", _TAIL),
    Column("tail starts at λ", _is(significant, "density_xmin"), "density of the tail", _TAIL),
    Column("values in the tail", _is(integer, "density_tail"), "density of the tail", _TAIL),
    Column("against lognormal", _comparison("lognormal"), "density of the tail", _TAIL),
    Column("against truncated power law", _comparison("truncated"), "density of the tail", _TAIL),
    Column("effective rank", _is(lambda value: fixed(value, 1), "effective_rank"), "rank", _OTHER),
    Column("effective rank of the null", _is(lambda value: fixed(value, 1), "effective_rank_null"), "rank", _OTHER),
    Column("stable rank", _is(lambda value: fixed(value, 1), "stable_rank"), "rank", _OTHER),
    Column("10 % of the rank", _beside_null("energy_10"), "energy (null)", _OTHER),
    Column("25 % of the rank", _beside_null("energy_25"), "energy (null)", _OTHER),
    Column("50 % of the rank", _beside_null("energy_50"), "energy (null)", _OTHER),
    Column("largest σ", _is(lambda value: significant(value, 4), "sigma_max"), "scale", _OTHER),
    Column("noise floor of σ", _is(_rough, "noise_floor"), "scale", _OTHER),
    Column("precision", lambda row: str(row.get("precision") or EMPTY), "scale", _OTHER),
    Column("status", lambda row: str(row.get("status") or EMPTY).replace("_", " "), "scale", _OTHER),
)


def measurements(layer: int, listed: list[Stack]) -> Table:
    """Everything measured in one layer, a line for each projection and mode; stacks that failed say so."""
    rows: list[Row] = []
    for stack in listed:
        for mode in MODES:
            absent = {"projection": stack.projection, "mode": mode, "status": _absence(stack)}
            rows.append(stack.rows.get(mode, absent))
    return table_of(rows, MEASUREMENTS, f"All measurements of layer {layer}")


def exponents(listed: list[Stack]) -> Table:
    """Alpha with its null by stack and mode, and the published value beside it where the row carries one."""
    published = any(given(row, "alpha_paper") for stack in listed for row in stack.rows.values())
    headings = ["layer, projection"]
    for mode in MODES:
        headings += [f"{mode}: alpha (null)", f"{mode}: paper"] if published else [f"{mode}: alpha (null)"]
    lines = []
    for stack in listed:
        line = [Cell(stack.name)]
        for mode in MODES:
            row = stack.rows.get(mode, {"status": _absence(stack)})
            line.append(_exponent(row))
            if published:
                line.append(Cell(fixed(row.get("alpha_paper"))))
        lines.append(line)
    caption = "Exponent alpha of each unfolding, in brackets that of a Gaussian stack of the same shape (no unit)"
    return Table(caption, headings, lines)


def over_depth(listed: list[Stack]) -> Table:
    """The heat map's numbers: alpha minus its null."""
    projections = projections_of(listed)
    by_layer: dict[int, dict[str, Stack]] = {}
    for stack in listed:
        by_layer.setdefault(stack.layer, {})[stack.projection] = stack
    lines = []
    for layer, ours in by_layer.items():
        line = [Cell(str(layer))]
        for projection in projections:
            for mode in MODES:
                stack = ours.get(projection, Stack(layer, projection))
                value = excess(stack, mode)
                note = "" if value is not None else str(stack.rows.get(mode, {}).get("status") or _absence(stack))
                line.append(Cell(fixed(value, signed=True), note.replace("_", " ")))
        lines.append(line)
    return Table(
        caption="Alpha minus that of the Gaussian null, by layer (no unit)",
        headings=["layer", *(mode for _ in projections for mode in MODES)],
        lines=lines,
        groups=[("", 1), *((projection, len(MODES)) for projection in projections)],
    )


def _exponent(row: Row) -> Cell:
    if given(row, "alpha"):
        return Cell(f"{fixed(row['alpha'])} ({fixed(row.get('alpha_null'))})")
    return Cell(EMPTY, str(row.get("status") or "not measured").replace("_", " "))


def _absence(stack: Stack) -> str:
    """Why a stack has no row."""
    return stack.state if stack.state in {"failed", "pending"} else "not measured"
