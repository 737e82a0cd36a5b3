"""--model: a built-in name, a folder, a hub id or a known bare name, resolved to files that can be opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from diag.catalog import HUB_IDS
from tdmoe.files import Files, LocalFiles
from tdmoe.problems import InputError

BUILT_IN = {"mini": "assets/mini"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Model:
    """`name` is what tables and pages show (never a path); the files are in `folder`, or in `repo` on the hub."""

    name: str
    folder: Path | None = None
    repo: str = ""
    revision: str | None = None
    remote: bool = False

    def files(self) -> Files:
        """Open them; InputError where the hub refuses or cannot be reached."""
        if self.folder is not None:
            return LocalFiles(self.folder)
        from diag.hub import HubFiles

        return HubFiles(self.repo, self.revision, remote=self.remote)

    def pinned(self, files: Files) -> Model:
        """The same for another process: an absolute path, or the commit that `files` come from."""
        if self.folder is not None:
            return replace(self, folder=self.folder.absolute())
        return replace(self, revision=files.commit)


def resolve(text: str, revision: str | None = None, *, remote: bool = False) -> Model:
    """What `text` means, without opening it; InputError says what was tried. A folder wins over a bare name."""
    if revision is not None and not revision.strip():
        raise InputError("--revision: is empty; give a branch, tag or commit, or leave it out")
    if text in BUILT_IN:
        return _on_disk(text, Path(str(files("diag") / BUILT_IN[text])), revision, remote)
    if folder := _folder(text):
        return _on_disk(folder.resolve().name, folder, revision, remote)
    if text.startswith(("/", ".", "~")):
        raise InputError(f"--model {text}: no such folder; give a checkpoint folder or a model name")
    if text in HUB_IDS or HUB_ID.fullmatch(text):
        repo = HUB_IDS.get(text, text)
        return Model(repo.split("/")[1], None, repo, revision, remote)
    raise InputError(
        f"--model {text}: neither a built-in model ({', '.join(BUILT_IN)}), nor a folder, nor a known name "
        "(tdmoe-diag models lists them), nor a hub id like Qwen/Qwen3-30B-A3B"
    )


def _on_disk(name: str, folder: Path, revision: str | None, remote: bool) -> Model:
    if revision is not None or remote:
        option = "--remote" if remote else f"--revision {revision}"
        raise InputError(f"{option}: --model {name} is on this disk; give a hub id like Qwen/Qwen3-30B-A3B")
    return Model(name, folder)


def _folder(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        is_file, is_folder = path.is_file(), bool(text) and path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, an unknown ~user, a null byte
        raise InputError(f"--model {text[:200]}: not a usable path ({error}); give a folder or a model name") from error
    if is_file:
        raise InputError(f"--model {text}: is a file; give the folder of config.json and the .safetensors files")
    return path if is_folder else None
