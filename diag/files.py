"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed into it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO


def lock(path: Path) -> BinaryIO | None:
    """Hold `path` against other processes until the file returned is closed; None if another one holds it.

    The system frees it when the process ends, however it ends. Where there is no flock, nothing is held.
    """
    file = path.open("ab")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows
        pass
    except BlockingIOError:
        file.close()
        return None
    return file


def write_bytes(path: Path, data: bytes) -> None:
    """Write atomically: a reader, or a crash, sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself must reach the disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of JSON; NaN and infinity are refused, since a table must hold numbers or nothing."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
