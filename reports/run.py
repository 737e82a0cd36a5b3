"""The shape of a run as reports see it: a plain dict, put in one order so that the same run gives the same bytes.

Keys: schema, model, command, command_line, config, seed, versions, device, fingerprint, started, jobs, tables, arrays;
and, where the run says so, notes (lines on what was odd or other than asked) and peak_memory_bytes (None: not known).
Rows may arrive in any order and jobs may have failed, so the page asks for `stacks`: every (layer, projection) that
was asked for, measured or not. That is what keeps a partial table from looking complete.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Run = Mapping[str, Any]
Row = Mapping[str, Any]

MODES = ("expert", "output", "input")
PROJECTIONS = ("gate", "up", "down")

_STACK_JOB = re.compile(r"[a-z]+-L(\d+)-(.+)", re.DOTALL)


@dataclass
class Stack:
    """One (layer, projection): its rows by mode, and the state of the job that made them."""

    layer: int
    projection: str
    state: str = "done"
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"L{self.layer} {self.projection}"


def projection_order(name: str) -> tuple[int, str]:
    """Sort key: gate, up, down as everywhere else in the project, then any other name alphabetically."""
    return (PROJECTIONS.index(name) if name in PROJECTIONS else len(PROJECTIONS), name)


def stacks(run: Run, table: str) -> list[Stack]:
    """Every stack of the run in order, from the rows of `table` and from the jobs that left none."""
    found: dict[tuple[int, str], Stack] = {}
    for job in run["jobs"]:
        if match := _STACK_JOB.fullmatch(job["key"]):
            layer, projection = int(match[1]), match[2]
            found[layer, projection] = Stack(layer, projection, job["state"])
    for row in run["tables"].get(table, []):
        key = (int(row["layer"]), str(row["projection"]))
        found.setdefault(key, Stack(*key)).rows[row["mode"]] = row
    return sorted(found.values(), key=lambda stack: (stack.layer, projection_order(stack.projection)))


def given(row: Row, *columns: str) -> bool:
    """True when the row holds a value in each of these columns."""
    return all(row.get(column) is not None for column in columns)
