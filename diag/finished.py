"""Run folders read back from disk as the plain data that reports see, without the model that they were made from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diag.run import PART, SCHEMA, Row
from tdmoe.problems import InputError

COMPARE = "compare"  # its folder holds the run of its job compare-NAME in parts/NAME
NEEDED = ("schema", "command", "model", "command_line", "config", "seed", "versions", "device", "fingerprint")
PAGELESS = {
    "calibrate": "its statistics are for --statistics of other commands",
    "compress": "its table is tables/compression.csv; measure what it wrote with quality or drift --compressed",
    "frontier": "it serves other commands",
}


@dataclass(frozen=True)
class Found:
    """Runs as `diag.run.RunFolder.data` gives them, and jobs of comparisons that left no run folder."""

    runs: list[Row]
    missing: list[Row]


def load(paths: Iterable[Path]) -> Found:
    """The runs of these folders; a compare folder stands for its parts, in its order. One named twice is read once.

    Jobs that did not finish are kept with their state, and have no rows. InputError for what is no run folder, was
    written by another version, has no page, or lacks a result that it says is there.
    """
    folders: dict[Path, tuple[Path, Row]] = {}
    missing: list[Row] = []
    for path in paths:
        manifest = _manifest(path)
        if manifest["command"] != COMPARE:
            folders.setdefault(path.resolve(), (path, manifest))
            continue
        parts = [(path / "parts" / job["key"].removeprefix(f"{COMPARE}-"), job) for job in manifest["jobs"]]
        there = [part for part, job in parts if PART.fullmatch(part.name) and (part / "run.json").is_file()]
        missing += [_job(job) for part, job in parts if job["state"] != "done" and part not in there]
        if not there:
            raise InputError(f"{path}: this comparison has measured nothing yet; run the same compare command again")
        for part in there:
            folders.setdefault(part.resolve(), (part, _manifest(part)))
    return Found([_run(path, manifest) for path, manifest in folders.values()], missing)


def _manifest(path: Path) -> Row:
    file = path / "run.json"
    if not file.is_file():
        what = "holds no run.json" if path.is_dir() else "is a file" if path.exists() else "does not exist"
        raise InputError(f"{path}: {what}; give the folder of a finished run, which a command prints when it ends")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        schema = manifest["schema"]
        later = schema > SCHEMA
        if schema == SCHEMA:
            missing = [key for key in (*NEEDED, "started", "jobs") if key not in manifest]
            shape = all(isinstance(job["key"], str) and isinstance(job["state"], str) for job in manifest["jobs"])
            if missing or not shape or not isinstance(manifest["command"], str):
                raise KeyError(", ".join(missing) or "jobs")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file}: is not one of ours or is damaged ({_reason(error)}); give another folder") from error
    if schema != SCHEMA:
        age, remedy = ("a newer", "update tdmoe-diag") if later else ("an older", "run its command again with --fresh")
        raise InputError(
            f"{file}: was written by {age} version of this tool (layout {schema}, this one reads {SCHEMA}); {remedy}"
        )
    return dict(manifest)


def _run(path: Path, manifest: Row) -> Row:
    command = manifest["command"]
    if command in PAGELESS:
        raise InputError(f"{path}: is a run of '{command}', which has no page; {PAGELESS[command]}")
    jobs = manifest["jobs"]
    done = [job["key"] for job in jobs if job["state"] == "done"]
    results = {key: _result(path, key) for key in done}
    names = [name for result in results.values() for name in result["tables"]]
    names += sorted(table.stem for table in path.glob("tables/*.csv"))  # those that no job filled
    return {
        **manifest,
        "jobs": [_job(job) for job in jobs],
        "tables": {
            name: [row for result in results.values() for row in result["tables"].get(name, [])]
            for name in dict.fromkeys(names)
        },
        "arrays": {key: _arrays(path, key, result["arrays"]) for key, result in results.items()},
    }


def _job(job: Row) -> Row:
    return {"key": job["key"], "state": job["state"], "message": job.get("message")}


def _result(path: Path, key: str) -> Row:
    """The rows of a finished job, whose key may not lead out of the folder."""
    file = path / "results" / f"{key}.json"
    try:
        if file.parent != path / "results" or "\\" in key:
            raise ValueError("its name is none of a job")
        result: Row = json.loads(file.read_text(encoding="utf-8"))
        if result["job"] != key or not isinstance(result["tables"], dict) or not isinstance(result["arrays"], list):
            raise ValueError("it is of another job")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _missing(file, error) from error
    return result


def _arrays(path: Path, key: str, expected: list[str]) -> dict[str, Any]:
    from safetensors.numpy import load_file

    if not expected:
        return {}
    file = path / "results" / f"{key}.safetensors"
    try:
        arrays = dict(load_file(file))
    except Exception as error:  # safetensors' own errors share no base
        raise _missing(file, error) from error
    if sorted(arrays) != sorted(expected):
        raise _missing(file, ValueError(f"{', '.join(sorted(set(expected) - set(arrays)))} missing"))
    return arrays


def _missing(file: Path, error: Exception) -> InputError:
    return InputError(f"{file}: a finished job's result cannot be read ({_reason(error)}); run the command again")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"no {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)
