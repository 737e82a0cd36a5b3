"""--model: a built-in name, a folder, or a hub id in the local cache, resolved to a folder on disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from tdmoe.problems import InputError

BUILT_IN = {"mini": "assets/mini"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Model:
    """`name` is what tables and pages show (never a path); `folder` holds config.json and the shards."""

    name: str
    folder: Path


def resolve(text: str) -> Model:
    """Find the checkpoint that `text` means; InputError says what was tried."""
    if text in BUILT_IN:
        return Model(text, Path(str(files("diag") / BUILT_IN[text])))
    if folder := _folder(text):
        return Model(folder.resolve().name, folder)
    if text.startswith(("/", ".", "~")):
        raise InputError(f"--model {text}: no such folder; give a checkpoint folder or a model name")
    if HUB_ID.fullmatch(text):
        return Model(text.split("/")[1], _cached(text))
    raise InputError(
        f"--model {text}: neither a built-in model ({', '.join(BUILT_IN)}), nor a folder, "
        "nor a hub id like Qwen/Qwen3-30B-A3B"
    )


def _folder(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        is_file, is_folder = path.is_file(), bool(text) and path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, an unknown ~user, a null byte
        raise InputError(f"--model {text[:200]}: not a usable path ({error}); give a folder or a model name") from error
    if is_file:
        raise InputError(f"--model {text}: is a file; give the folder of config.json and the .safetensors files")
    return path if is_folder else None


def _cached(hub_id: str) -> Path:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(hub_id, "config.json")
    except HFValidationError as error:
        raise InputError(f"--model {hub_id}: not a valid hub id ({error})") from error
    if not isinstance(config, str):
        raise InputError(
            f"--model {hub_id}: not a folder here and not in the local Hugging Face cache; "
            f"download it first (hf download {hub_id}) or give a folder"
        )
    return Path(config).parent
