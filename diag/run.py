"""A run folder: manifest, one result per finished job, tables. Kill it anywhere and nothing finished is lost.

run.json              what was asked, of which model, with which versions, and the state of every job; `notes` say what
                      was odd or other than asked, `peak_memory_bytes` is null where it is not known
results/JOB.json      rows of a finished job by table, written after its arrays in results/JOB.safetensors
tables/NAME.csv       all rows of that table, written when the run ends
errors/JOB.txt        traceback of a failed job
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from diag.files import lock, write_json, write_text
from diag.peak_memory import PeakMemory, measuring
from tdmoe.atomic import write_bytes
from tdmoe.problems import InputError

SCHEMA = 2
LOCK = ".lock"
TEMPORARY = ".*.tmp"  # left by a process killed while writing
RESULTS = ("results/*.json", "results/*.safetensors")
OUTPUTS = ("tables/*.csv", "figures/*.svg", "errors/*.txt", "report.html")  # made from the results when a run ends
PACKAGES = ("tdmoe-diag", "torch", "numpy", "scipy", "powerlaw", "safetensors", "transformers")

PART = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")

Row = dict[str, Any]
Tables = Mapping[str, list[Row]]  # a table's name and rows
Arrays = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of work and of resuming: a stack. The key is built from checked parts, so it is safe as a file name."""

    probe: str
    layer: int
    projection: str

    @property
    def key(self) -> str:
        return f"{self.probe}-L{self.layer:03d}-{self.projection}"

    @property
    def labels(self) -> Row:
        """The columns that tell it apart where it has no rows."""
        return {"layer": self.layer, "projection": self.projection}


@dataclass(frozen=True, slots=True)
class Part:
    """One unit of work on the whole model. `name` is a file name's part, `about` the columns that tell it apart."""

    probe: str
    name: str
    about: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        assert PART.fullmatch(self.name), self.name

    @property
    def key(self) -> str:
        return f"{self.probe}-{self.name}"

    @property
    def labels(self) -> Row:
        """The columns that tell it apart where it has no rows."""
        return dict(self.about)


Unit = TypeVar("Unit", bound=Job | Part)


@dataclass
class Outcome:
    """What became of a job: its rows by table, or why it failed."""

    state: str = "pending"  # pending | done | failed
    tables: Tables = field(default_factory=dict)
    message: str | None = None
    seconds: float | None = None


def digest(value: Any) -> str:
    """Short SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


class RunFolder(Generic[Unit]):
    """The results of one command on one model. `identities[job]` is what its result must match to be used again."""

    def __init__(self, path: Path, manifest: Row, identities: Mapping[Unit, Row]) -> None:
        self.path = path
        self.manifest = {**manifest, "notes": [], "peak_memory_bytes": None}
        self.jobs = list(identities)
        self.identities = identities
        self.outcomes = {job.key: Outcome() for job in self.jobs}
        self._lock: BinaryIO | None = None
        self._memory: PeakMemory | None = None
        self._peak_before: int | None = None  # of earlier processes whose results are used
        self._peak_known = True

    def open(self, *, fresh: bool = False, notes: Sequence[str] = ()) -> list[str]:
        """Create or take up the folder; returns `notes`, which are kept, and notes on results not to be used again.

        InputError when the folder holds something else: it is never overwritten, and `fresh` deletes only what a
        run wrote.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise InputError(f"--out {self.path}: is a file; give a folder")
            if self.path.is_dir() and any(p.name != LOCK and not p.match(TEMPORARY) for p in self.path.iterdir()):
                self._check_ours(same_run=not fresh)
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.path / LOCK)
            if self._lock is None:
                raise InputError(f"--out {self.path}: another process writes to it; wait for it or give another folder")
            self._remove(*(RESULTS if fresh else ()), TEMPORARY, f"*/{TEMPORARY}")
            told = [note for job in self.jobs if (note := self._take_up(job))] + self._account()
            self._take_up_manifest()
            self._memory = measuring(str(self.manifest.get("device")), str(self.manifest.get("engine", "inline")))
            self.note(notes)
            (self.path / "results").mkdir(exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"--out {self.path}: cannot be written ({reason}); give another folder") from error
        return list(dict.fromkeys([*notes, *told]))

    def note(self, notes: Iterable[str]) -> None:
        """Keep these in run.json, each once."""
        self.manifest["notes"] = list(dict.fromkeys([*self.manifest["notes"], *notes]))
        self._save_manifest()

    def forget(self, jobs: Sequence[Unit]) -> None:
        """Do these again, whatever was found of them."""
        for job in jobs:
            self.outcomes[job.key] = Outcome()

    def begin(self) -> None:
        """Delete an earlier table and page if there is anything to do: they would look like this run's."""
        if self.pending():
            self._remove(*OUTPUTS)

    def close(self) -> None:
        """Let other processes write to the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._memory is not None:
            self._memory.end()
            self._memory = None

    def pending(self) -> list[Unit]:
        """Jobs without a usable result, in order."""
        return [job for job in self.jobs if self.outcomes[job.key].state != "done"]

    def failures(self) -> list[tuple[str, str]]:
        """(job, message) of those that failed."""
        return [(key, str(o.message)) for key, o in self.outcomes.items() if o.state == "failed"]

    def finish(self, job: Unit, tables: Tables, arrays: Arrays, seconds: float) -> None:
        """Save a finished job: its JSON file last, so that where there is one the result is whole."""
        from safetensors.numpy import save

        self._file(job, ".json").unlink(missing_ok=True)
        self._file(job, ".safetensors").unlink(missing_ok=True)
        if arrays:
            write_bytes(self._file(job, ".safetensors"), save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
        result = {
            **self.identities[job],
            "job": job.key,
            "tables": tables,
            "arrays": sorted(arrays),
            "seconds": round(seconds, 3),
            "versions": self.manifest["versions"],  # a run may be finished by newer ones than it was begun with
        }
        write_json(self._file(job, ".json"), result)
        self.outcomes[job.key] = Outcome("done", tables, None, round(seconds, 3))
        self._save_manifest()

    def fail(self, job: Unit, message: str, trace: str) -> None:
        """Record a failed job; the others go on."""
        write_text(self.path / "errors" / f"{job.key}.txt", trace)
        self.outcomes[job.key] = Outcome("failed", {}, message)
        self._save_manifest()

    def write_table(self, name: str, columns: Sequence[str], fills: Callable[[Unit], bool] = lambda job: True) -> Path:
        """`tables/NAME.csv`: all rows in job order; a failed job is one row that says so, so nothing is missed.

        `fills` tells which jobs would have had rows in this table.
        """
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        for job in self.jobs:
            outcome = self.outcomes[job.key]
            if outcome.state == "done":
                writer.writerows(outcome.tables.get(name, []))
            elif fills(job):
                writer.writerow({k: v for k, v in job.labels.items() if k in columns} | {"status": outcome.state})
        path = self.path / "tables" / f"{name}.csv"
        write_text(path, buffer.getvalue())
        return path

    def rows(self, table: str) -> list[Row]:
        """Rows of all finished jobs, in job order."""
        return [row for job in self.jobs for row in self.outcomes[job.key].tables.get(table, [])]

    def arrays(self, job: Unit) -> dict[str, NDArray[np.float64]]:
        """The arrays of a finished job; none where it has none."""
        from safetensors.numpy import load_file

        path = self._file(job, ".safetensors")
        return dict(load_file(path)) if path.is_file() else {}

    def data(self, tables: Iterable[str]) -> Row:
        """The run as plain data, which is all that the reports see."""
        states = {job: self.outcomes[job.key] for job in self.jobs}
        return {
            **self.manifest,
            "jobs": [{"key": job.key, "state": o.state, "message": o.message} for job, o in states.items()],
            "tables": {table: self.rows(table) for table in tables},
            "arrays": {job.key: self.arrays(job) for job, o in states.items() if o.state == "done"},
        }

    def _file(self, job: Unit, suffix: str) -> Path:
        return self.path / "results" / (job.key + suffix)

    def _take_up(self, job: Unit) -> str | None:
        """Use an earlier result if it is whole and everything matches; otherwise say what differs."""
        path = self._file(job, ".json")
        if not path.is_file():
            return None
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            differs = [k for k, v in (self.identities[job] | {"job": job.key}).items() if result.get(k) != v]
            if not differs and (not result["arrays"] or sorted(self.arrays(job)) == result["arrays"]):
                self.outcomes[job.key] = Outcome("done", result["tables"], None, result["seconds"])
                return None
            reason = f"{', '.join(differs)} changed" if differs else "its arrays are incomplete"
        except Exception as error:  # any damage means the same: measure it again
            reason = f"the result cannot be read ({error})"
        return f"{job.key}: measured again, {reason}"

    def _take_up_manifest(self) -> None:
        """Notes and peak memory of the runs before, where a result of theirs is used."""
        path = self.path / "run.json"
        if len(self.pending()) == len(self.jobs) or not path.is_file():
            return
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
            notes, peak = earlier.get("notes"), earlier.get("peak_memory_bytes")
        except (ValueError, AttributeError, RecursionError):
            notes = peak = None
        self.manifest["notes"] = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
        self._peak_known = type(peak) is int
        self._peak_before = peak if self._peak_known else None

    def _account(self) -> list[str]:
        """What is there already: results that are used again, and results that are not asked for."""
        taken = len(self.jobs) - len(self.pending())
        others = len(list(self.path.glob("results/*.json"))) - sum(self._file(j, ".json").is_file() for j in self.jobs)
        notes = [f"{taken} of {len(self.jobs)} jobs are done already"] if taken else []
        if others:
            notes.append(f"{others} results of other jobs are kept, but table and page leave them out")
        return notes

    def _check_ours(self, *, same_run: bool) -> None:
        """The folder must hold a run of ours, and the same one unless it is to be replaced."""
        path = self.path / "run.json"
        if not path.exists():
            raise InputError(f"--out {self.path}: the folder is not empty and holds no run; give a new folder")
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
            schema, *kind = [earlier[key] for key in ("schema", "command", "fingerprint")]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"--out {self.path}: its run.json is not one of ours; give a new folder") from error
        if same_run and schema != SCHEMA:
            raise InputError(
                f"--out {self.path}: holds a run of another version of this tool; give another folder, or --fresh to "
                "replace it"
            )
        if same_run and kind != [self.manifest[key] for key in ("command", "fingerprint")]:
            raise InputError(
                f"--out {self.path}: holds a run of '{earlier['command']}' on {earlier.get('model')} "
                f"(fingerprint {earlier['fingerprint']}), this is '{self.manifest['command']}' "
                f"on {self.manifest['model']} ({self.manifest['fingerprint']}); "
                "give another folder, or --fresh to replace it"
            )

    def _remove(self, *patterns: str) -> None:
        """Delete what a run wrote and nothing else: a user's own files in the folder stay."""
        for pattern in patterns:
            for path in self.path.glob(pattern):
                path.unlink()

    def _save_manifest(self) -> None:
        states = [
            {"key": key, "state": o.state, "message": o.message, "seconds": o.seconds}
            for key, o in self.outcomes.items()
        ]
        found = None if self._memory is None else self._memory.bytes()
        peaks = [peak for peak in (self._peak_before, found) if peak is not None]
        self.manifest["peak_memory_bytes"] = max(peaks) if peaks and self._peak_known else None
        write_json(self.path / "run.json", {**self.manifest, "jobs": states})


def make_manifest(**known: Any) -> Row:
    """The part of run.json that does not change while the run goes on."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"schema": SCHEMA, **known, "versions": package_versions(), "started": started}


def package_versions() -> dict[str, str]:
    """Of everything that results may depend on."""
    return {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES}


@cache
def _version(package: str) -> str:
    """Read once: a command may make a manifest for every method that it compares."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
