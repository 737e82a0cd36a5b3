"""Run cases, each in a child forked from a process that has imported all of it, and write down what came out.

Of each, in recorded/KIND/NAME/: `said.txt` (line, exit code, stdout, stderr), and where it wrote files, `files.csv`
(their names, and norms and digests of their tensors), `tables/` of its run without the columns of seconds, `notes.txt`,
and of `report` the words of its page.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import html
import importlib
import io
import json
import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from campaigns.forked import Ended, forked

from golden.cases import Case

SECONDS = 300.0
MODULES = "modules"
SLOW = ("torch", "transformers", "safetensors.torch", "scipy.stats", "seaborn", "powerlaw", "accelerate", "tokenizers")
FIT = "fit"  # array of a fit: evaluations, seconds, error
INVENTORY = ("file", "files", "tensors", "norm", "sha256")
KEPT = re.compile(r"^(runs/.*?-)ID/.*")
CHANGING = (  # what follows from where a run is, and when
    (re.compile(r"-[0-9a-f]{8}\b"), "-ID"),
    (re.compile(r"\b\d+(\.\d+)? ?(s|min|seconds?)\b"), "N s"),
    (re.compile(r"\b\d+:\d\d(:\d\d)?\b"), "N:N"),
    (re.compile(r"(Peak memory of commands.*?:).*"), r"\1 N GB"),
)


def record(cases: Iterable[Case], home: Path, to: Path) -> None:
    """Make the world in `home`, run the cases there, and write them into `to`."""
    home.mkdir(parents=True)
    for name in SLOW:  # by no child first
        importlib.import_module(name)
    ended = forked(lambda: _noting_modules(home, lambda: _make(home)), home, SECONDS)
    if ended.code:
        raise RuntimeError(f"the models and texts were not made: {ended.err}")
    _import_noted(home)
    for case in cases:
        _write(case, _run(case, home), home, to / case.key)


def _make(home: Path) -> None:
    from golden import world

    world.make(home)


def _run(case: Case, home: Path) -> Ended:
    (home / case.folder).mkdir()

    def call() -> None:
        sys.argv = ["tdmoe-diag", *case.line.split()]
        from diag.start import main

        main()

    ended = forked(lambda: _noting_modules(home, call), home / case.folder, SECONDS)
    _import_noted(home)
    return ended


def _noting_modules(home: Path, call: Callable[[], object]) -> None:
    """`call()` without waiting for disks, and then the names of all that was imported."""
    os.fsync = lambda descriptor: None
    try:
        call()
    finally:
        (home / MODULES).write_text("\n".join(sys.modules), encoding="utf-8")


def _import_noted(home: Path) -> None:
    """What a child imported is imported here, so that later children find it."""
    for name in (home / MODULES).read_text(encoding="utf-8").split("\n"):
        if name not in sys.modules and name != "__main__":
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _write(case: Case, ended: Ended, home: Path, to: Path) -> None:
    shutil.rmtree(to, ignore_errors=True)
    folder = home / case.folder
    said = [f"$ tdmoe-diag {case.line}", f"exit code {ended.code}"]
    said += [
        f"--- {name}\n{steady(text, home)}" for name, text in (("stdout", ended.out), ("stderr", ended.err)) if text
    ]
    _put(to / "said.txt", "\n".join(said))
    if not any(folder.iterdir()):
        return
    _put(to / "files.csv", _csv(inventory(folder)))
    run = folder / "out" if (folder / "out").is_dir() else folder
    for table in sorted(run.glob("tables/*.csv")) or sorted(run.glob("runs/*/tables/*.csv")):
        _put(to / "tables" / table.name, without_seconds(table.read_text(encoding="utf-8")))
    notes = [f"{path.parent.relative_to(folder)}: {note}" for path in _manifests(run) for note in _notes(path)]
    if notes:
        _put(to / "notes.txt", steady("\n".join(notes), home))
    if case.line.startswith("report "):
        for page in folder.glob("*.html"):
            _put(to / "page.txt", steady(words(page.read_text(encoding="utf-8")), home))


def inventory(folder: Path) -> list[tuple[object, ...]]:
    """Every file, with the norm and a digest of its tensors; what commands keep for each other, by kind."""
    kept = (folder / "out").is_dir()
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = steady(path.relative_to(folder).as_posix(), folder)
        found[KEPT.sub(r"\1*", name) if kept else name].append(path)
    return [INVENTORY, *((name, len(paths), *_tensors(paths)) for name, paths in found.items())]


def _tensors(paths: Iterable[Path]) -> tuple[object, ...]:
    """How many tensors the files hold, the norm of all of them, and a digest of names, types, shapes and bytes."""
    import torch
    from safetensors.torch import load_file

    square, digests = 0.0, []
    for path in paths:
        for key, tensor in load_file(path).items() if path.suffix == ".safetensors" else ():
            if key == FIT:
                tensor = tensor[:, [0, 2]]
            raw = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            digests.append(hashlib.sha256(f"{key} {tensor.dtype} {list(tensor.shape)} ".encode() + raw).hexdigest())
            square += float(tensor.double().nan_to_num().square().sum())
    whole = hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()[:12]
    return (len(digests), f"{square**0.5:.9g}", whole) if digests else ("", "", "")


def _manifests(run: Path) -> list[Path]:
    return sorted([*run.glob("run.json"), *run.glob("runs/*/run.json")])


def _notes(path: Path) -> list[str]:
    return list(json.loads(path.read_text(encoding="utf-8"))["notes"])


def words(page: str) -> str:
    """The sentences of a page, an element a line, without figures and tables: these hold seconds and memory."""
    for kind in ("style", "script", "svg", "table"):
        page = re.sub(rf"<{kind}\b.*?</{kind}>", "", page, flags=re.DOTALL)
    page = html.unescape(re.sub(r"</?(?:b|i|a|em|strong|code|span|sub|sup|abbr|var)\b[^>]*>", "", page))
    lines = (" ".join(line.split()) for line in re.sub(r"<[^>]*>", "\n", page).split("\n"))
    return "\n".join(line for line in lines if line)


def steady(text: str, home: Path) -> str:
    """Without paths of this machine, times, and spaces at the ends of lines."""
    from importlib.metadata import version

    text = text.replace(str(home), "HOME").replace(version("tdmoe-diag"), "VERSION")
    for pattern, word in CHANGING:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").split("\n"))


def without_seconds(table: str) -> str:
    """The CSV without the columns that hold seconds."""
    rows = list(csv.reader(io.StringIO(table)))
    kept = [n for n, column in enumerate(rows[0]) if "seconds" not in column] if rows else []
    return _csv([row[n] for n in kept] for row in rows)


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8", newline="\n")
