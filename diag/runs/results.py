"""A finished job on disk: results/JOB.json, written after its arrays in results/JOB.safetensors.

    {identity..., "job", "tables": {NAME: rows}, "arrays": names, "arrays_sha256", "seconds", "versions", "sha256"}

`sha256` is that of all other fields, `arrays_sha256` that of the arrays' file. What does not match is not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diag.runs.files import open_file, read_json, write_json
from tdmoe.checkpoint.atomic import write_bytes

FOLDER = "results"
SUFFIXES = (".json", ".safetensors")

Row = dict[str, Any]
Tables = Mapping[str, list[Row]]  # a table's name and rows
Arrays = Mapping[str, NDArray[np.float64]]


def write(run: Path, key: str, about: Row, tables: Tables, arrays: Arrays) -> None:
    """Save a result, its JSON file last: where there is one it is whole. `about` is everything else to be kept."""
    from safetensors.numpy import save

    for suffix in SUFFIXES:
        path(run, key, suffix).unlink(missing_ok=True)
    sha256 = None
    if arrays:
        content = save({name: np.ascontiguousarray(values) for name, values in arrays.items()})
        write_bytes(path(run, key, ".safetensors"), content)
        sha256 = hashlib.sha256(content).hexdigest()
    result = {**about, "job": key, "tables": tables, "arrays": sorted(arrays), "arrays_sha256": sha256}
    write_json(path(run, key), result | {"sha256": _digest(result)})


def read(run: Path, key: str, columns: Mapping[str, Sequence[str]] | None = None) -> Row:
    """A result as it was written, its arrays' file unread. `columns` are those of tables; others hold anything.

    OSError or ValueError where there is none, or it is not what was written.
    """
    file = path(run, key)
    if file.parent != run / FOLDER or "\\" in key:
        raise ValueError("its name is none of a job")
    result = read_json(file)
    if not isinstance(result, dict):
        raise ValueError("it is no object")
    if result.get("job") != key:
        raise ValueError("it is of another job")
    if "sha256" not in result:
        raise ValueError("it has no SHA-256")
    if result.pop("sha256") != _digest(result):
        raise ValueError("its SHA-256 does not match")
    _check_rows(result.get("tables"), columns or {})
    names = result.get("arrays")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("arrays is no list of names")
    return result


def check_arrays(run: Path, result: Row) -> None:
    """OSError or ValueError where the arrays of what was read are not those that were written with it."""
    if not result["arrays"]:
        return
    with open_file(path(run, result["job"], ".safetensors")) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != result.get("arrays_sha256"):
            raise ValueError("the SHA-256 of its arrays does not match")


def arrays(run: Path, result: Row) -> dict[str, NDArray[np.float64]]:
    """The checked arrays of what was read."""
    from safetensors.numpy import load_file

    check_arrays(run, result)
    return dict(load_file(path(run, result["job"], ".safetensors"))) if result["arrays"] else {}


def path(run: Path, key: str, suffix: str = ".json") -> Path:
    """File of a job's result in a run folder."""
    return run / FOLDER / (key + suffix)


def _digest(result: Row) -> str:
    """SHA-256 of what a reader of the JSON file will have."""
    plain = json.loads(json.dumps(result, allow_nan=False))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _check_rows(tables: object, columns: Mapping[str, Sequence[str]]) -> None:
    if not isinstance(tables, dict):
        raise ValueError("tables is no object")
    for name, rows in tables.items():
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"table {name} is no list of rows")
        for row in rows if name in columns else ():
            for column, value in row.items():
                if column not in columns[name]:
                    raise ValueError(f"table {name} has a foreign column {column[:40]!r}")
                if not isinstance(value, str | int | float | None):
                    raise ValueError(f"column {column} of table {name} holds a {type(value).__name__}")
