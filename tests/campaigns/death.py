"""A process that ends itself at its n-th change of a file below a folder: as a kill, without any cleaning up."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

KILLED = 137  # the exit code that a shell shows for SIGKILL
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


class Changes:
    """Counts what changes files below `root`; at number `fatal` the process is gone before the change is made.

    A file that is flushed counts too: the process is gone then with all of it written, or with `torn` only half; and
    `torn` at the opening of a file leaves it empty.
    """

    def __init__(self, root: Path, fatal: int = -1, *, torn: bool = False) -> None:
        self.count, self._fatal, self._torn = 0, fatal, torn
        self._root = os.path.realpath(root)
        self._owner = os.getpid()
        os.fsync = self._flush  # type: ignore[assignment]
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
            if (isinstance(flags, int) and flags & writes) or (isinstance(mode, str) and set(mode) & set("wax+")):
                self._change(path, emptied=isinstance(flags, int) and bool(flags & os.O_TRUNC))
        elif event in CHANGES:
            self._change(arguments[0])

    def _change(self, path: object, *, emptied: bool = False) -> None:
        if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self._root):
            if self._torn and emptied and self.count + 1 == self._fatal and os.getpid() == self._owner:
                self.count += 1  # the opening below is heard too
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
                os._exit(KILLED)
            self._next()

    def _flush(self, descriptor: int) -> None:
        if self._fatal == self.count + 1 and self._torn and stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        self._next()

    def _next(self) -> None:
        if os.getpid() != self._owner:
            return
        self.count += 1
        if self.count == self._fatal:
            os._exit(KILLED)
