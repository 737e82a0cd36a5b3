"""Table 1 of the paper beside the measured exponents: stack by stack of the same model, or as another's."""

from collections.abc import Sequence
from statistics import median

from reports.formats import EMPTY, fixed
from reports.run import MODES, Row, given
from reports.sections import Block
from reports.tables import Cell, Table
from reports.verdict import paper
from reports.verdict.subjects import Subject

_PROJECTIONS = ("gate", "up")  # that Table 1 has


def exponents_block(subject: Subject) -> Block | None:
    """None where no spectrum was measured."""
    rows = [row for row in subject.rows("spectra") if given(row, "alpha", "alpha_null")]
    if not rows:
        return None
    same = subject.is_called(paper.MOE)
    return Block(
        subject.anchor("paper-exponents"),
        subject.title("The paper's exponents beside the measured ones"),
        _stack_by_stack(rows) if same else _mode_by_mode(rows),
        text="" if same else f"The paper's exponents are of {paper.MOE}, another model; gate and up alone, as there.",
        folded=True,
    )


def _stack_by_stack(rows: Sequence[Row]) -> Table:
    found = {(row["layer"], row["projection"], row["mode"]): row for row in rows}
    lines = []
    for line in paper.TABLE_1:
        cells = [Cell(line.source)]
        for mode in MODES:
            theirs, ours = float(getattr(line, mode)), found.get((line.layer, line.projection, mode))
            if ours is None:
                cells += [Cell(EMPTY, "not measured"), Cell(fixed(theirs)), Cell(EMPTY)]
                continue
            alpha = float(ours["alpha"])
            cells += [Cell(fixed(alpha), f"null {fixed(ours['alpha_null'])}"), Cell(fixed(theirs))]
            cells.append(Cell(fixed(alpha - theirs, signed=True)))
        lines.append(cells)
    return Table(
        "Exponents alpha of sigma_i ~ i^-alpha of the same model; the paper does not state its fit range",
        ["layer / projection", *(word for _ in MODES for word in ("measured", "paper", "difference"))],
        lines,
        groups=[("", 1), *((mode, 3) for mode in MODES)],
    )


def _mode_by_mode(rows: Sequence[Row]) -> Table:
    lines = []
    for mode in MODES:
        ours = [row for row in rows if row["mode"] == mode and row["projection"] in _PROJECTIONS]
        null = fixed(median(float(row["alpha_null"]) for row in ours)) if ours else EMPTY
        theirs = [float(getattr(line, mode)) for line in paper.TABLE_1]
        measured = _spread([float(row["alpha"]) for row in ours])
        lines.append([Cell(mode), *measured, Cell(null), *_spread(theirs)])
    return Table(
        f"Exponents alpha of sigma_i ~ i^-alpha; the paper's: Table 1, {len(paper.TABLE_1)} stacks, without a null",
        ("mode", "median", "range", "null", "median", "range"),
        lines,
        groups=[("", 1), ("measured", 3), (f"{paper.MOE}, paper", 2)],
    )


def _spread(values: Sequence[float]) -> list[Cell]:
    if not values:
        return [Cell(EMPTY, "not measured"), Cell(EMPTY)]
    return [Cell(fixed(median(values))), Cell(f"{fixed(min(values))} to {fixed(max(values))}")]
