"""A checkpoint on the Hugging Face hub: config, index and the shards that are needed, cached or read by byte range.

Everything goes through huggingface_hub, so its environment variables, token, cache and locks are the user's own. A
revision is resolved to a commit once, and every byte comes from that commit.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm

from diag.models.remote import RangeReader, retrying, status
from diag.models.transfers import HTTPError, Patience, session, timeout, whole
from tdmoe.checkpoint.files import LocalFiles, Span
from tdmoe.checkpoint.reader import CONFIG, INDEX
from tdmoe.problems import InputError

SLACK = 1 << 20  # bytes more than the hub lists, before a download is broken off
NONSENSE = (ValueError, KeyError, TypeError)  # what is raised of an answer that makes no sense
PARALLEL = 16  # a hub answers many requests at once, each with some delay


@dataclass(frozen=True, slots=True)
class _File:
    size: int
    sha256: str | None  # of files in large-file storage


class HubFiles:
    """Files of one commit of one repository: cached ones from disk, others by range until they are fetched.

    With `remote` nothing is ever stored. Without a network the cache is all there is, and `unreachable` says why.
    """

    def __init__(self, repo: str, revision: str | None = None, *, remote: bool = False) -> None:
        """Resolve the revision; InputError when there is no such model, no right to it, or neither hub nor cache."""
        self.name = repo
        self.remote = remote
        self.commit: str
        self.unreachable: str | None = None
        self._local: LocalFiles | None = None
        self._ranges = RangeReader(repo, "")
        try:
            info = retrying(lambda: self._ask(revision), unanswered=1)
        except (HTTPError, OSError, HFValidationError) as error:
            self._use_cache(revision, error)
            return
        except NONSENSE as error:
            refuse(error, repo)
        self.commit = str(info.sha)
        self._files = {
            s.rfilename: _File(s.size or 0, s.lfs.sha256 if s.lfs else None)
            for s in info.siblings or ()
            if "/" not in s.rfilename  # a checkpoint is flat; folders hold other formats of the same weights
        }
        self._ranges = RangeReader(repo, self.commit, {name: file.size for name, file in self._files.items()})
        if not remote:
            # by the revision's name and also when it is cached, so that offline the name leads to this commit
            self._download(CONFIG, revision or constants.DEFAULT_REVISION, again=True)
            self._download(INDEX, self.commit)

    @property
    def parallel(self) -> int:
        return PARALLEL if self.remote else LocalFiles.parallel

    def names(self) -> list[str]:
        return list(self._files)

    def size(self, file: str) -> int:
        return self._files[file].size

    def read(self, file: str, offset: int, buffer: memoryview) -> None:
        if self._cached(file):
            assert self._local is not None
            self._local.read(file, offset, buffer)
            return
        try:
            self._ranges.read(file, offset, buffer)
        except (HTTPError, *NONSENSE) as error:
            refuse(error, self.name, file)

    def stamp(self, file: str) -> tuple[int, int] | None:
        return self._local.stamp(file) if self._cached(file) and self._local is not None else None

    def will_need(self, file: str, offset: int, count: int) -> None:
        if self._cached(file) and self._local is not None:
            self._local.will_need(file, offset, count)

    def identity(self, file: str, spans: Sequence[Span]) -> str:
        return f"{self.name}@{self.commit}"

    def missing(self, files: Iterable[str]) -> dict[str, int]:
        """{file: bytes} that `fetch` would download."""
        return {} if self.remote else {file: self.size(file) for file in files if not self._cached(file)}

    def fetch(self, files: Iterable[str], on_bytes: Callable[[int], None]) -> None:
        """Download into the cache what is not there. InputError when it fails, or what came is not what was asked."""
        for file in self.missing(files):
            self._download(file, self.commit, on_bytes)

    def close(self) -> None:
        self._ranges.close()
        if self._local is not None:
            self._local.close()

    def _ask(self, revision: str | None) -> Any:
        session()
        return whole(lambda: HfApi().model_info(self.name, revision=revision, files_metadata=True, timeout=timeout()))

    def _cached(self, file: str) -> bool:
        path = try_to_load_from_cache(self.name, file, revision=self.commit)
        if not isinstance(path, str):
            return False
        if self._local is None:
            self._local = LocalFiles(Path(path).parent)
        return True

    def _download(
        self, file: str, revision: str, on_bytes: Callable[[int], None] = lambda count: None, *, again: bool = False
    ) -> None:
        if file not in self._files or (self._cached(file) and not again):
            return
        try:
            session()
            patience = Patience()
            reporting = _reporting(on_bytes, f"{self.name}/{file}", self.size(file), patience)
            path = retrying(
                lambda: hf_hub_download(self.name, file, revision=revision, tqdm_class=reporting), patience=patience
            )
        except InputError:
            raise
        except (HTTPError, OSError, *NONSENSE) as error:
            refuse(error, self.name, file)
        self._check(Path(path), file)

    def _check(self, path: Path, file: str) -> None:
        """Size and SHA-256 as the hub's own listing has them; a file that differs is deleted."""
        known, size = self._files[file], path.stat().st_size
        problem = f"{size:,} bytes, the hub lists {known.size:,}" if size != known.size else ""
        if not problem and known.sha256 is not None:
            with path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != known.sha256:
                    problem = "its SHA-256 is not the one that the hub lists"
        if problem:
            blob = path.resolve()
            path.unlink()
            blob.unlink(missing_ok=True)
            raise InputError(f"{self.name}/{file}: {problem}; the download was deleted, run the command again")

    def _use_cache(self, revision: str | None, error: Exception) -> None:
        offline = isinstance(error, OfflineModeIsEnabled) or (isinstance(error, HTTPError) and status(error) is None)
        if not offline:
            refuse(error, self.name, None, revision)
        why = (
            "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else f"no answer from the hub ({error})"
        )
        config = try_to_load_from_cache(self.name, CONFIG, revision=revision)
        if not isinstance(config, str):
            at = f" at revision {revision}" if revision else ""
            raise InputError(
                "model",
                self.name,
                f"no such folder here, not in the local Hugging Face cache{at} ({constants.HF_HUB_CACHE}), and {why}",
                f"connect, or fetch it where there is a network: hf download {self.name}",
            ) from error
        if self.remote:
            why += ", so that nothing can be read with --remote"
        self.unreachable, self.remote = why, False
        self.commit, self._local = Path(config).parent.name, LocalFiles(Path(config).parent)
        self._files = {file: _File(self._local.size(file), None) for file in self._local.names()}


def refuse(error: Exception, repo: str, file: str | None = None, revision: str | None = None) -> NoReturn:
    """Raise the InputError that says what the hub's answer means and what to do."""
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # what it found instead of the file
    what, code = f"{repo}/{file}" if file else f"--model {repo}", status(error)
    page = f"{constants.ENDPOINT}/{repo}"
    match error:
        case HFValidationError():
            reason = f"not a valid hub id ({error}); write OWNER/NAME"
        case GatedRepoError():
            reason = (
                f"access needs the owner's consent; accept the terms at {page}, then run hf auth login or set HF_TOKEN"
            )
        case RevisionNotFoundError():
            reason = f"the hub has no revision {revision!r} of it; give a branch, tag or commit that {page} lists"
        case RepositoryNotFoundError():
            reason = "the hub has no such model, or it is private; check the name, or run hf auth login or set HF_TOKEN"
        case _ if isinstance(error, EntryNotFoundError) or code == 404:
            reason = "the hub has no such file at this commit; check the model's page, or give another --revision"
        case OSError(errno=errno.ENOSPC):
            reason = f"no space left in {constants.HF_HUB_CACHE}; free some, set HF_HUB_CACHE, or use --remote"
        case _ if code in (401, 403):
            reason = (
                f"the hub refuses access (HTTP {code}); run hf auth login or set HF_TOKEN to a token with read access"
            )
        case _ if code == 429:
            reason = (
                "the hub limits the rate of requests (HTTP 429); wait some minutes, or run hf auth login to raise it"
            )
        case _ if isinstance(error, NONSENSE):
            reason = (
                f"what {constants.ENDPOINT} answers is not a hub's ({_first_line(error)}); check HF_ENDPOINT, HF_TOKEN "
                "and whether the network wants a login"
            )
        case _ if code is not None:
            reason = f"the hub answered HTTP {code} several times; check its status page, run the command again later"
        case _:
            reason = (
                f"the transfer failed ({_first_line(error)}); check the network, the same command goes on from there"
            )
    raise InputError(f"{what}: {reason}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def _reporting(on_bytes: Callable[[int], None], file: str, size: int, patience: Patience) -> Any:
    """A progress class for huggingface_hub that draws nothing and passes bytes on; InputError where they never end."""

    class Reporting(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **{**named, "disable": True})
            self._came = int(named.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            self._came += int(n or 0)
            if self._came > size + SLACK:
                raise InputError(f"{file}: more comes than the {size:,} bytes that the hub lists; check HF_ENDPOINT")
            patience.came(int(n or 0))
            on_bytes(int(n or 0))

    return Reporting
