"""A hub on loopback: the endpoints that huggingface_hub asks for models, with faults on demand.

Small files are served by the hub itself; shards are redirected to another host (`localhost` for `127.0.0.1`), as the
real one does, where the token must not arrive.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Fault:
    """What goes wrong for requests whose "METHOD path" matches, `times` times: an error status, or a broken body."""

    match: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body_bytes: int | None = None  # sent before the connection is closed
    stall: float = 0.0  # seconds of silence before it is closed
    body: bytes = b"{}"  # of an answer with `status`
    drip: float = 0.0  # seconds before every byte of the body
    shift: int = 0  # bytes by which the range that comes lies behind the one that was asked for
    times: int = 1


@dataclass
class Sent:
    request: str
    range: str | None
    status: int
    body: int = 0
    authorization: str | None = None


class Hub:
    """Repositories by id, each with revisions that are folders; `log` holds every answer."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Path]] = {}
        self.faults: list[Fault] = []
        self.log: list[Sent] = []
        self.lock = threading.Lock()
        self.port = 0
        self.released = threading.Event()  # ends every stall
        self.reads_a_signature = 0  # answers that one signed address gives before it expires; 0 for no limit
        self.signatures: list[int] = []  # answers that each has left

    def sign(self) -> int:
        with self.lock:
            self.signatures.append(self.reads_a_signature)
            return len(self.signatures) - 1

    def expired(self, path: str) -> bool:
        """Whether the signature of an address was used up; uses it once."""
        found = re.search(r"signed=(\d+)", path)
        if not found or not self.reads_a_signature:
            return False
        with self.lock:
            self.signatures[int(found[1])] -= 1
            return self.signatures[int(found[1])] < 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def publish(self, repo: str, folder: Path, revision: str = "main") -> str:
        """Make `folder` the content of a revision; the commit follows from the content."""
        self.repos.setdefault(repo, {})[revision] = folder
        digest = hashlib.sha1()
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        commit = digest.hexdigest()
        self.repos[repo][commit] = folder
        return commit

    def commit(self, repo: str, revision: str) -> str | None:
        revisions = self.repos[repo]
        if revision not in revisions:
            return None
        return next(name for name, path in revisions.items() if len(name) == 40 and path == revisions[revision])

    def shards_sent(self) -> dict[str, int]:
        """{shard: bytes of its body sent}."""
        totals: dict[str, int] = {}
        for sent in self.log:
            if sent.request.startswith("GET") and sent.request.endswith(".safetensors") and "/cdn/" in sent.request:
                name = sent.request.rsplit("/", 1)[1]
                totals[name] = totals.get(name, 0) + sent.body
        return totals

    def fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and re.search(fault.match, request):
                    fault.times -= 1
                    return fault
        return None


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client may give up at any time
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        fault = self.hub.fault(request)
        if fault and fault.status:
            self._send(request, fault.status, fault.body, fault.headers, drip=fault.drip)
        elif api := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path):
            self._model(request, api[1], api[2] or "main")
        elif file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(request, *file.groups(), fault)
        elif self.hub.expired(self.path):
            self._send(request, 403, b"{}", {})
        elif stored := re.fullmatch(r"/cdn/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
            self._body(request, (self.hub.repos[stored[1]][stored[2]] / stored[3]).read_bytes(), {}, fault)
        else:
            self._send(request, 404, b"{}", {})

    def _model(self, request: str, repo: str, revision: str) -> None:
        if repo not in self.hub.repos:
            self._send(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        commit = self.hub.commit(repo, revision)
        if commit is None:
            self._send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for path in sorted(self.hub.repos[repo][commit].iterdir()):
            data = path.read_bytes()
            row = {"rfilename": path.name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            if path.suffix == ".safetensors":
                row["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 135}
            siblings.append(row)
        info = {"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "tags": [], "private": False}
        self._send(request, 200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _file(self, request: str, repo: str, revision: str, name: str, fault: Fault | None) -> None:
        commit = self.hub.commit(repo, revision) if repo in self.hub.repos else None
        if commit is None:
            self._send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        path = self.hub.repos[repo][commit] / name
        if not path.is_file():
            self._send(request, 404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        data = path.read_bytes()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        if path.suffix != ".safetensors":
            self._body(request, data, headers, fault)
            return
        headers |= {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        signed = self.hub.sign()
        headers["Location"] = f"http://localhost:{self.hub.port}/cdn/{repo}/{commit}/{name}?signed={signed}"
        self._send(request, 302, b"", headers)

    def _body(self, request: str, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        wanted, status = self.headers.get("Range"), 200
        if wanted and (bounds := re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)):
            first, last = int(bounds[1]), int(bounds[2] or len(data) - 1)
            first += fault.shift if fault else 0
            if first >= len(data):
                self._send(request, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            data, status = data[first : last + 1], 206
        headers |= fault.headers if fault else {}
        self._send(request, status, data, headers, fault.body_bytes if fault else None, fault.drip if fault else 0.0)
        if fault:
            self.hub.released.wait(fault.stall)

    def _send(
        self,
        request: str,
        status: int,
        body: bytes,
        headers: dict[str, str],
        body_bytes: int | None = None,
        drip: float = 0.0,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        part = b"" if self.command == "HEAD" else body[:body_bytes]
        with self.hub.lock:
            where = self.headers.get("Range")
            self.hub.log.append(Sent(request, where, status, len(part), self.headers.get("Authorization")))
        try:
            for start in range(0, len(part), 1 if drip else max(1, len(part))):
                self.hub.released.wait(drip)
                self.wfile.write(part[start : start + 1] if drip else part)
        except OSError:  # given up
            self.close_connection = True
        if body_bytes is not None:
            self.close_connection = True
