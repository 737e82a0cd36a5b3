"""A call in a forked child: its exit code, what it wrote, and how long it took; whatever it does costs one child."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MEMORY = 3 << 30  # bytes that a child may touch beyond what its parent has


@dataclass(frozen=True)
class Ended:
    """`code` is the exit code, or minus the signal that ended it; `hung` where it had to be killed for time."""

    code: int
    out: str
    err: str
    seconds: float
    peak_bytes: int
    hung: bool = False


def forked(call: Callable[[], object], folder: Path, seconds: float, send: tuple[int, float] | None = None) -> Ended:
    """`call()` in a child of this process, in the working folder `folder`; `send` a signal after so many seconds.

    The parent must have no other threads.
    """
    out, err = folder.with_name(folder.name + ".out"), folder.with_name(folder.name + ".err")
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.set_inheritable(writer, True)  # `call` may become another program
        _act(call, folder, out, err)
    os.close(writer)
    hung = False
    try:
        if send is not None:
            hung = not _ends(reader, send[1])
            if hung:
                os.kill(child, send[0])
        hung = not _ends(reader, started + seconds - time.monotonic())
    finally:
        os.close(reader)
        if hung or sys.exc_info()[0] is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    said = [path.read_text(encoding="utf-8", errors="replace") if path.exists() else "" for path in (out, err)]
    return Ended(code, *said, time.monotonic() - started, 1024 * usage.ru_maxrss, hung)


def _ends(reader: int, seconds: float) -> bool:
    """Whether the child ends within that time: the pipe that it holds is closed then."""
    return bool(select.select([reader], [], [], max(0.0, seconds))[0])


def _act(call: Callable[[], object], folder: Path, out: Path, err: Path) -> None:
    """In the child; never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        for descriptor, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(folder)
        try:
            call()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
