"""Byte ranges of files on the hub, several at a time, through whatever a network does to them."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from threading import Event, Lock
from typing import Any, TypeVar

from huggingface_hub import hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from diag.models.transfers import BrokenTransfer, HTTPError, Patience, session, timeout

TRANSIENT = (408, 429, 500, 502, 503, 504)
RETRIES = 6
LONGEST_PAUSE = 60.0  # seconds
CHUNK = 1 << 20
RANGE = re.compile(r"bytes (?P<first>[0-9]{1,19})-[0-9]{1,19}/(?P<size>[0-9]{1,19}|\*)", re.ASCII)
NOTHING_KNOWN: Mapping[str, int] = {}

Result = TypeVar("Result")


def retrying(call: Callable[[], Result], unanswered: int = RETRIES, patience: Patience | None = None) -> Result:
    """`call()`, again after a pause while it fails for reasons that pass.

    `unanswered` times where nobody answers, and only while there is `patience`: `call()` may have tries of its own.
    """
    for attempt in range(RETRIES):
        try:
            return call()
        except HTTPError as error:
            silent, over = status(error) is None, patience is not None and patience.over()
            if not passes(error) or (silent and (attempt >= unanswered or over)):
                raise
            if patience is not None and not silent:
                patience.renew()
            time.sleep(pause(error, attempt))
    return call()


def passes(error: Exception) -> bool:
    """Tell whether the same request may succeed later: a lost connection, a busy server."""
    return status(error) in (None, *TRANSIENT)


def status(error: Exception) -> int | None:
    """The HTTP status, None where there was no answer."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def pause(error: Exception, attempt: int) -> float:
    """Seconds to wait: what the server asks for, otherwise 1, 2, 4, ... with jitter, so that clients spread."""
    response = getattr(error, "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    wait = float(asked) if asked.isdecimal() else 2.0**attempt * (0.5 + random.random())
    return min(wait, LONGEST_PAUSE)


def _check(response: Any, offset: int, size: int | None) -> None:
    """BrokenTransfer unless what comes are the file's own bytes from `offset` on, or the whole file."""
    if (encoding := response.headers.get("Content-Encoding", "identity")).lower() not in ("identity", ""):
        raise BrokenTransfer(f"the range comes encoded as {encoding[:20]}")
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        if size is not None and length.isdecimal() and int(length) != size:
            raise BrokenTransfer(f"{int(length):,} bytes come for a file of {size:,}")
        return
    said = response.headers.get("Content-Range", "")
    found = RANGE.fullmatch(said)
    if not found or int(found["first"]) != offset or (size is not None and found["size"] not in ("*", str(size))):
        whole = "" if size is None else f" of {size}"
        raise BrokenTransfer(f"Content-Range {said[:60]!r} comes for the bytes from {offset} on{whole}")


class RangeReader:
    """Ranges of the files of one commit, in several threads. After `close` no read waits for another try."""

    def __init__(self, repo: str, commit: str, sizes: Mapping[str, int] = NOTHING_KNOWN) -> None:
        """`sizes` of the files, as the hub lists them."""
        self._repo, self._commit, self._sizes = repo, commit, sizes
        self._locations: dict[str, str] = {}  # where the hub has redirected to, for as long as that is valid
        self._lock = Lock()
        self._closed = Event()

    def read(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`; a broken transfer goes on at the byte where it broke. EOFError where the file is shorter."""
        target, done, failures = buffer.cast("B"), 0, 0
        hub = hf_hub_url(self._repo, file, revision=self._commit)
        while done < target.nbytes:
            location = self._locations.get(file, hub)
            try:
                for chunk in self._stream(location, hub, file, offset + done, target.nbytes - done):
                    target[done : done + len(chunk)] = chunk
                    done, failures = done + len(chunk), 0
                if done < target.nbytes:
                    raise EOFError(f"{file}: ends {target.nbytes - done} bytes early")
            except HTTPError as error:
                moved = location != hub and status(error) in (401, 403, 404)  # a signed address expires
                self._forget(file, location)
                if failures >= RETRIES or not (moved or passes(error)):
                    raise
                if not moved and self._closed.wait(pause(error, failures)):
                    raise
                failures += 1

    def close(self) -> None:
        self._closed.set()

    def _stream(self, location: str, hub: str, file: str, offset: int, count: int) -> Iterator[bytes]:
        headers = {} if location != hub else build_hf_headers()  # the token is for the hub alone
        headers |= {"Range": f"bytes={offset}-{offset + count - 1}", "Accept-Encoding": "identity"}
        with session().stream("GET", location, headers=headers, follow_redirects=True, timeout=timeout()) as response:
            if response.status_code == 416:
                return
            hf_raise_for_status(response)
            _check(response, offset, self._sizes.get(file))
            with self._lock:
                self._locations[file] = str(response.url)
            skip = offset if response.status_code == 200 else 0  # the server sends the whole file
            for chunk in response.iter_raw(CHUNK):
                part, skip = chunk[skip:], max(0, skip - len(chunk))
                part = part[:count]
                count -= len(part)
                if part:
                    yield part
                if not count:
                    return

    def _forget(self, file: str, location: str) -> None:
        """Ask the hub anew where `file` lies, unless another thread has done so meanwhile."""
        with self._lock:
            if self._locations.get(file) == location:
                del self._locations[file]
