"""Run folders read back from disk as the plain data that reports see, without the model that they were made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diag.runs import results
from diag.runs.files import read_json
from diag.runs.folder import PART
from diag.runs.manifest import FILE, SCHEMA
from diag.runs.results import Row
from tdmoe.problems import InputError

COMPARE = "compare"  # its folder holds the run of its job compare-NAME in parts/NAME
CALIBRATION = "calibration"  # the one job of it whose run lies elsewhere
NEEDED: dict[str, type] = {
    **{"command": str, "model": str, "command_line": str, "config": dict, "seed": int, "versions": dict},
    **{"device": str, "fingerprint": str, "started": str, "jobs": list},
}
ADDED: dict[str, tuple[Any, type]] = {"notes": ([], list), "peak_memory_bytes": (None, int)}  # absent in earlier runs
JSON_NAMES = {str: "a text", dict: "an object", int: "a whole number", list: "a list"}
MADE = ("run", "factors")  # folders of factors that a command makes for itself
PAGELESS = {
    "calibrate": "its statistics are for --statistics of other commands",
    "compress": "its table is tables/compression.csv; measure what it wrote with quality or drift --compressed",
    "frontier": "it serves other commands",
    "sensitivity": "it serves other commands",
}


@dataclass(frozen=True)
class Found:
    """Runs as `diag.runs.folder.RunFolder.data` gives them, where they lie, and jobs of comparisons that left no run
    folder.

    `left_out` are folders without a page among those that have one.
    """

    runs: list[Row]
    folders: list[Path]
    missing: list[Row]
    left_out: list[Path]


def load(paths: Iterable[Path]) -> Found:
    """The runs of these folders; a compare folder stands for its parts, in its order. One named twice is read once.

    Jobs that did not finish are kept with their state, and have no rows. InputError for what is no run folder, was
    written by another version, or lacks a result that it says is there: a line for each such folder. Likewise where no
    run of them has a page.
    """
    folders: dict[Path, Path] = {}
    runs: list[Row] = []
    missing: list[Row] = []
    wrong: list[str] = []
    pageless: dict[Path, str] = {}
    for path in paths:
        try:
            if not _holds_run(path) and all((path / name).is_dir() for name in MADE):
                pageless[path] = f"{path}: holds factors that a command made for itself, and no page; leave it out"
                continue
            manifest = _manifest(path)
            if (command := manifest["command"]) in PAGELESS:
                pageless[path] = f"{path}: is a run of '{command}', which has no page; {PAGELESS[command]}"
                continue
            parts = [path]
            if manifest["command"] == COMPARE:
                parts, unfinished = _parts(path, manifest)
                missing += unfinished
        except InputError as error:
            wrong.append(str(error))
            continue
        for part in parts:
            if part.resolve() in folders:
                continue
            folders[part.resolve()] = part
            try:
                runs.append(_run(part, manifest if part is path else _manifest(part)))
            except InputError as error:
                wrong.append(str(error))
    if wrong or not runs:
        raise InputError("\n".join(wrong or pageless.values()))
    return Found(runs, list(folders.values()), missing, list(pageless))


def _parts(path: Path, manifest: Row) -> tuple[list[Path], list[Row]]:
    """Folders of a comparison's parts, and its jobs that left none. InputError where one that is done has gone."""
    home = path / "parts"
    parts = [(home / job["key"].removeprefix(f"{COMPARE}-"), job) for job in manifest["jobs"]]
    there = [part for part, _ in parts if part.parent == home and PART.fullmatch(part.name) and _holds_run(part)]
    gone = [
        f"{part}: a finished part of this comparison, holds no run.json; run the same compare command again"
        for part, job in parts
        if job["state"] == "done" and part not in there and job["key"].startswith(f"{COMPARE}-")
        if job["key"] != f"{COMPARE}-{CALIBRATION}"
    ]
    if gone:
        raise InputError("\n".join(gone))
    if not there:
        raise InputError(f"{path}: this comparison has measured nothing yet; run the same compare command again")
    return there, [_job(job) for part, job in parts if job["state"] != "done" and part not in there]


def _holds_run(path: Path) -> bool:
    try:
        return (path / FILE).exists()
    except OSError as error:  # no right to look, or no name for a file
        raise InputError(f"{path}: cannot be read ({_reason(error)}); give a folder that can be") from error


def _manifest(path: Path) -> Row:
    file = path / FILE
    if not _holds_run(path):
        what = "holds no run.json" if path.is_dir() else "is a file" if path.exists() else "does not exist"
        raise InputError(f"{path}: {what}; give the folder of a finished run, which a command prints when it ends")
    try:
        manifest = read_json(file)
        schema = manifest["schema"]
        later = schema > SCHEMA
        if schema == SCHEMA:
            manifest = {name: default for name, (default, _) in ADDED.items()} | manifest
            _check_shape(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: is not one of ours or is damaged ({_reason(error)}); give another folder") from error
    if schema != SCHEMA:
        age, remedy = ("a newer", "update tdmoe-diag") if later else ("an older", "run its command again with --fresh")
        raise InputError(
            f"{file}: was written by {age} version of this tool (layout {schema}, this one reads {SCHEMA}); {remedy}"
        )
    return dict(manifest)


def _check_shape(manifest: Row) -> None:
    """KeyError or ValueError where something that reports read is missing or of another kind."""
    if missing := [key for key in NEEDED if key not in manifest]:
        raise KeyError(", ".join(missing))
    for key, kind in NEEDED.items():
        _check_kind(key, manifest[key], kind)
    for key, (default, kind) in ADDED.items():
        if manifest[key] != default:
            _check_kind(key, manifest[key], kind)
    for note in manifest["notes"]:
        _check_kind("a note", note, str)
    for job in manifest["jobs"]:
        _check_kind("a job", job, dict)
        for key in ("key", "state"):
            _check_kind(f"{key} of a job", job[key], str)
        if job.get("message") is not None:
            _check_kind("message of a job", job["message"], str)


def _check_kind(name: str, value: Any, kind: type) -> None:
    if type(value) is not kind:
        raise ValueError(f"{name} is {str(value)[:40]!r}, {JSON_NAMES[kind]} is needed")


def _run(path: Path, manifest: Row) -> Row:
    jobs = manifest["jobs"]
    done = [job["key"] for job in jobs if job["state"] == "done"]
    found = {key: _result(path, key) for key in done}
    names = [name for result, _ in found.values() for name in result["tables"]]
    names += sorted(table.stem for table in path.glob("tables/*.csv"))  # those that no job filled
    return {
        **manifest,
        "jobs": [_job(job) for job in jobs],
        "tables": {
            name: [row for result, _ in found.values() for row in result["tables"].get(name, [])]
            for name in dict.fromkeys(names)
        },
        "arrays": {key: arrays for key, (_, arrays) in found.items()},
    }


def _job(job: Row) -> Row:
    return {"key": job["key"], "state": job["state"], "message": job.get("message")}


def _result(path: Path, key: str) -> tuple[Row, dict[str, Any]]:
    """Result and arrays of a finished job, whose key may not lead out of the folder."""
    file = results.path(path, key)
    try:
        result = results.read(path, key)
        file = results.path(path, key, ".safetensors")
        return result, results.arrays(path, result)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file}: a finished job's result cannot be read ({_reason(error)}); run the command again"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"no {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)
