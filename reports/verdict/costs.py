"""What compressing costs and what its result takes, of every method whose seconds a table has."""

from collections.abc import Iterable

from reports.formats import EMPTY, fixed, listing, percent
from reports.run import Row, given
from reports.sections import Block
from reports.tables import Cell, Table
from reports.verdict.compared import Compared, Comparison
from reports.verdict.subjects import Subject

_TEXT = "Stored bits are also what the weights take in memory."
_GB = 1e9
_LOSSES = ("quality", "attribution")


def costs_block(subject: Subject, found: Comparison) -> Block | None:
    """None where no table has seconds."""
    timed = _timed(found, subject.rows("compression"))
    if not timed:
        return None
    lines = []
    for model, seconds in sorted(timed, key=lambda pair: (pair[1], pair[0].title)):
        stored = model.loss.stored
        memory = Cell(EMPTY, "not measured") if stored is None else Cell(percent(stored))
        lines.append([Cell(model.name), Cell(fixed(seconds, 1)), memory])
    devices = sorted({str(run["device"]) for run in subject.runs if run["tables"].get("attribution")})
    of = {str(row["bits_saved_of"]) for name in _LOSSES for row in subject.rows(name) if row.get("bits_saved_of")}
    where = f" on {', '.join(devices)}" if devices else ""
    caption = (
        f"Seconds that compressing took{where}, calibration, frontiers and measured sensitivities apart, and stored "
        f"bits ({'; '.join(sorted(of)) or 'all but input embeddings'})"
    )
    headings = ("method", "seconds", "stored, of the dense bits")
    return Block(
        subject.anchor("costs"), subject.title("Costs"), Table(caption, headings, lines), folded=True,
        text=f"{_TEXT} {_peaks(subject)}",
    )  # fmt: skip


def _peaks(subject: Subject) -> str:
    """Of whole commands: a process holds many methods, and a peak is not told apart by them."""
    known = [(str(r["command"]), float(r["peak_memory_bytes"])) for r in subject.runs if given(r, "peak_memory_bytes")]
    found = dict(sorted(known, key=lambda pair: pair[1]))  # the largest of each command
    said = listing([f"{command} {fixed(peak / _GB, 2)} GB" for command, peak in found.items()])
    return f"Peak memory of commands, model and all: {said or 'not measured'}; by method: not measured."


def _timed(found: Comparison, compression: Iterable[Row]) -> list[tuple[Compared, float]]:
    """Of `attribution`, otherwise the sum over stacks of `compression`."""
    sums: dict[tuple[str, object], float] = {}
    for row in compression:
        if given(row, "method", "seconds"):
            key = str(row["method"]), row.get("ratio")
            sums[key] = sums.get(key, 0.0) + float(row["seconds"])
    listed = []
    for model in found.models:
        seconds = model.seconds
        seconds = sums.get((model.loss.method, model.loss.ratio)) if seconds is None else seconds
        if seconds is not None and not model.loss.is_control:
            listed.append((model, seconds))
    return listed
