"""TD-MoE beside MoBE in the sections that know no methods: a block for `spectra` and one for `experts`."""

from collections.abc import Callable, Mapping, Sequence

from reports.formats import EMPTY, fixed, listing, percent
from reports.run import MODES, Run, given
from reports.sections import Block
from reports.tables import Cell, Table
from reports.verdict.arenas import all_duels, removed
from reports.verdict.compared import Compared, settings
from reports.verdict.comparing import comparison
from reports.verdict.kept import kept, mode_cells, sizes_of, span_of
from reports.verdict.losses import MOBE, TDMOE
from reports.verdict.subjects import Subject, subjects
from reports.verdict.table import shown

Field = tuple[str, Callable[[Compared], Cell]]


def spectra_beside(runs: Sequence[Run]) -> Block | None:
    """What the two keep of each mode, and what that costs at the least; None where neither was measured."""
    (subject,) = subjects(runs)
    ratio, ours = _models(subject)
    if not ours:
        return None
    sizes = sizes_of(subject.rows("spectra"))
    fields: list[Field] = [
        *((f"{mode} mode", lambda m, mode=mode: mode_cells(m, sizes)[mode]) for mode in MODES),
        *((f"error by {mode} mode", lambda m, mode=mode: _least(m, mode)) for mode in MODES),
        ("functional error", lambda m: _number(m.errors.get("functional_error"))),
    ]
    caption = (
        f"Directions kept of each mode{_at(ratio)}; error by a mode: the functional error that cutting it alone to the "
        "kept rank costs at the least; the last column is the method's own"
    )
    return _block("beside-modes", "TD-MoE beside MoBE: what is kept of each mode", caption, ours, fields, _basis(ours))


def experts_beside(runs: Sequence[Run]) -> Block | None:
    """What experts share under the two, and what each of them loses; None where neither was measured."""
    (subject,) = subjects(runs)
    ratio, ours = _models(subject)
    if not ours:
        return None
    experts = {int(row["experts"]) for row in subject.rows("binding") if given(row, "experts")}
    whole = f" of {span_of(list(experts))}" if experts else ""
    fields: list[Field] = [
        ("expert mode", lambda m: _experts(m, whole)),
        ("functional error, pooled inputs", lambda m: _number(m.errors.get("functional_error"))),
        ("functional error, own inputs", lambda m: _number(_of_step(m, "functional_error_expert"))),
        ("operator error, mean expert", lambda m: _number(m.errors.get("operator_error"))),
        ("operator error, worst expert", lambda m: _number(m.worst)),
        ("same experts chosen, least", _routed),
    ]
    caption = f"What experts share and what they lose{_at(ratio)}, means over stacks; routing where it is least"
    return _block("beside-experts", "TD-MoE beside MoBE: expert by expert", caption, ours, fields, _own(ours))


BESIDE: Mapping[str, Callable[[Sequence[Run]], Block | None]] = {"spectra": spectra_beside, "experts": experts_beside}


def _models(subject: Subject) -> tuple[float | None, list[Compared]]:
    """Those of the comparison at the ratio that the verdict is about."""
    found = comparison(subject)
    duels = all_duels(subject)
    listed = list(settings(found))
    first = next((pair for pair in listed if duels and pair[0] == duels[0].ratio), listed[-1] if listed else None)
    if first is None:
        return None, []
    return first[0], [model for model in shown(found, *first) if model.loss.family in (TDMOE, MOBE)]


def _block(
    anchor: str, title: str, caption: str, ours: Sequence[Compared], fields: Sequence[Field], text: str
) -> Block:
    """Columns and lines that nothing fills are left out, and named in the caption."""
    told = [model for model in ours if any(cell(model).text != EMPTY for _, cell in fields)]
    known = [(name, cell) for name, cell in fields if any(cell(model).text != EMPTY for model in told)]
    lacking = [name for name, _ in fields if name not in dict(known)]
    families = {model.loss.family for model in told}
    lacking += [name for family, name in ((TDMOE, "TD-MoE"), (MOBE, "MoBE")) if family not in families]
    caption += f"; not measured: {listing(lacking)}" if lacking else ""
    lines = [[Cell(model.title), *(cell(model) for _, cell in known)] for model in told]
    return Block(anchor, title, Table(caption, ["method", *(name for name, _ in known)], lines), text=text)


def _at(ratio: float | None) -> str:
    return "" if ratio is None else f" with {removed(ratio)} removed"


def _basis(ours: Sequence[Compared]) -> str:
    """The difference in a sentence: one basis of inputs against several."""
    pair = _pair(ours)
    if pair is None or not all(map(kept, pair)):
        return ""
    tensor, matrix = pair
    one, several = kept(tensor), kept(matrix)
    alone = _of_step(tensor, "mode_error_input")
    cost = "" if alone is None else f", which alone costs a functional error of {fixed(alone)}"
    return (
        f"{tensor.title} keeps {span_of([stack.ranks[2] for stack in one])} input directions in one basis for all "
        f"experts{cost}; {matrix.title} keeps {span_of([stack.ranks[1] for stack in several])} of each expert's own, "
        f"mixed from {span_of([stack.ranks[0] for stack in several])} bases, with an error of "
        f"{fixed(matrix.errors['functional_error'])} in all."
    )


def _own(ours: Sequence[Compared]) -> str:
    """Whether the error is less under the inputs that experts really see."""
    said = []
    for model in _pair(ours) or ():
        own = _of_step(model, "functional_error_expert")
        if own is not None:
            said.append(f"{model.title} {fixed(own)} (pooled {fixed(model.errors['functional_error'])})")
    return f"Functional error under each expert's own inputs: {listing(said)}." if len(said) == 2 else ""


def _pair(ours: Sequence[Compared]) -> tuple[Compared, Compared] | None:
    """MoBE, and TD-MoE of the same projections, each with the least functional error."""
    known = sorted((m for m in ours if "functional_error" in m.errors), key=lambda m: m.errors["functional_error"])
    matrix = next((model for model in known if model.loss.family == MOBE), None)
    where = None if matrix is None else matrix.identity.facts.projections
    able = [m for m in known if m.loss.family == TDMOE and m.identity.facts.projections == where]
    return None if matrix is None or not able else (able[0], matrix)


def _of_step(model: Compared, column: str) -> float | None:
    return next((float(step.row[column]) for step in model.steps if given(step.row, column)), None)


def _least(model: Compared, mode: str) -> Cell:
    if model.loss.family == MOBE:
        return Cell(EMPTY, "cuts no mode")
    return _number(_of_step(model, f"mode_error_{mode}"))


def _experts(model: Compared, whole: str) -> Cell:
    listed = kept(model)
    if not listed:
        return Cell(EMPTY, "not measured")
    first = span_of([one.ranks[0] for one in listed])
    return Cell(f"{first} bases for all" if model.loss.family == MOBE else f"rank {first}{whole}")


def _number(value: float | None) -> Cell:
    return Cell(EMPTY, "not measured") if value is None else Cell(fixed(value))


def _routed(model: Compared) -> Cell:
    if model.routed is None:
        return Cell(EMPTY, "not measured")
    return Cell(percent(model.routed[1]), f"layer {model.routed[0]}")
