"""What TD-MoE and MoBE keep of a stack, from the ranks that runs state.

    TD-MoE   r_E x r_O x r_I: so many directions of each mode, in one basis for all experts
    MoBE     J x K: every expert has K directions of its own, on the input side a mixture of J bases of rank K

J bases span at most min(I, J K) of the I inputs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from reports.formats import EMPTY
from reports.run import MODES, Row
from reports.tables import Cell
from reports.verdict.compared import Compared
from reports.verdict.losses import MOBE, TDMOE

Sizes = Mapping[str, Mapping[str, int]]  # {projection: {mode: n}}
_JOINED = "_"  # gate_up: both as one stack, one output mode after the other


@dataclass(frozen=True)
class Kept:
    """Of one kind of stack: its projection and the ranks of a method."""

    projection: str
    ranks: tuple[int, ...]


def sizes_of(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """From rows of `spectra`."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(str(row["projection"]), {})[str(row["mode"])] = int(row["n"])
    return found


def kept(model: Compared) -> list[Kept]:
    """`gate:32x48x168 up:32x48x168`, of attribution or operator; nothing where neither says it."""
    said = next((str(step.row["ranks"]) for step in model.steps if step.row.get("ranks")), model.ranks)
    found = []
    for part in said.split():
        projection, _, ranks = part.partition(":")
        numbers = ranks.split("x")
        if len(numbers) == {TDMOE: 3, MOBE: 2}.get(model.loss.family) and all(map(str.isdigit, numbers)):
            found.append(Kept(projection, tuple(map(int, numbers))))
    return found


def mode_cells(model: Compared, sizes: Sizes) -> dict[str, Cell]:
    """What is kept of each mode, over its kinds of stacks."""
    listed = kept(model)
    if not listed:
        return {mode: Cell(EMPTY, "not measured") for mode in MODES}
    whole = {mode: [_size(sizes, one.projection, mode) for one in listed] for mode in MODES}
    if model.loss.family == TDMOE:
        return {mode: Cell(_of([one.ranks[place] for one in listed], whole[mode])) for place, mode in enumerate(MODES)}
    ranks = [one.ranks[1] for one in listed]
    spans = [one.ranks[0] * one.ranks[1] for one in listed]
    spans = [span if n is None else min(span, n) for span, n in zip(spans, whole["input"], strict=True)]
    return {
        "expert": Cell(f"{span_of([one.ranks[0] for one in listed])} bases"),
        "output": Cell(_of(ranks, whole["output"]), "each its own"),
        "input": Cell(_of(ranks, whole["input"]), f"each its own; bases span up to {span_of(spans)}"),
    }


def span_of(values: Sequence[int]) -> str:
    """`107`, or `60 to 79`."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _of(values: Sequence[int], whole: Sequence[int | None]) -> str:
    known = [n for n in whole if n is not None]
    return span_of(values) + (f" of {span_of(known)}" if len(known) == len(whole) else "")


def _size(sizes: Sizes, projection: str, mode: str) -> int | None:
    """None where `spectra` did not measure it."""
    found = [sizes.get(part, {}).get(mode) for part in projection.split(_JOINED)]
    known = [n for n in found if n is not None]
    if len(known) < len(found):
        return None
    return sum(known) if mode == "output" else known[0]
