"""Files of a checkpoint: names, sizes, and bytes by range. Here a folder on disk; elsewhere the hub.

Bytes are read into the caller's own buffer, not memory-mapped: the memory in use is what was asked for, on network
file systems too. They are read by position, so that several threads read at once.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

from tdmoe.problems import InputError

OPEN_FILES = 16  # a layer's experts rarely lie in more than three shards
SAMPLES, SAMPLE_BYTES = 128, 4096  # of the data in an identity
ADVICE_BYTES = 1 << 20  # the kernel reads little of a longer range ahead

Span = tuple[int, int]  # first byte, number of bytes


class Files(Protocol):
    """The files of one checkpoint. Methods raise OSError where a file cannot be read, EOFError where it is too short;
    `read` may run in several threads."""

    @property
    def name(self) -> str:
        """Name of the checkpoint in messages: a folder's, or a hub id."""

    @property
    def commit(self) -> str | None:
        """Commit of the repository that the files are from; None for a folder of no repository."""

    @property
    def unreachable(self) -> str | None:
        """Why only a part of the files can be had now; None where all can."""

    @property
    def parallel(self) -> int:
        """Number of reads at once that are worth having."""

    def names(self) -> list[str]:
        """All files of the checkpoint."""

    def size(self, file: str) -> int: ...

    def read(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes from `offset` on."""

    def stamp(self, file: str) -> tuple[int, int] | None:
        """Size and time of a file here; None of one elsewhere, which a commit holds as it is."""

    def will_need(self, file: str, offset: int, count: int) -> None:
        """A hint that these bytes are read next."""

    def missing(self, files: Iterable[str]) -> dict[str, int]:
        """{file: bytes} of those that `fetch` would have to bring here first."""

    def fetch(self, files: Iterable[str], on_bytes: Callable[[int], None]) -> None:
        """Bring `missing` files here; InputError when that fails."""

    def identity(self, file: str, spans: Sequence[Span]) -> str:
        """Changes whenever the bytes of `spans` may have changed."""

    def close(self) -> None:
        """Free what is held open; files can be read again afterwards."""


class LocalFiles:
    """A folder."""

    unreachable: str | None = None
    parallel = 4  # one read copies 2 to 4 GB/s out of the page cache, and an SSD wants several in flight

    def __init__(self, folder: Path, commit: str | None = None) -> None:
        self.folder, self.commit = folder.resolve(), commit
        self._open: OrderedDict[str, _Handle] = OrderedDict()
        self._lock = Lock()

    @property
    def name(self) -> str:
        return self.folder.name

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            raise InputError(
                "checkpoint", self.folder, "no such folder", "give a built-in name, a checkpoint folder or a hub id"
            )
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())

    def size(self, file: str) -> int:
        return (self.folder / file).stat().st_size

    def stamp(self, file: str) -> tuple[int, int] | None:
        try:
            found = (self.folder / file).stat()
        except OSError:  # gone
            return (-1, -1)
        return found.st_size, found.st_mtime_ns

    def read(self, file: str, offset: int, buffer: memoryview) -> None:
        target, handle = buffer.cast("B"), self._handle(file)
        while target.nbytes:
            count = handle.read(offset, target)
            if not count:
                raise EOFError(f"{file}: ends {target.nbytes} bytes early")
            offset, target = offset + count, target[count:]

    def will_need(self, file: str, offset: int, count: int) -> None:
        if not hasattr(os, "posix_fadvise"):
            return
        handle = self._handle(file)
        for start in range(offset, offset + count, ADVICE_BYTES):
            length = min(ADVICE_BYTES, offset + count - start)
            os.posix_fadvise(handle.descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def missing(self, files: Iterable[str]) -> dict[str, int]:
        return {}

    def fetch(self, files: Iterable[str], on_bytes: Callable[[int], None]) -> None:
        pass

    def identity(self, file: str, spans: Sequence[Span]) -> str:
        """Time of the file and up to 512 KiB sampled from the spans.

        Hashing all of a 60 GB model would cost as much as using it. An edit in place shows in the file's time; should
        that have been kept, training or merging shows in the samples.
        """
        digest = hashlib.sha256(f"{(self.folder / file).stat().st_mtime_ns}".encode())
        each = max(1, SAMPLES // len(spans))
        for start, count in spans:
            sample = bytearray(min(SAMPLE_BYTES, count))
            for i in range(each):
                self.read(file, start + (count - len(sample)) * (2 * i + 1) // (2 * each), memoryview(sample))
                digest.update(sample)
        return digest.hexdigest()

    def close(self) -> None:
        with self._lock:
            self._open.clear()

    def _handle(self, file: str) -> _Handle:
        """Open files are kept; one that falls out is closed when the last read of it ends."""
        with self._lock:
            if file not in self._open:
                self._open[file] = _Handle(self.folder / file)
                if len(self._open) > OPEN_FILES:
                    self._open.popitem(last=False)
            self._open.move_to_end(file)
            return self._open[file]


class _Handle:
    """An open file, closed when nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._lock = Lock()

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def read(self, offset: int, target: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.descriptor, [target], offset)
        with self._lock:  # Windows
            os.lseek(self.descriptor, offset, os.SEEK_SET)
            data = os.read(self.descriptor, target.nbytes)
        target[: len(data)] = data
        return len(data)
