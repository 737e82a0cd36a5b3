"""--model: a built-in name, a folder, a hub id or a known bare name, resolved to files that can be opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from diag.models.catalog import HUB_IDS
from reports.formats import visible
from tdmoe.checkpoint.files import Files, LocalFiles
from tdmoe.problems import InputError

BUILT_IN = {"mini": "assets/mini"}
CACHED = re.compile(r"models--([^/]+)--([^/]+)")  # a folder of the Hugging Face cache; its snapshots lie in it
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Model:
    """`name` is what tables and pages show (never a path); the files are in `folder`, or in `repo` on the hub."""

    name: str
    folder: Path | None = None
    repo: str = ""
    revision: str | None = None
    remote: bool = False
    commit: str | None = None  # of a folder that is a snapshot in the Hugging Face cache

    def files(self) -> Files:
        """Open them; InputError where the hub refuses or cannot be reached."""
        if self.folder is not None:
            return LocalFiles(self.folder, self.commit)
        from diag.models.hub import HubFiles

        return HubFiles(self.repo, self.revision, remote=self.remote)

    def pinned(self, files: Files) -> Model:
        """The same for another process: an absolute path, or the commit that `files` come from."""
        if self.folder is not None:
            return replace(self, folder=self.folder.absolute())
        return replace(self, revision=files.commit)


def resolve(text: str, revision: str | None = None, *, remote: bool = False) -> Model:
    """The model that `text` means, unopened; InputError says what was tried. A folder wins over a bare name."""
    if revision is not None and not revision.strip():
        raise InputError("revision", why="is empty", remedy="give a branch, tag or commit, or leave it out")
    if text in BUILT_IN:
        return _on_disk(text, Path(str(files("diag") / BUILT_IN[text])), revision, remote)
    if folder := _folder(text):
        return _in_folder(folder, revision, remote)
    if text.startswith(("/", ".", "~")):
        raise InputError("model", text, "no such folder", "give a checkpoint folder or a model name")
    if text in HUB_IDS or HUB_ID.fullmatch(text):
        repo = HUB_IDS.get(text, text)
        return Model(repo.split("/")[1], None, repo, revision, remote)
    known = {name.casefold(): name for name in (*BUILT_IN, *HUB_IDS)}
    near = get_close_matches(text.casefold(), known, 1, 0.8)
    meant = f"; {known[near[0]]} is meant?" if near else ""
    raise InputError(
        "model",
        text,
        f"neither a built-in model ({', '.join(BUILT_IN)}), nor a folder, nor a known name (tdmoe-diag "
        f"models lists them), nor a hub id like Qwen/Qwen3-30B-A3B{meant}",
    )


def _in_folder(folder: Path, revision: str | None, remote: bool) -> Model:
    """A checkpoint folder by its name; one of the Hugging Face cache by its model's name, and of its snapshot."""
    path = folder.resolve()
    if cached := CACHED.fullmatch(path.name):
        path = _snapshot(path)
    elif path.parent.name == "snapshots":
        cached = CACHED.fullmatch(path.parent.parent.name)
    if cached is None:
        return _on_disk(visible(path.name), folder, revision, remote)
    return replace(_on_disk(visible(cached[2]), path, revision, remote), commit=path.name)


def _snapshot(cache: Path) -> Path:
    """The snapshot that `main` names, or the only one; InputError where that is not clear."""
    try:
        if (main := cache / "refs" / "main").is_file():
            return cache / "snapshots" / main.read_text(encoding="utf-8").strip()
        found = sorted(path for path in (cache / "snapshots").iterdir() if path.is_dir())
    except (OSError, ValueError):
        found = []
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError("model", cache.name, f"which of its snapshots ({names})? give snapshots/COMMIT in it")
    return found[0]


def _on_disk(name: str, folder: Path, revision: str | None, remote: bool) -> Model:
    if revision is not None or remote:
        option = "--remote" if remote else f"--revision {revision}"
        raise InputError(option, why=f"--model {name} is on this disk", remedy="give a hub id like Qwen/Qwen3-30B-A3B")
    return Model(name, folder)


def _folder(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        is_file, is_folder = path.is_file(), bool(text) and path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, an unknown ~user, a null byte
        raise InputError("model", text, f"not a usable path ({error})", "give a folder or a model name") from error
    if is_file:
        raise InputError("model", text, "is a file", "give the folder of config.json and the .safetensors files")
    return path if is_folder else None
