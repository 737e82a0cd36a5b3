"""Text and JSON files that are either whole or absent, read where they are files, and the lock of a folder."""

from __future__ import annotations

import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from tdmoe.checkpoint import json_text
from tdmoe.checkpoint.atomic import write_bytes


def lock(path: Path) -> BinaryIO | None:
    """Hold `path` against other processes until the file returned is closed; None if another one holds it.

    The system frees it when the process ends, however it ends. Where there is no flock, nothing is held.
    """
    file = open(path, "ab", opener=_regular)  # noqa: SIM115  held until it is closed
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        pass
    except BlockingIOError:
        file.close()
        return None
    return file


def open_file(path: Path) -> BufferedReader:
    """Open a file to read. OSError where something else is there: a pipe would be waited for without end."""
    return open(path, "rb", opener=_regular)


def read_json(path: Path) -> Any:
    """OSError where it cannot be read, ValueError where it is no JSON."""
    with open_file(path) as file:
        return json_text.parse(file.read())


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of JSON; NaN and infinity are refused, since a table must hold numbers or nothing."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def _regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "is not a regular file", path)
    return descriptor
