"""Every command that writes something, killed one to four times and run again: nothing lost, nothing left behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from campaigns import written
from campaigns.death import KILLED, Changes
from campaigns.forked import Ended, forked
from campaigns.frame import RIGHT, Verdict
from campaigns.pico import Bench, commands
from campaigns.tool import Fault, attempt, faults_of, learn

SECONDS = 60  # of a command that takes up to three on a quiet machine
COLD, IMPORTS = 0.03, 4.0  # share of kills of a process that begins with its imports, and their seconds
MOST = 4  # kills of one command
FOREIGN = ("notes.txt", ".precious.tmp")  # a user's own, in a run folder
SIGNALS = {signal.SIGKILL: "SIGKILL", signal.SIGTERM: "SIGTERM", signal.SIGINT: "SIGINT"}


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves that nobody kills, and how often it changes a file."""

    tables: written.Tables
    weights: dict[str, str]
    names: set[str]
    changes: int


class Kills:
    name, share = "kills", 0.42

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.commands = commands(bench) | {"report": ["report", "run"]}
        self.found: dict[str, Undisturbed] = {}
        self.seconds: dict[str, float] = {}

    def undisturbed(self, name: str) -> Undisturbed:
        if name not in self.found:
            self.found[name] = self._undisturbed(name)
        return self.found[name]

    def case(self, draw: random.Random, folder: Path) -> Verdict:
        name = draw.choice(list(self.commands))
        whole, home = self.undisturbed(name), self._begun(name, folder)
        faults: list[Fault] = []
        kept: dict[str, tuple[int, int]] = {}
        kills, done, foreign, placed = 0, [], draw.random() < 0.3, False
        for _ in range(MOST):
            how, ended = self._killed(name, whole, home, draw)
            if ended.code == 0:
                break
            kills += 1
            done.append(how)
            faults += _after(how, ended, folder)
            stamps = written.stamps(home)
            faults += _lost(kept, stamps)
            kept = stamps
            if foreign and not placed and (home / "run" / "run.json").is_file():
                placed = True
                for each in FOREIGN:
                    (home / "run" / each).write_text("mine")
            if draw.random() < 0.2:
                break
        last = self._attempt(name, home)
        faults += faults_of(last, folder)
        if last.code:
            faults.append(Fault("dead end", f"exit code {last.code}: {last.err.strip()[-300:]}"))
        else:
            faults += self._judged(whole, home, kept)
        if placed:
            faults += [Fault("user's file lost", each) for each in FOREIGN if not _mine(home / "run" / each)]
        what = f"{name}, {', then '.join(done) or 'not killed'}"
        return Verdict(what, RIGHT, list(dict.fromkeys(faults)), kills, " ".join(self.commands[name]))

    def _undisturbed(self, name: str) -> Undisturbed:
        folder = self.bench.home / f"whole-{name}-{os.getpid()}"
        counted, home = folder / "changes", self._begun(name, folder)

        def prepare() -> None:
            changes, leave = Changes(home), os._exit

            def left(code: int) -> None:
                count = changes.count
                counted.write_text(str(count))
                leave(code)

            os._exit = left  # type: ignore[assignment]

        ended = learn(self.commands[name], home, prepare=prepare)
        assert ended.code == 0, f"{name}: {ended}"
        count = int(counted.read_text())
        return Undisturbed(written.tables(home), written.weights(home), written.names(home), count)

    def _seconds(self, name: str) -> float:
        """Of the command where everything is imported already."""
        if name not in self.seconds:
            folder = self.bench.home / f"timed-{name}-{os.getpid()}"
            self.seconds[name] = self._attempt(name, self._begun(name, folder)).seconds
            shutil.rmtree(folder)
        return self.seconds[name]

    def _attempt(self, name: str, home: Path, **named: Any) -> Ended:
        return attempt(self.commands[name], home, seconds=SECONDS, **named)

    def _begun(self, name: str, folder: Path) -> Path:
        home = folder / "work"
        home.mkdir(parents=True, exist_ok=True)
        if name == "report":
            shutil.copytree(self._finished_spectra, home / "run")
        return home

    @cached_property
    def _finished_spectra(self) -> Path:
        self.undisturbed("spectra")
        return self.bench.home / f"whole-spectra-{os.getpid()}" / "work" / "run"

    def _killed(self, name: str, whole: Undisturbed, home: Path, draw: random.Random) -> tuple[str, Ended]:
        if draw.random() < COLD:
            number, after = draw.choice(list(SIGNALS)), draw.random() * IMPORTS
            arguments = [sys.executable, "-m", "diag.cli.app", *self.commands[name]]
            ended = forked(lambda: os.execv(sys.executable, arguments), home, SECONDS, (number, after))
            return f"{SIGNALS[number]} after {after:.2f} s of a new process", ended
        if draw.random() < 0.75:
            fatal, torn = draw.randint(1, whole.changes), draw.random() < 0.3
            ended = self._attempt(name, home, prepare=lambda: Changes(home, fatal, torn=torn))
            return f"killed at change {fatal}{', torn' if torn else ''}", ended
        number = draw.choice(list(SIGNALS))
        after = 0.02 + draw.random() * self._seconds(name)  # before that the child is not yet the command
        return f"{SIGNALS[number]} after {after:.2f} s", self._attempt(name, home, send=(number, after))

    def _judged(self, whole: Undisturbed, home: Path, kept: dict[str, tuple[int, int]]) -> list[Fault]:
        faults = written.differences(whole.tables, written.tables(home))
        faults += [Fault("measured twice", name) for name in written.changed(kept, written.stamps(home))]
        weights = written.weights(home)
        faults += [Fault("other weights", name) for name in written.changed(whole.weights, weights)]
        found = written.names(home) - {f"run/{each}" for each in FOREIGN}
        faults += [Fault("left behind", name) for name in sorted(found - whole.names)]
        faults += [Fault("file missing", name) for name in sorted(whole.names - found)]
        return faults


def _after(how: str, ended: Ended, folder: Path) -> list[Fault]:
    """A killed process may say nothing or that it was interrupted, but no traceback."""
    if ended.code in (KILLED, -signal.SIGKILL, -signal.SIGTERM) and not ended.hung:
        return [Fault("traceback", ended.err[-300:])] if "Traceback" in ended.err else []
    if ended.code in (130, -signal.SIGINT) and "SIGINT" in how:
        return [Fault("traceback", ended.err[-300:])] if "Traceback" in ended.err else []
    return faults_of(ended, folder) or [Fault("exit code", f"{ended.code} after {how}: {ended.err.strip()[-200:]}")]


def _mine(path: Path) -> bool:
    return path.is_file() and path.read_text() == "mine"


def _lost(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[Fault]:
    return [Fault("result lost", name) for name in written.changed(before, after)]
