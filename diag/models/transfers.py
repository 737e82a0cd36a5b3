"""Transfers from the hub, watched: one that crawls is broken off, and an answer held in memory stays small.

A crawling transfer is one that brings fewer than SLOWEST bytes a second while it is waited for `timeout()` seconds. It
is tried again like any broken one, as often as RETRIES says, then given up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import import_module
from threading import Thread
from typing import Any, TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session

HTTPError: type[Exception] = HfHubHTTPError.__mro__[1]  # of the HTTP library that this huggingface_hub uses
SLOWEST = 1000  # bytes a second
LARGEST = 100_000_000  # bytes of an answer in memory, unpacked; the listing of 1,000 shards takes 300 kB
WHOLE = 6  # times `timeout()` that a whole answer in memory may take

Result = TypeVar("Result")
_http: Any = import_module(HTTPError.__module__.partition(".")[0])


class BrokenTransfer(HTTPError):  # type: ignore[misc, valid-type]
    """Failure of a transfer: what came is not what was asked for, or came too slowly."""


def timeout() -> float:
    """Seconds that a silent server is waited for: the user's HF_HUB_DOWNLOAD_TIMEOUT, 10 by default."""
    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


def session() -> Any:
    """The HTTP session of huggingface_hub, which watches every answer, whoever asks."""
    found = get_session()
    if _watch not in (hooks := found.event_hooks)["response"]:
        found.event_hooks = {**hooks, "response": [*hooks["response"], _watch]}
    return found


def whole(call: Callable[[], Result]) -> Result:
    """`call()`, an answer in memory; BrokenTransfer where it is not there in time, however slowly it trickles."""
    found: list[Result] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(call())
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=work, name="tdmoe-hub", daemon=True)
    thread.start()
    thread.join(limit := WHOLE * timeout())
    if failed:
        raise failed[0]
    if not found:
        raise BrokenTransfer(f"no whole answer in {limit:.0f} s")
    return found[0]


class Patience:
    """Patience with a hub that answers nothing, or crawls, however often asked; an answer of any status renews it."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._began, self._came = time.monotonic(), 0

    def came(self, count: int) -> None:
        """Count so many bytes. BrokenTransfer where it is over: huggingface_hub itself asks again after every byte."""
        self._came += count
        if self._came >= SLOWEST * WHOLE * timeout():
            self.renew()
        if self.over():
            raise BrokenTransfer(f"only {self._came:,} bytes in {time.monotonic() - self._began:.0f} s")

    def over(self) -> bool:
        return time.monotonic() - self._began > WHOLE * timeout()


def _watch(response: Any) -> None:
    """A hook of the session, before the body is read."""
    response.stream = _Watched(response.stream)
    if "/api/" not in response.request.url.path:
        return
    content = bytearray()
    for part in response.iter_bytes():  # unpacked as it comes
        content += part
        if len(content) > LARGEST:
            response.close()
            raise BrokenTransfer(f"an answer of more than {LARGEST:,} bytes")
    response._content = bytes(content)


class _Watched(_http.SyncByteStream):  # type: ignore[misc]
    """A body with the speed at which it comes."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        waited, came, parts = 0.0, 0, iter(self._body)
        while True:
            before = time.monotonic()
            part = next(parts, None)
            waited += time.monotonic() - before
            if part is None:
                return
            came += len(part)
            if waited >= timeout():
                if came < SLOWEST * waited:
                    raise BrokenTransfer(f"only {came:,} bytes in {waited:.0f} s")
                waited, came = 0.0, 0
            yield part

    def close(self) -> None:
        self._body.close()
