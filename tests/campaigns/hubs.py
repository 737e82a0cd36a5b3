"""A hub on loopback that answers wrongly: ranges, lengths, encodings, redirects, silence, content that changes."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hub_server
import huggingface_hub.utils

from campaigns import written
from campaigns.frame import REFUSED, RIGHT, Verdict
from campaigns.mutations import WEIRD, as_text, changed_json
from campaigns.pico import Bench
from campaigns.tool import Fault, attempt, faults_of, learn, refused

REPO = "acme/Pico-MoE"
SECONDS = 30  # of a case: every silence is waited for several times
PATIENCE = 0.25  # seconds that a silent server is waited for
BOMB = 1 << 30  # bytes that a small answer unpacks to
STATUSES = (200, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 408, 410, 416, 418, 429, 451, 500, 502, 503, 504)

# what an answer is about to be: status, headers, body; and whether the connection is cut after it
Change = Callable[[int, dict[str, str], bytes], tuple[int, dict[str, str], bytes]]


_open: list[Any] = []


class Hubs:
    name, share = "hubs", 0.06

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        huggingface_hub.utils.get_session()  # reading all certificates takes longer than a small case
        common = ["--model", REPO, "--out", "run", "--quiet", "--layers", "2", "--projections", "up"]
        self.commands = {
            "remote": ["spectra", *common, "--remote"],
            "fetched": ["spectra", *common],
            "round": ["compress", *common, "--method", "rtn:bits=4", "--tokens", "0", "--to", "small"],
        }
        self.expected: dict[str, tuple[written.Tables, dict[str, str]]] = {}

    def case(self, draw: random.Random, folder: Path) -> Verdict:
        name = draw.choice(("remote", "remote", "fetched", "round"))
        tables, weights = self._expected(name)
        drawn = draw.choice(FAULTS)
        done, change = drawn(draw)
        where = (
            "/cdn/"
            if drawn in OF_WEIGHTS and draw.random() < 0.7
            else draw.choice(
                (r"/cdn/.*safetensors", r"/cdn/", r"/resolve/", r"/api/models", r"config\.json", "index", "")
            )
        )
        first, times = draw.randrange(4), draw.choice((1, 1, 3, 10**6))
        fault = _Fault(where, first, times, change)
        ended = attempt(
            self.commands[name], folder / "work", seconds=SECONDS, prepare=lambda: _serve(self.bench, folder, fault)
        )
        done = f"{name}, {done} to {where or 'anything'}, {times} times from number {first}"
        faults, said = faults_of(ended, folder), " ".join(self.commands[name])
        if refused(ended) or faults:
            return Verdict(done, REFUSED, faults, command=said)
        faults = written.differences(tables, written.tables(folder / "work"))
        changed = written.changed(weights, written.weights(folder / "work"))
        faults += [Fault("wrong number", f"{path}: other bytes") for path in changed]
        return Verdict(done, RIGHT, [Fault(f"silent {kind}", text) for kind, text in faults], command=said)

    def _expected(self, name: str) -> tuple[written.Tables, dict[str, str]]:
        if name not in self.expected:
            folder = self.bench.home / f"hub-{name}-{os.getpid()}"
            folder.mkdir()
            harmless = _Fault("nothing", 0, 0, lambda *answer: answer)
            serve = lambda: _serve(self.bench, folder, harmless)  # noqa: E731
            ended = learn(self.commands[name], folder / "work", prepare=serve)
            assert ended.code == 0, f"{name}: {ended}"
            self.expected[name] = written.tables(folder / "work"), written.weights(folder / "work")
            shutil.rmtree(folder)
        return self.expected[name]


class _Fault:
    """Changes answers to requests that match: so many of them, after the first few."""

    def __init__(self, where: str, first: int, times: int, change: Change) -> None:
        self.where, self.first, self.last, self.change = where, first, first + times, change
        self.seen = 0

    def of(self, request: str) -> Change | None:
        if not re.search(self.where, request):
            return None
        self.seen += 1
        return self.change if self.first < self.seen <= self.last else None


def _serve(bench: Bench, folder: Path, fault: _Fault) -> None:
    """In the child: a hub in threads of its own, and huggingface_hub pointed at it, with short waits."""
    import huggingface_hub.constants as constants
    import huggingface_hub.file_download
    import huggingface_hub.hf_api

    import diag.models.remote

    class Handler(hub_server._Handler):
        def _send(self, request: str, status: int, body: bytes, headers: dict[str, str], *broken: Any) -> None:
            change = fault.of(request)
            if change is None:
                super()._send(request, status, body, headers, *broken)
                return
            status, headers, body = change(status, dict(headers), body)
            self.close_connection = True
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                if not name.startswith("-"):
                    self.send_header(name, value)
            self.end_headers()
            body = b"" if self.command == "HEAD" else body
            if "-Cut" in headers:
                body = body[: int(headers["-Cut"])]
            if "-Slow" in headers:
                step = max(1, len(body) // 8)
                for at in range(0, len(body), step):
                    self.wfile.write(body[at : at + step])
                    self.wfile.flush()
                    time.sleep(float(headers["-Slow"]))
            else:
                self.wfile.write(body)
            if "-Silent" in headers:
                self.hub.released.wait(float(headers["-Silent"]))

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client went away, as it may
                super().handle()

    hub_server._Handler = Handler  # type: ignore[misc]
    _open.append(hub_server.serving())  # until the process ends
    hub = _open[0].__enter__()
    hub.publish(REPO, bench.model)
    constants.ENDPOINT = hub.endpoint
    constants.HF_HUB_OFFLINE = False
    constants.HUGGINGFACE_CO_URL_TEMPLATE = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    constants.HF_HUB_CACHE = str(folder / "hub")
    constants.HF_HUB_DOWNLOAD_TIMEOUT = PATIENCE
    constants.HF_HUB_ETAG_TIMEOUT = PATIENCE
    huggingface_hub.hf_api.api.endpoint = hub.endpoint
    diag.models.remote.pause = lambda *_: 0.0  # type: ignore[assignment]
    for module in (huggingface_hub.utils._http, huggingface_hub.file_download):
        module.time = _Quick()  # type: ignore[assignment]


class _Quick:
    """`time` whose sleep is short."""

    def __getattr__(self, name: str) -> Any:
        return (lambda seconds: None) if name == "sleep" else getattr(time, name)


# ---- what goes wrong: words, and the change to an answer ------------------------------------------------------------

Drawn = Callable[[random.Random], tuple[str, Change]]


def _status(draw: random.Random) -> tuple[str, Change]:
    status = draw.choice(STATUSES)
    body = draw.choice((b"", b"{}", b"<html>no</html>", b"\xff" * 200))
    extra = draw.choice(({}, {"Retry-After": "1"}, {"Retry-After": "x"}, {"X-Error-Code": "GatedRepo"}))
    return f"status {status} with {len(body)} bytes", lambda s, h, b: (status, {**h, **extra}, body)


def _body_at_status(draw: random.Random) -> tuple[str, Change]:
    status = draw.choice((200, 203, 206, 500))
    return f"the right body with status {status}", lambda s, h, b: (status, h, b)


def _range(draw: random.Random) -> tuple[str, Change]:
    """A part of the file other than the one that was asked for, said or not."""
    shift, told = draw.choice((-4096, -8, -2, 2, 8, 4096)), draw.choice((True, True, False))

    def change(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers.get("Content-Range", ""))
        moved = body[shift:] + body[:shift]
        if found and told:
            first = max(0, int(found[1]) + shift)
            headers["Content-Range"] = f"bytes {first}-{first + len(body) - 1}/{found[3]}"
            return status, headers, moved
        headers.pop("Content-Range", None)
        return (200 if found else status), headers, (body if found else moved)

    return f"a range shifted by {shift}, {'told' if told else 'as a whole file'}", change


def _range_header(draw: random.Random) -> tuple[str, Change]:
    value = draw.choice(
        ("", "bytes */10", "bytes 0-0/1", "bytes x-y/z", "bytes 5-1/9", "items 0-9/10", "bytes 0-99999999/100000000")
    )
    return f"Content-Range {value!r}", lambda s, h, b: (s, {**h, "Content-Range": value}, b)


def _length(draw: random.Random) -> tuple[str, Change]:
    shift = draw.choice((-100, -1, 1, 1000, 10**12))
    return f"Content-Length off by {shift}", lambda s, h, b: (
        s,
        {**h, "Content-Length": str(max(0, len(b) + shift))},
        b,
    )


def _cut(draw: random.Random) -> tuple[str, Change]:
    count = draw.choice((0, 1, 100, 5000))
    return f"cut after {count} bytes", lambda s, h, b: (s, {**h, "-Cut": str(count)}, b)


def _longer(draw: random.Random) -> tuple[str, Change]:
    count = draw.choice((1, 100, 10**6))
    return f"{count} bytes too many", lambda s, h, b: (s, h, b + bytes(count))


def _encoded(draw: random.Random) -> tuple[str, Change]:
    name = draw.choice(("gzip", "gzip", "deflate", "br", "identity", "x"))
    return f"Content-Encoding {name}", lambda s, h, b: (
        s, {**h, "Content-Encoding": name}, gzip.compress(b) if name == "gzip" else b
    )  # fmt: skip


def _bomb(draw: random.Random) -> tuple[str, Change]:
    packed = gzip.compress(bytes(1 << 20)) * (BOMB >> 20)
    return "a gzip bomb", lambda s, h, b: (s, {**h, "Content-Encoding": "gzip"}, packed)


def _slow(draw: random.Random) -> tuple[str, Change]:
    pause = draw.choice((0.01, 0.05, 0.2))
    return f"pieces every {pause} s", lambda s, h, b: (s, {**h, "-Slow": str(pause)}, b)


def _silent(draw: random.Random) -> tuple[str, Change]:
    count = draw.choice((0, 10))
    return f"silence after {count} bytes", lambda s, h, b: (s, {**h, "-Cut": str(count), "-Silent": "5"}, b)


def _redirect(draw: random.Random) -> tuple[str, Change]:
    place = draw.choice(("", "/", "http://127.0.0.1:9/x", "ftp://x/y", "file:///etc/passwd", "//", "http://[", "\x01"))
    status = draw.choice((301, 302, 307, 308))
    return f"redirect to {place!r}", lambda s, h, b: (status, {**h, "Location": place}, b"")


def _flipped(draw: random.Random) -> tuple[str, Change]:
    """A bit of the body: found where the hub lists a digest, so not in ranges, which nothing vouches for."""
    seed = draw.randrange(2**31)

    def change(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if status == 206 or not body:
            return status, headers, body
        changed = bytearray(body)
        changed[seed % len(body)] ^= 1 << seed % 8
        return status, headers, bytes(changed)

    return "a flipped bit", change


def _listing(draw: random.Random) -> tuple[str, Change]:
    """JSON of the hub with a value that is another."""
    seed = draw.randrange(2**31)

    def change(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        try:
            changed = changed_json(random.Random(seed), json.loads(body))[0]
        except (ValueError, IndexError):
            changed = random.Random(seed).choice(WEIRD)
        return status, headers, as_text(changed).encode("utf-8", "surrogatepass")

    return f"JSON changed by {seed}", change


def _named(draw: random.Random) -> tuple[str, Change]:
    name = draw.choice(("X-Repo-Commit", "ETag", "X-Linked-Size", "X-Linked-ETag", "Content-Type", "Transfer-Encoding"))
    value = draw.choice(("", "x", "0", "-1", "../../x", '"' + "0" * 64 + '"', "0" * 40, "a" * 5000))
    return f"{name}: {value[:20]!r}", lambda s, h, b: (s, {**h, name: value}, b)


OF_WEIGHTS = (_range, _range_header, _encoded, _bomb, _cut, _body_at_status)
FAULTS: tuple[Drawn, ...] = (
    *(
        _status,
        _status,
        _body_at_status,
        _range,
        _range,
        _range,
        _range_header,
        _length,
        _cut,
        _longer,
        _encoded,
        _bomb,
    ),
    *(_slow, _silent, _redirect, _flipped, _listing, _listing, _named, _named),
)
