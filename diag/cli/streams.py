"""Standard streams that nobody holds or reads: the work goes on, and what cannot be written is dropped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any

interruption_said: list[bool] = []  # not empty where a command has told of its Ctrl-C
files_saved: list[str] = []  # what a command that writes files has saved of its work, in words
_lost: list[str] = []  # why standard output could not be written


class Unread:
    """A text stream whose reader may go away (`| head`), or whose disk may be full."""

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Drop what is buffered, and all that follows: it must not raise again, at exit either."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if not isinstance(error, BrokenPipeError) and self._name == "stdout":
            _lost.append(error.strerror or str(error))


@contextmanager
def kept() -> Iterator[None]:
    """Standard streams that take whatever is written; files opened meanwhile never get their numbers.

    What a full disk dropped is told at the end; it is a failure (exit code 1) where it was all that the command made.
    """
    _lost.clear()
    files_saved.clear()
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a path that is not UTF-8 is printed as it is
    sys.stdout, sys.stderr = (  # type: ignore[assignment]
        Unread(open(os.devnull, "w") if stream is None else stream, name)  # noqa: SIM115  until the process ends
        for stream, name in zip(before, ("stdout", "stderr"), strict=True)
    )
    try:
        yield
    except SystemExit as end:
        sys.stdout.flush()
        if _lost:
            sys.stderr.write(f"tdmoe-diag: standard output: {'; '.join([_lost[0], *files_saved])}\n")
        if not _lost or files_saved or end.code:
            raise
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before
