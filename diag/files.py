"""Text and JSON files that are either whole or absent, and the lock of a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from tdmoe.atomic import write_bytes


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


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of JSON; NaN and infinity are refused, since a table must hold numbers or nothing."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
