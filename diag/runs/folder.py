"""A run folder: manifest, one result per finished job, tables. Kill it anywhere and nothing finished is lost.

run.json              what was asked and the state of every job (diag/runs/manifest.py)
results/JOB.json      rows and arrays of a finished job with their SHA-256 (diag/runs/results.py)
tables/NAME.csv       all rows of that table, written when the run ends
errors/JOB.txt        traceback of a failed job
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from diag.runs import manifest as manifests
from diag.runs import progress, results, tables
from diag.runs.files import lock, write_json, write_text
from diag.runs.peak_memory import PeakMemory, measuring
from diag.runs.results import Arrays, Row, Tables
from reports.formats import counted
from tdmoe.checkpoint.atomic import is_leftover, remove_leftovers
from tdmoe.problems import InputError

LOCK = ".lock"
BUSY = "another process writes to it; wait for it or give another folder"
WAIT = 0.5  # seconds between looks at a folder that another process writes to
OUTPUTS = ("tables/*.csv", "figures/*.svg", "errors/*.txt", "report.html")  # made from the results when a run ends
FOLDERS = ("", results.FOLDER, "tables", "figures", "errors")
NO_TABLES: Mapping[str, Sequence[str]] = {}

PART = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")


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
    """Result of a job: its rows by table, or why it failed."""

    state: str = "pending"  # pending | done | failed
    tables: Tables = field(default_factory=dict)
    message: str | None = None
    seconds: float | None = None


def digest(value: Any) -> str:
    """Short SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def by_reason(failures: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """(jobs, message): those that failed for one reason are named together."""
    found: dict[str, list[str]] = {}
    for key, message in failures:
        found.setdefault(message, []).append(key)
    return [
        (keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more", message)
        for message, keys in found.items()
    ]


def overwritten(files: Iterable[str]) -> str:
    """Message on files of a model that changed since they were opened: what was made is of two models."""
    return f"{', '.join(files)}: changed while the command ran; run it again when it is whole"


def check_free(out: Path) -> None:
    """InputError where another process writes to a folder that --out named: found before a plan is made."""
    if (out / LOCK).is_file():
        if (held := lock(out / LOCK)) is None:
            raise InputError("out", out, BUSY)
        held.close()


class RunFolder(Generic[Unit]):
    """The results of one command on one model. `identities[job]` is what its result must match to be used again."""

    def __init__(
        self,
        path: Path,
        manifest: Row,
        identities: Mapping[Unit, Row],
        *,
        given: bool = True,
        columns: Mapping[str, Sequence[str]] = NO_TABLES,
        changed: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """`given` by --out, not chosen by the command; `changed` names files of the model that changed meanwhile."""
        self.path = path
        self.manifest = {**manifest, "notes": [], "peak_memory_bytes": None}
        self.jobs = list(identities)
        self.identities = identities
        self.outcomes = {job.key: Outcome() for job in self.jobs}
        self.replaces: list[str] = []  # what an earlier command was asked for in this folder, and is not any more
        self._given, self._columns, self._changed = given, columns, changed
        self._where, self._instead = manifests.named("--out", path, given=given)
        self._lock: BinaryIO | None = None
        self._memory: PeakMemory | None = None
        self._peak_before: int | None = None  # of earlier processes whose results are used
        self._peak_known = True

    def open(self, *, fresh: bool = False, notes: Sequence[str] = ()) -> list[str]:
        """Create or take up the folder; returns `notes`, which are kept, and notes on results not to be used again.

        InputError when the folder holds something else: it is never overwritten, and `fresh` deletes only what a
        run wrote. While another process writes to it, one that the command chose itself is waited for.
        """
        try:
            if self.path.exists() and not self.path.is_dir():
                raise InputError(f"{self._where}: is a file; {self._instead}")
            self._check_ours(fresh)
            self.path.mkdir(parents=True, exist_ok=True)
            self._hold()
            self._check_ours(fresh)
            self._remove(*([f"{results.FOLDER}/*{suffix}" for suffix in results.SUFFIXES] if fresh else ()))
            for folder in FOLDERS:
                remove_leftovers(self.path / folder)
            earlier = {} if fresh else manifests.earlier(self.path)
            told = [note for job in self.jobs if (note := self._take_up(job))]
            self.replaces = self._replaces(earlier, bool(told))
            told = [*self.replaces, *told, *self._account()]
            self._take_up_manifest(earlier)
            self._memory = measuring(str(self.manifest.get("device")), str(self.manifest.get("engine", "inline")))
            self.note(notes)
            (self.path / results.FOLDER).mkdir(exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"{self._where}: cannot be written ({reason}); {self._instead}") from error
        return list(dict.fromkeys([*notes, *told]))

    def _hold(self) -> None:
        """The lock, at once or, where the command chose the folder itself, when the other process lets go of it."""
        waits = False
        while (held := lock(self.path / LOCK)) is None:
            if self._given:
                raise InputError(f"{self._where}: {BUSY}")
            if not waits:
                progress.say(f"{self.path}: another process writes to it; waiting for that to end")
            waits = True
            time.sleep(WAIT)
        self._lock = held

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
        """Save a finished job; it has failed where the model's files changed since they were opened.

        Rows have exactly their table's columns, in order, empty where nothing is given.
        """
        tables = {name: [_row(row, self._columns.get(name)) for row in rows] for name, rows in tables.items()}
        if changed := self._changed():
            self.fail(job, overwritten(changed), "")
            return
        about = {
            **self.identities[job],
            "seconds": round(seconds, 3),
            "versions": self.manifest["versions"],  # a run may be finished by newer ones than it was begun with
        }
        results.write(self.path, job.key, about, tables, arrays)
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
        rows: list[Row] = []
        for job in self.jobs:
            outcome = self.outcomes[job.key]
            if outcome.state == "done":
                rows += outcome.tables.get(name, [])
            elif fills(job):
                rows.append({k: v for k, v in job.labels.items() if k in columns} | {"status": outcome.state})
        path = self.path / "tables" / f"{name}.csv"
        write_text(path, tables.text_of(columns, rows))
        return path

    def rows(self, table: str) -> list[Row]:
        """Rows of all finished jobs, in job order."""
        return [row for job in self.jobs for row in self.outcomes[job.key].tables.get(table, [])]

    def arrays(self, job: Unit) -> dict[str, NDArray[np.float64]]:
        """The arrays of a finished job; none where it has none."""
        done = self.outcomes[job.key].state == "done"
        return results.arrays(self.path, results.read(self.path, job.key)) if done else {}

    def data(self, tables: Iterable[str]) -> Row:
        """The run as plain data, which is all that the reports see."""
        states = {job: self.outcomes[job.key] for job in self.jobs}
        return {
            **self.manifest,
            "jobs": [{"key": job.key, "state": o.state, "message": o.message} for job, o in states.items()],
            "tables": {table: self.rows(table) for table in tables},
            "arrays": {job.key: self.arrays(job) for job, o in states.items() if o.state == "done"},
        }

    def _take_up(self, job: Unit) -> str | None:
        """Use an earlier result if it is whole and everything matches; otherwise say what differs."""
        if not results.path(self.path, job.key).exists():
            return None
        try:
            result = results.read(self.path, job.key, self._columns)
            if differs := [k for k, v in self.identities[job].items() if result.get(k) != v]:
                return f"{job.key}: measured again, {', '.join(differs)} changed"
            results.check_arrays(self.path, result)
        except (OSError, ValueError) as error:  # any damage means the same: measure it again
            reason = error.strerror if isinstance(error, OSError) else error
            return f"{job.key}: measured again, the result cannot be used ({reason})"
        self.outcomes[job.key] = Outcome("done", result["tables"], None, result["seconds"])
        return None

    def _take_up_manifest(self, earlier: Row) -> None:
        """Notes and peak memory of the runs before, where a result of theirs is used."""
        if len(self.pending()) == len(self.jobs) or not earlier:
            return
        notes, peak = earlier.get("notes"), earlier.get("peak_memory_bytes")
        self.manifest["notes"] = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
        self._peak_known = type(peak) is int
        self._peak_before = peak if self._peak_known else None

    def _replaces(self, earlier: Row, differs: bool) -> list[str]:
        """A note where tables and page of other settings give way to this command's."""
        before, jobs = earlier.get("config"), earlier.get("jobs")
        if not isinstance(before, dict) or not isinstance(jobs, list):
            return []
        keys = {job.get("key") for job in jobs if isinstance(job, dict)}
        differs = differs or keys != {job.key for job in self.jobs}
        changes = manifests.changes(before, self.manifest.get("config") or {}) if differs else []
        if not changes:
            return []
        return [f"{self.path}: tables and page of an earlier command are replaced; {'; '.join(changes)}"]

    def _account(self) -> list[str]:
        """Notes on what is there already: results that are used again, and results that are not asked for."""
        taken = len(self.jobs) - len(self.pending())
        asked = {results.path(self.path, job.key) for job in self.jobs}
        others = len(set(self.path.glob(f"{results.FOLDER}/*.json")) - asked)
        notes = (
            [f"{taken} of {counted(len(self.jobs), 'job')} {'is' if taken == 1 else 'are'} done already"]
            if taken
            else []
        )
        if others:
            are = "is" if others == 1 else "are"
            notes.append(f"{counted(others, 'result')} of other jobs {are} kept, but not in table and page")
        return notes

    def _check_ours(self, fresh: bool) -> None:
        """The folder must be empty or hold a run of ours, and the same one unless it is to be replaced."""
        if self.path.is_dir() and any(p.name != LOCK and not is_leftover(p) for p in self.path.iterdir()):
            manifests.check_same(self.path, self._where, self._instead, self.manifest, same_run=not fresh)

    def _remove(self, *patterns: str) -> None:
        """Delete what a run wrote and nothing else: a user's own files in the folder stay."""
        for pattern in patterns:
            for path in self.path.glob(pattern):
                if not path.is_dir():
                    path.unlink()

    def _save_manifest(self) -> None:
        states = [
            {"key": key, "state": o.state, "message": o.message, "seconds": o.seconds}
            for key, o in self.outcomes.items()
        ]
        found = None if self._memory is None else self._memory.bytes()
        peaks = [peak for peak in (self._peak_before, found) if peak is not None]
        self.manifest["peak_memory_bytes"] = max(peaks) if peaks and self._peak_known else None
        write_json(self.path / manifests.FILE, {**self.manifest, "jobs": states})


def _row(row: Row, columns: Sequence[str] | None) -> Row:
    return row if columns is None else {column: row.get(column) for column in columns}
