"""Bars on stderr: a command's own, or those of a larger work that it is a part of, in one display.

with bars(*columns, quiet=False) as shown:           # a display of its own
    task = shown.bar.add_task("mini drift", total=9)

with display("compare", 5, quiet=False) as whole:    # what uses `bars` in here appears below one line
    with whole.part("drift"): ...
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from reports.formats import visible

COUNTED = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()


@dataclass(frozen=True)
class Shown:
    """Lines and bars, and where they go. `alone`: nothing larger is shown, so that every job's line has its place."""

    console: Console
    bar: Progress
    alone: bool

    def note(self, line: str) -> None:
        """A line above the bars."""
        self.console.print(visible(line), markup=False, soft_wrap=True)


class Display:
    """One line that counts parts, and below it whatever bars are shown inside."""

    def __init__(self, name: str, total: int, *, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._whole = Progress(*columns, console=self.console)
        self._name, self._task = name, self._whole.add_task(name, total=total)
        self._inner: list[Progress] = []
        self._live = Live(self._group(), console=self.console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, line: str) -> None:
        """A line above."""
        self.console.print(visible(line), markup=False, soft_wrap=True)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Say what is being done; counted when it ends, however that is."""
        self._whole.update(self._task, description=f"{self._name}: {name}")
        try:
            yield
        finally:
            self._whole.advance(self._task)

    @contextmanager
    def showing(self, bar: Progress) -> Iterator[None]:
        """Bars below the line, for a while."""
        self._inner.append(bar)
        self._live.update(self._group())
        try:
            yield
        finally:
            self._inner.remove(bar)
            self._live.update(self._group())

    def _group(self) -> Group:
        return Group(self._whole, *self._inner)


_DISPLAY: ContextVar[Display | None] = ContextVar("display", default=None)


def say(line: str) -> None:
    """A line on stderr, above what is shown of a larger work."""
    whole = _DISPLAY.get()
    if whole is None:
        print(line, file=sys.stderr, flush=True)
    else:
        whole.note(line)


@contextmanager
def display(name: str, total: int, *, quiet: bool) -> Iterator[Display]:
    """Until it ends, all `bars` of this process are shown in it."""
    with Display(name, total, quiet=quiet) as whole:
        before = _DISPLAY.set(whole)
        try:
            yield whole
        finally:
            _DISPLAY.reset(before)


@contextmanager
def bars(*columns: ProgressColumn, quiet: bool) -> Iterator[Shown]:
    """Bars with these columns, gone when they end."""
    whole = _DISPLAY.get()
    if whole is None:
        console = Console(stderr=True, quiet=quiet, highlight=False)
        with Progress(*columns, console=console, transient=True) as bar:
            yield Shown(console, bar, alone=True)
        return
    bar = Progress(*columns, console=whole.console)
    with whole.showing(bar):
        yield Shown(whole.console, bar, alone=False)
