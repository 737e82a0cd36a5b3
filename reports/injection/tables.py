"""The tables of `injection`: cells behind a figure, pairs, exponents inside each design."""

from reports.formats import EMPTY, fixed, significant
from reports.injection.sites import DESIGN_NAMES, ERRORS, NAMES, PER_EXPERT, Site, words
from reports.run import Row, given
from reports.tables import Cell, Column, Table, status_of, table_of


def cells(site: Site) -> Table:
    """A line a cell: its errors and its response, means over draws."""
    lines = []
    for cell in site.cells():
        errors = [significant(cell.error(name)) for name in (*ERRORS, PER_EXPERT)]
        responses = sorted(float(row["loss_change"]) for row in cell.rows)
        spread = f"{significant(responses[0])} to {significant(responses[-1])}" if len(responses) > 1 else EMPTY
        head = f"{words(cell.family)}, equal {cell.design}, {cell.size:g}"
        cell_line = [head, *errors, significant(cell.response), spread, str(len(cell.rows))]
        lines.append([Cell(text) for text in cell_line])
    lines += [_unmeasured(row) for row in site.rows if not given(row, "loss_change")]
    headings = ["residual, norm held, size", *(NAMES[name] for name in (*ERRORS, PER_EXPERT)),
                "loss increase (nats)", "range over draws", "draws"]  # fmt: skip
    return Table(f"Injected into {site.phrase}: relative errors and mean loss increase", headings, lines)


def _unmeasured(row: Row) -> list[Cell]:
    head = f"{words(str(row['family']))}" + (f", draw {row['seed']}" if given(row, "seed") else "")
    return [
        Cell(head),
        *(Cell(EMPTY) for _ in range(len(ERRORS) + 1)),
        Cell(EMPTY, status_of(row)),
        Cell(EMPTY),
        Cell(EMPTY),
    ]


def _interval(row: Row) -> str:
    return f"{significant(row['low'])} to {significant(row['high'])}" if given(row, "low", "high") else EMPTY


def _pair_head(row: Row) -> str:
    first, _, second = str(row["families"]).partition("/")
    size = "all sizes" if row.get("size") is None else f"size {row['size']:g}"
    return f"{row['site']}: {words(first)} over {words(second)}, equal {row['design']}, {size}"


PAIRS = (
    Column("pair, norm held, size", _pair_head),
    *(
        Column(NAMES[error], lambda row, error=error: significant(row.get(f"{error}_ratio")), "ratio of")  # type: ignore[misc]
        for error in ERRORS
    ),
    Column("loss increase", lambda row: significant(row.get("value")), "ratio of"),
    Column("95 % interval", _interval, "ratio of"),
)


def pairs(found: list[Site]) -> Table:
    """Every ratio of two families."""
    rows = [{**row, "site": site.name} for site in found for row in site.contrasts if row["statistic"] == "ratio"]
    return table_of(rows, PAIRS, "Two families at the same norm and size: ratios of their errors and of their damage")


WITHIN = (
    Column(
        "injected into, norm held, error", lambda row: f"{row['site']}, equal {row['design']}: {NAMES[row['error']]}"
    ),
    Column("exponent", lambda row: fixed(row.get("value"), 2)),
    Column("95 % interval", _interval),
    Column("R²", lambda row: fixed(row.get("r2"), 3)),
    Column("points", lambda row: EMPTY if row.get("count") is None else str(row["count"])),
    Column("left out", lambda row: EMPTY if row.get("left_out") is None else str(row["left_out"])),
)


def within(found: list[Site]) -> Table:
    """Exponents from the families alone, at one norm."""
    rows = [{**row, "site": site.name} for site in found for row in site.contrasts if row["statistic"] == "within"]
    held = ", ".join(DESIGN_NAMES[name] for name in dict.fromkeys(str(row["design"]) for row in rows))
    return table_of(
        rows, WITHIN, f"Exponents across families while a norm is held ({held}), every size on its own level"
    )
