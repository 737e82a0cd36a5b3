"""Costs of compressing and of its result, of every method whose seconds a table has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from diag.declare.column import Column, View
from diag.declare.common_columns import common
from diag.statistics.medians import given
from diag.verdict.models import Compared, Models
from diag.verdict.subjects import Row, Subject

_GB = 1e9
_LOSSES = ("quality", "attribution")
_COLUMNS = (
    Column("title", "the method", "method", form="text"),
    common("seconds")[0],
    Column("stored", "stored bits, which are also what the weights take in memory", "stored, of the dense bits",
           form="percent"),
)  # fmt: skip
_PEAK = (
    Column("command", "command", form="text"),
    Column("peak", "peak memory of the process, model and all", "peak memory", "GB"),
)


def cost_views(subject: Subject, found: Models) -> Iterator[View]:
    """Seconds and stored bits by method; peak memory by command, as a process holds many methods."""
    timed = _timed(found, subject.rows("compression"))
    devices = sorted({str(run["device"]) for run in subject.runs if run["tables"].get("attribution")})
    of = {str(row["bits_saved_of"]) for name in _LOSSES for row in subject.rows(name) if row.get("bits_saved_of")}
    where = f" on {', '.join(devices)}" if devices else ""
    caption = (
        f"Seconds that compressing took{where}, calibration, frontiers and "
        f"measured sensitivities apart, and stored bits ({'; '.join(sorted(of)) or 'all but input embeddings'})"
    )
    rows = [
        {"title": model.name, "seconds": seconds, "stored": model.loss.stored, "status": "not_measured"}
        for model, seconds in sorted(timed, key=lambda pair: (pair[1], pair[0].title))
    ]
    yield View(subject.anchor("costs"), subject.title("Costs"), caption, _COLUMNS, rows, folded=True)
    known = sorted(given(subject.runs, "peak_memory_bytes"), key=lambda run: float(run["peak_memory_bytes"]))
    peaks = {str(run["command"]): float(run["peak_memory_bytes"]) / _GB for run in known}  # the largest of each
    yield View(subject.anchor("memory"), subject.title("Peak memory"), "Peak memory of commands, model and all", _PEAK,
               [{"command": command, "peak": peak} for command, peak in peaks.items()], folded=True)  # fmt: skip


def _timed(found: Models, compression: Iterable[Row]) -> list[tuple[Compared, float]]:
    """Seconds of `attribution`, otherwise the sum over stacks of `compression`."""
    sums: dict[tuple[str, object], float] = {}
    for row in given(compression, "method", "seconds"):
        key = str(row["method"]), row.get("ratio")
        sums[key] = sums.get(key, 0.0) + float(row["seconds"])
    listed = []
    for model in found.models:
        own = model.of_step("seconds")
        seconds = sums.get((model.loss.method, model.loss.ratio)) if own is None else own
        if seconds is not None and not model.loss.is_control:
            listed.append((model, seconds))
    return listed
