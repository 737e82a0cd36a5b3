"""What commands leave behind: tables without their seconds, results, files by name; and how two of them differ."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from campaigns.tool import Fault

Tables = dict[str, list[dict[str, str]]]
UNSTEADY = (".lock",)  # names of files that may be there or not
PARTS = "compare-"  # of these results each says that a part is done, and is written whenever the part is asked


def tables(folder: Path) -> Tables:
    """{path: rows without `seconds`} of every table below `folder`."""
    found = {}
    for path in sorted(folder.rglob("tables/*.csv")):
        if path.name.startswith("moved-"):  # what a mutation put a link in the place of
            continue
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
        found[str(path.relative_to(folder))] = rows
    return found


def weights(folder: Path) -> dict[str, str]:
    """{path: digest} of every safetensors file outside of results: compressed checkpoints and factors."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.safetensors"))
        if path.is_file() and path.parent.name != "results"  # those hold seconds too
    }


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.name not in UNSTEADY}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """{path: (inode, time)} of every whole result, which must stay as it is."""
    found = {}
    for path in folder.rglob("results/*.json"):
        if path.name.startswith(PARTS):
            continue
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        status = path.stat()
        found[str(path.relative_to(folder))] = (status.st_ino, status.st_mtime_ns)
    return found


def leftovers(folder: Path, ours: str = ".tmp") -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.endswith(ours))


def differences(expected: Tables, found: Tables) -> list[Fault]:
    """A fault for each table that is missing, foreign, or has another number."""
    faults = [Fault("table missing", name) for name in sorted(expected.keys() - found.keys())]
    faults += [Fault("table too many", name) for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        if said := first_difference(expected[name], found[name]):
            faults.append(Fault("wrong number", f"{name}: {said}"))
    return faults


def first_difference(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    if len(expected) != len(found):
        return f"{len(found)} rows, not {len(expected)}"
    for n, (right, row) in enumerate(zip(expected, found, strict=True)):
        if right != row:
            column = next(c for c in {**right, **row} if right.get(c) != row.get(c))
            return f"row {n}, {column}: {row.get(column)!r}, not {right.get(column)!r}"
    return ""


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(name for name, value in before.items() if after.get(name) != value)
