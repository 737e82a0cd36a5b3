"""Files that are either whole or absent: written beside their place, flushed to disk, then renamed into it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")  # of a file NAME, by a process; any other .tmp is somebody else's


def write_bytes(path: Path, data: bytes) -> None:
    """Write atomically: a reader, or a crash, sees the old file or the new one, never a part."""
    write_pieces(path, [data])


def write_pieces(path: Path, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
    """`write_bytes` of pieces that are made one after the other. An OSError names the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, pieces)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names none
        raise


def _write(path: Path, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
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


def is_leftover(path: Path, name: str | None = None) -> bool:
    """Tell whether a process that was killed while it wrote (of file `name`) left this behind."""
    found = TEMPORARY.fullmatch(path.name)
    return found is not None and name in (None, found["name"]) and path.is_file() and not path.is_symlink()


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete them; a folder that is not there has none."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_leftover(path, name):
            path.unlink(missing_ok=True)
