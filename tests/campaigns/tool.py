"""`tdmoe-diag` in a forked child that has imported everything, and what may not be in its answer."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from campaigns.forked import Ended, forked

SECONDS = 12.0  # a case at pico size takes less than two
LONGEST = 300  # characters of a message
MEMORY = 1500 << 20  # bytes; a child begins with what is imported, about a third of that
ADDRESS_SPACE = 8 << 30
MODULES = ".modules"


class Fault(NamedTuple):
    """What was wrong with an answer; `kind` is what the summary counts."""

    kind: str
    said: str


def attempt(
    arguments: Sequence[str],
    folder: Path,
    *,
    seconds: float = SECONDS,
    prepare: Callable[[], object] = lambda: None,
    send: tuple[int, float] | None = None,
) -> Ended:
    """The command in the working folder `folder`, which is made; `prepare()` is called in the child before it."""
    folder.mkdir(parents=True, exist_ok=True)
    command()

    def call() -> None:
        _limit()
        _plain_page()
        os.fsync = lambda descriptor: None  # a killed process loses nothing that it wrote; only a lost machine does
        prepare()
        sys.argv = ["tdmoe-diag", *arguments]
        from diag.cli.app import main

        main()

    return forked(call, folder, seconds, send)


def learn(arguments: Sequence[str], folder: Path, *, prepare: Callable[[], object] = lambda: None) -> Ended:
    """`attempt`, and what it imported is imported here, so that later children find it."""
    modules = folder.with_name(folder.name + MODULES)

    def listening() -> None:
        prepare()
        real = os._exit

        def leave(code: int) -> None:
            modules.write_text("\n".join(sys.modules), encoding="utf-8")
            real(code)

        os._exit = leave  # type: ignore[assignment]

    ended = attempt(arguments, folder, seconds=120, prepare=listening)
    for name in modules.read_text(encoding="utf-8").split("\n"):
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    modules.unlink()
    return ended


@cache
def command() -> Any:
    """The command line built once: every call would build all of it, a third of the time of a small case."""
    import typer.main

    from diag.cli.app import app

    built = typer.main.get_command(app)
    typer.main.get_command = lambda _: built  # type: ignore[assignment]
    return built


def _limit() -> None:
    """Absurd sizes must not take the machine's memory."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))


def _plain_page() -> None:
    """Figures take seconds: the page is the runs as JSON instead, written where and how the real one is."""
    import json

    from diag import pages
    from reports.sections import Opening

    def render(runs: Any, figures: Any = None, missing: Any = (), opened: Any = None) -> str:
        shown = [{"tables": run["tables"], "jobs": run["jobs"], "arrays": _plain(run["arrays"])} for run in runs]
        return json.dumps(shown, sort_keys=True, default=str)

    pages.render = render
    pages.figures_for = lambda run: []
    pages.figures_of = lambda runs: []
    pages.opening = lambda runs: Opening([], [])


def _plain(arrays: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {job: {name: array.tolist() for name, array in found.items()} for job, found in arrays.items()}


def refused(ended: Ended) -> bool:
    return ended.code in (1, 2)


def faults_of(ended: Ended, home: Path) -> list[Fault]:
    """What no answer may be: no end, a traceback, an error of ours in place of a message, a message too long."""
    said = (ended.out + ended.err).replace(str(home), ".")
    if ended.hung:
        return [Fault("hang", f"no end after {ended.seconds:.0f} s; last: {said[-200:]!r}")]
    if "Traceback" in said:
        return [Fault("traceback", said.strip().rsplit("\n", 1)[-1][:300])]
    if ended.code not in (0, 1, 2):
        return [Fault("exit code", f"{ended.code}: {said[-300:]!r}")]
    found = []
    if internal := re.search(r"^.*\(see (\S*/)?errors/.*$", said, re.MULTILINE):
        found.append(Fault("internal error", internal[0][:300]))
    errors = ended.err.replace(str(home), ".")
    if ended.code and not said.strip():
        found.append(Fault("no message", f"exit code {ended.code} without a word"))
    longest = max(errors.split("\n"), key=len)
    if ended.code and len(longest) > LONGEST:
        found.append(Fault("long message", f"{len(longest)} characters: {longest[:300]}"))
    if ended.peak_bytes > MEMORY:
        found.append(Fault("memory", f"{ended.peak_bytes / 1e9:.1f} GB"))
    return found
