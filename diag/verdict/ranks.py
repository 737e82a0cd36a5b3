"""Ranks that TD-MoE and MoBE keep of a stack, as runs state them.

    TD-MoE   r_E x r_O x r_I: so many directions of each mode, in one basis for all experts
    MoBE     J x K: every expert has K directions of its own, on the input side a mixture of J bases of rank K

J bases span at most min(I, J K) of the I inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from diag.declare.column import Column, View
from diag.verdict.loss import MOBE, TDMOE
from diag.verdict.models import Compared
from diag.verdict.subjects import Row, Subject, has
from tdmoe.numerics.gram import MODES

Sizes = Mapping[str, Mapping[str, int]]  # {projection: {mode: n}}
Kept = tuple[str, tuple[int, ...]]  # a kind of stack and its ranks
_JOINED = "_"  # gate_up: both as one stack, one output mode after the other
_METHOD = Column("title", "the method", "method", form="text")


def rank_views(subject: Subject, models: Sequence[Compared]) -> Iterator[View]:
    """Tables of what the two keep of each mode and what that costs at the least; what experts share and lose."""
    sizes = sizes_of([*subject.rows("spectra"), *subject.rows("binding")])
    ours = [model for model in models if model.loss.family in (TDMOE, MOBE)]
    lines = [_line(model, sizes) for model in ours]
    modes = [
        _METHOD,
        *(Column(f"{mode}_kept", f"directions kept of the {mode} mode", f"{mode} mode", form="text") for mode in MODES),
        *(
            Column(f"mode_error_{mode}", "functional error that cutting this mode alone costs at the least",
                   f"error by {mode} mode", form="error")
            for mode in MODES
        ),
        Column("functional_error", "the method's own", form="error"),
    ]  # fmt: skip
    yield View(subject.anchor("ranks"), subject.title("What TD-MoE and MoBE keep of each mode"),
               "Directions kept of each mode; error by a mode: the functional error that cutting it alone to the kept "
               "rank costs at the least; the last column is the method's own. MoBE cuts no mode",
               modes, [line for line in lines if line["expert_kept"] or line["functional_error"] is not None],
               folded=True)  # fmt: skip
    experts = [
        _METHOD,
        Column("expert_kept", "what experts share", "expert mode", form="text"),
        Column("functional_error", "under pooled inputs", "functional error, pooled inputs", form="error"),
        Column("functional_error_expert", "under each expert's own inputs", "functional error per expert",
               form="error"),
        Column("operator_error", "mean over experts", "operator error, mean expert", form="error"),
        Column("worst", "largest over experts", "operator error, worst expert", form="error"),
    ]  # fmt: skip
    known = [line for line in lines if any(line[column.name] not in (None, "") for column in experts[1:])]
    yield View(subject.anchor("experts"), subject.title("TD-MoE and MoBE expert by expert"),
               "What experts share and what they lose, means over stacks", experts, known, folded=True)  # fmt: skip


def sizes_of(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Sizes from rows of `spectra`, and of `binding` as to experts: {projection: {mode: n}}."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        ours = found.setdefault(str(row["projection"]), {})
        if has(row, "n", "mode"):
            ours[str(row["mode"])] = int(row["n"])
        elif has(row, "experts"):
            ours.setdefault("expert", int(row["experts"]))
    return found


def kept(model: Compared) -> list[Kept]:
    """`gate:32x48x168 up:32x48x168`, of attribution or operator; nothing where neither says it."""
    said = next((str(step.row["ranks"]) for step in model.steps if step.row.get("ranks")), model.ranks)
    found = []
    for part in said.split():
        projection, _, ranks = part.partition(":")
        numbers = ranks.split("x")
        if len(numbers) == {TDMOE: 3, MOBE: 2}.get(model.loss.family) and all(map(str.isdigit, numbers)):
            found.append((projection, tuple(map(int, numbers))))
    return found


def kept_of_modes(model: Compared, sizes: Sizes) -> dict[str, str]:
    """Directions kept of each mode, over its kinds of stacks; nothing where it is not known."""
    listed = kept(model)
    if not listed:
        return dict.fromkeys(MODES, "")
    whole = {mode: [_size(sizes, projection, mode) for projection, _ in listed] for mode in MODES}
    if model.loss.family == TDMOE:
        return {mode: _of([ranks[place] for _, ranks in listed], whole[mode]) for place, mode in enumerate(MODES)}
    own = [ranks[1] for _, ranks in listed]
    spans = [ranks[0] * ranks[1] for _, ranks in listed]
    spans = [span if n is None else min(span, n) for span, n in zip(spans, whole["input"], strict=True)]
    return {
        "expert": f"{_span([ranks[0] for _, ranks in listed])} bases",
        "output": f"{_of(own, whole['output'])}, each its own",
        "input": f"{_of(own, whole['input'])}, each its own; bases span up to {_span(spans)}",
    }


def _line(model: Compared, sizes: Sizes) -> dict[str, object]:
    columns = [f"mode_error_{mode}" for mode in MODES]
    cuts = model.loss.family == TDMOE
    return {
        "title": model.title,
        **{f"{mode}_kept": said for mode, said in kept_of_modes(model, sizes).items()},
        **{column: model.of_step(column) if cuts else None for column in columns},
        "functional_error_expert": model.of_step("functional_error_expert"),
        **{name: model.errors.get(name) for name in ("functional_error", "operator_error")},
        "worst": model.worst,
        "status": "not_measured",
    }


def _span(values: Sequence[int]) -> str:
    """`107`, or `60 to 79`."""
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _of(values: Sequence[int], whole: Sequence[int | None]) -> str:
    known = [n for n in whole if n is not None]
    return _span(values) + (f" of {_span(known)}" if len(known) == len(whole) else "")


def _size(sizes: Sizes, projection: str, mode: str) -> int | None:
    """None where `spectra` did not measure it."""
    found = [sizes.get(part, {}).get(mode) for part in projection.split(_JOINED)]
    known = [n for n in found if n is not None]
    if mode == "expert":
        return next(iter(known), None)
    if len(known) < len(found):
        return None
    return sum(known) if mode == "output" else known[0]
