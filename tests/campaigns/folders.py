"""Finished run folders mutated, then the same command, or `report`: the old numbers, or a message.

What a user put there stays. What we wrote and is damaged is measured again; nothing is believed that was changed.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save

from campaigns import written
from campaigns.frame import REFUSED, RIGHT, Verdict
from campaigns.mutations import damage_bytes, damage_json
from campaigns.pico import Bench, commands
from campaigns.tool import Fault, attempt, faults_of, learn, refused

COMMANDS = ("spectra", "spectra", "quality", "calibrate", "round", "drift")
REPORTED = ("spectra", "quality", "drift")
MINE = {"notes.txt": "mine", ".precious.tmp": "mine", "results/mine.csv": "a,b\n", "tables/.mine.tmp": "mine"}


class Folders:
    name, share = "folders", 0.12

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.commands = commands(bench)
        self.finished: dict[str, Path] = {}

    def case(self, draw: random.Random, folder: Path) -> Verdict:
        reporting = draw.random() < 0.3
        name = draw.choice(REPORTED if reporting else COMMANDS)
        home = folder / "work"
        shutil.copytree(self._finished(name), home, symlinks=True)
        done = f"{name}, {draw.choice(MUTATIONS)(draw, home / 'run')}"
        mine = self._mine(draw, home / "run")
        arguments = ["report", "run"] if reporting else self.commands[name]
        if draw.random() < 0.1 and not reporting:
            arguments = [*arguments, "--fresh"]
        ended = attempt(arguments, home)
        faults, line = faults_of(ended, folder), " ".join(arguments)
        faults += [Fault("user's file lost", each) for each in mine if not _same(home / "run" / each, MINE[each])]
        if refused(ended) or faults:
            return Verdict(done, REFUSED, faults, command=line)
        expected = self._finished(name)
        if reporting:
            if said := _misshown(_page(expected), _page(home), whole="run.json" not in done):
                faults.append(Fault("silent wrong number", f"on the page, {said}"))
        else:
            wrong = written.differences(written.tables(expected), written.tables(home))
            faults += [Fault(f"silent {kind}", text) for kind, text in wrong]
            theirs = {Path(path).name for path in _inside(mine)}  # also where a folder was moved behind a link
            faults += [Fault("left behind", path) for path in written.leftovers(home) if Path(path).name not in theirs]
            faults += self._other_weights(expected, home)
        return Verdict(done, RIGHT, faults, command=line)

    def _finished(self, name: str) -> Path:
        if name not in self.finished:
            folder = self.bench.home / f"finished-{name}-{os.getpid()}" / "work"
            ended = learn(self.commands[name], folder)
            assert ended.code == 0, f"{name}: {ended}"
            if name in REPORTED:
                ended = learn(["report", "run"], folder)
                assert ended.code == 0, f"report of {name}: {ended}"
            self.finished[name] = folder
        return self.finished[name]

    def _mine(self, draw: random.Random, run: Path) -> list[str]:
        """Files of a user's own in the run folder."""
        placed = [name for name in MINE if draw.random() < 0.2 and (run / name).parent.is_dir()]
        for name in placed:
            (run / name).write_text(MINE[name])
        return placed

    def _other_weights(self, expected: Path, home: Path) -> list[Fault]:
        changed = written.changed(written.weights(expected), written.weights(home))
        return [Fault("silent wrong number", f"{path}: other bytes than at first") for path in changed[:2]]


def _inside(mine: list[str]) -> set[str]:
    return {f"run/{name}" for name in mine}


def _same(path: Path, content: str) -> bool:
    return path.is_file() and path.read_text() == content


Page = list[dict[str, Any]]


def _page(home: Path) -> Page:
    """The runs that a page shows; `campaigns.tool` writes it as JSON."""
    shown: Page = json.loads((home / "run" / "report.html").read_text(encoding="utf-8"))
    return shown


def _misshown(expected: Page, found: Page, *, whole: bool) -> str:
    """The first table or array that is another one; unless `whole`, jobs may be left out, as run.json says."""
    for right, run in zip(expected, found, strict=True):
        for name, rows in run["tables"].items():
            known = right["tables"].get(name, [])
            if (rows or known) and rows != known and (whole or any(row not in known for row in rows)):
                return f"table {name}: {written.first_difference(known, rows)}"
        for job, arrays in run["arrays"].items():
            if arrays != right["arrays"].get(job):
                return f"arrays of {job}"
    return ""


# ---- mutations -----------------------------------------------------------------------------------------------------


def _results(run: Path) -> list[Path]:
    return sorted((run / "results").glob("*.json"))


def _number(draw: random.Random, run: Path) -> str:
    """One digit of a number in a result: still JSON, still plausible."""
    path = draw.choice(_results(run))
    text = path.read_text(encoding="utf-8")
    begin = text.find('"tables"')
    digits = [m.start() for m in re.finditer(r"\d", text) if m.start() > begin and not _in_seconds(text, m.start())]
    at = draw.choice(digits)
    other = draw.choice([d for d in "123456789" if d != text[at]])
    path.write_text(text[:at] + other + text[at + 1 :], encoding="utf-8")
    return f"{path.name}: {text[at]} became {other} at {at}: {text[max(0, at - 30) : at + 5].strip()!r}"


def _in_seconds(text: str, at: int) -> bool:
    """Whether this digit is of a time or a version, which are no results, or within a text or a key."""
    line = text[text.rfind("\n", 0, at) + 1 : text.find("\n", at)]
    return bool(
        re.match(r'\s*"(seconds|versions|python|torch|numpy|scipy|powerlaw|safetensors|transformers|tdmoe)', line)
    )


def _array(draw: random.Random, run: Path) -> str:
    """A value of an array beside a result."""
    paths = sorted((run / "results").glob("*.safetensors"))
    if not paths:
        return _number(draw, run)
    path = draw.choice(paths)
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    full = [name for name, array in arrays.items() if array.size and array.dtype.kind == "f"]
    if not full or draw.random() < 0.3:
        return damage_bytes(draw, path)
    name = draw.choice(sorted(full))
    place = draw.randrange(arrays[name].size)
    arrays[name].flat[place] = draw.choice((0.0, 1e9, float("nan"), arrays[name].flat[place] * 1.001 + 1e-9))
    path.write_bytes(save(arrays))
    return f"{path.name}: {name}[{place}] changed"


def _result_json(draw: random.Random, run: Path) -> str:
    return damage_json(draw, draw.choice(_results(run)))


def _manifest(draw: random.Random, run: Path) -> str:
    return damage_json(draw, run / "run.json")


def _any_bytes(draw: random.Random, run: Path) -> str:
    paths = [path for path in sorted(run.rglob("*")) if path.is_file() and path.name != ".lock"]
    return damage_bytes(draw, draw.choice(paths))


def _table(draw: random.Random, run: Path) -> str:
    """A table is made from the results whenever the command runs."""
    paths = sorted((run / "tables").glob("*.csv"))
    return damage_bytes(draw, draw.choice(paths))


def _exchanged(draw: random.Random, run: Path) -> str:
    """One job's result under the name of another."""
    first, second = draw.choice(_results(run)), draw.choice(_results(run))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    return f"{first.name} and {second.name} exchanged"


def _foreign(draw: random.Random, run: Path) -> str:
    name = draw.choice(("results/x.json", "results/.x.json.1.tmp", "tables/x.csv", "figures/x.svg", "errors/x.txt"))
    name = draw.choice((name, ".run.json.77.tmp", "parts/x", "report.html", ".lock", "tables", "results", "errors"))
    path = run / name
    if path.is_dir():
        moved = path.with_name(path.name + "-moved")
        path.rename(moved)
        path.symlink_to(moved.name)
        return f"{name} is a link to a folder"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw.choice((b"", b"{}", b"\xff", b'{"job": "x", "tables": {}, "arrays": [], "seconds": 1}')))
    return f"a foreign {name}"


Mutation = Callable[[random.Random, Path], str]
MUTATIONS: tuple[Mutation, ...] = (
    *(_number, _number, _number, _array, _array, _result_json, _result_json, _result_json, _manifest, _manifest),
    *(_any_bytes, _table, _exchanged, _foreign),
)
