"""What `experts` says on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from diag.jobs.session import Session
from diag.runs.terminal import stdout


def show(session: Session) -> None:
    """By stack and ratio: whether the expert mode binds, with intervals, and the published triples' errors."""
    table = Table()
    for heading in (
        "stack",
        "removed",
        "binding",
        "by cutting, %",
        "baseline",
        "price share",
        "least",
        "published",
    ):
        table.add_column(heading, justify="left" if heading == "stack" else "right", no_wrap=True)
    points = {
        (r["layer"], r["projection"], r["ratio"], r["expert_mode"]): r["metric_error"]
        for r in session.folder.rows("experts")
        if r["point"] == "headline" and r["allocation"] == "published"
    }
    for row in session.folder.rows("binding"):
        ours = row["layer"], row["projection"], row["ratio"]
        least = min((e for e in (row["error_preserve"], row["error_compress"]) if e is not None), default=None)
        published = " / ".join(_number(points.get((*ours, mode))) for mode in ("preserve", "compress"))
        null = "" if row["gain_null"] is None else f"{-100 * row['gain_null']:.1f}"
        cells = [row["binding"] or row["status"], _interval(row, "gain", -100, 1), null]
        cells.append(_interval(row, "price_share", 1, 2))
        removed = "" if ours[2] is None else f"{ours[2]:g}"
        table.add_row(f"{ours[0]} / {ours[1]}", removed, *cells, _number(least), published)
    print(
        f"{session.model.name}: what cutting experts changes of the least error at equal storage [95 % interval], with "
        "that of independent experts as the baseline; published errors are preserve / compress"
    )
    stdout().print(table)


def _interval(row: Mapping[str, Any], name: str, factor: float, places: int) -> str:
    """The value and its interval."""
    value, *ends = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if value is None:
        return ""
    low_to_high = sorted(factor * end for end in ends) if None not in ends else []
    between = ", ".join(f"{end:.{places}f}" for end in low_to_high)
    return f"{factor * value:.{places}f}" + (f" [{between}]" if between else "")


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
