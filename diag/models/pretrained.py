"""A checkpoint as transformers is told of it: where it lies, its config, its class.

Code of a checkpoint is never run.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diag.models.model import Model
from tdmoe.checkpoint.reader import CONFIG, INDEX, Checkpoint
from tdmoe.problems import InputError

GENERATION = "generation_config.json"
OWN = {"trust_remote_code": False}
BOM = b"\xef\xbb\xbf"
SHORT = 1_000_000  # bytes of a file that may begin with a byte order mark


def load_config(where: str, options: Mapping[str, Any]) -> Any:
    """The transformers config; InputError where transformers knows no such model, or a field is wrong."""
    import transformers

    import tdmoe.hub  # noqa: F401  checkpoints in our own format load too

    try:
        return transformers.AutoConfig.from_pretrained(where, **options)
    except Exception as error:
        raise InputError(
            f"{CONFIG}: transformers cannot use it ({said(error)}); correct the field; a model that transformers "
            "knows only by code of its own is never run"
        ) from error


def model_class(config: Any) -> Any:
    """The class for causal language models, or the config's own architecture: models of images and text."""
    import transformers

    if type(config) in (mapping := transformers.AutoModelForCausalLM._model_mapping):
        return mapping[type(config)]
    named = (config.architectures or [""])[0] if isinstance(config.architectures, list | None) else ""
    if (kind := getattr(transformers, str(named), None)) is None:
        raise InputError(f"{CONFIG}: transformers has no language model for {type(config).__name__}; it cannot be run")
    return kind


def check_generation(checkpoint: Checkpoint, where: str, options: Mapping[str, Any]) -> None:
    """InputError where there is a generation config that transformers cannot use: loading the model reads it."""
    import transformers

    if GENERATION not in checkpoint.files.names():
        return
    try:
        transformers.GenerationConfig.from_pretrained(where, **options)
    except Exception as error:
        raise InputError(f"{GENERATION}: transformers cannot use it ({said(error)}); correct or remove it") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' bars and reports: what matters of them this tool says itself."""
    import transformers

    bars, level = transformers.logging.is_progress_bar_enabled(), transformers.logging.get_verbosity()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


@contextmanager
def place(model: Model, checkpoint: Checkpoint) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and options by which transformers finds a checkpoint: a commit in the cache, or a folder.

    A folder with files that we read and transformers does not is given to it as links, with these files put right.
    What is no file, as a pipe, is left out: it would wait for it.
    """
    if model.folder is None:
        yield model.repo, {"revision": str(checkpoint.files.commit), **OWN}
        return
    right, names = _put_right(model.folder, checkpoint), set(checkpoint.files.names())
    if not right and all(path.name in names or path.is_dir() for path in model.folder.iterdir()):
        yield str(model.folder), dict(OWN)
        return
    with tempfile.TemporaryDirectory(prefix="tdmoe-") as made:
        for path in model.folder.iterdir():
            if path.name not in right and (path.name in names or path.is_dir()):
                (Path(made) / path.name).symlink_to(path.resolve())
        for name, content in right.items():
            (Path(made) / name).write_bytes(content)
        yield made, dict(OWN)


def _put_right(folder: Path, checkpoint: Checkpoint) -> dict[str, bytes]:
    """{file: content} of byte order marks left out, whole numbers as floats, and the index that is missing."""
    right = {}
    for path in folder.glob("*.json"):
        if path.is_file() and path.stat().st_size <= SHORT and (content := path.read_bytes()).startswith(BOM):
            right[path.name] = content.removeprefix(BOM)
    config = json.dumps(_with_floats(checkpoint.config))
    if config != json.dumps(checkpoint.config) or CONFIG in right:
        right[CONFIG] = config.encode()
    if not checkpoint.has_index:
        weight_map = {name: checkpoint.entry(name).file for name in checkpoint.names()}
        right[INDEX] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    return right


def _with_floats(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with 0 as 0.0 where transformers insists on a float, though JSON knows no difference."""
    import transformers

    import tdmoe.hub  # noqa: F401

    fields: dict[str, Any] = json.loads(json.dumps(config))
    while True:
        try:
            transformers.AutoConfig.for_model(**fields)
        except Exception as error:
            found = re.search(r"Field '(\w+)' expected float, got int", str(error))
            if found and _make_float(fields, found[1]):
                continue
        return fields


def _make_float(fields: Any, name: str) -> bool:
    """Every whole number of that name, however deep; whether there was one."""
    if not isinstance(fields, dict):
        return False
    inside = [_make_float(value, name) for value in fields.values()]
    if type(fields.get(name)) is not int:
        return any(inside)
    fields[name] = float(fields[name])
    return True


def said(error: BaseException) -> str:
    """The last line that an error says before it quotes others, short: what is wrong, of several lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:150].removesuffix(": ")
