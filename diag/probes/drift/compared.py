"""Checkpoints on disk whose residual stream is compared with the model they were made of, and how they are walked.

Any checkpoint that transformers loads, with the vocabulary, the depth and the hidden size of the model: our own factor
form, or one that another tool compressed, attention and embeddings too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diag.compressing import ABOUT, DENSE, bits, compressed_folder
from diag.hollow import factored_layers
from diag.loadable import check_loadable, named
from diag.models import Model
from diag.open_model import model_identity
from diag.transformer import load_tokenizer
from tdmoe import json_text
from tdmoe.architecture import language_config
from tdmoe.checkpoint import Checkpoint
from tdmoe.files import LocalFiles
from tdmoe.problems import InputError

SAME = {"vocab_size": "tokens in the vocabulary", "num_hidden_layers": "layers", "hidden_size": "as hidden size"}


@dataclass(frozen=True)
class Companion:
    """`method`, `ratio`, `layers` and the text it was calibrated on are known where one of our own tools wrote it."""

    name: str
    model: Model
    checkpoint: Checkpoint
    identity: str
    bits_saved: float
    method: str
    ratio: float | None = None
    layers: tuple[int, ...] = ()
    projections: str = ""
    calibrated_on: str | None = None
    calibration: str = ""


def open_companion(path: Path, original: Checkpoint) -> Companion:
    """InputError where the folder holds no whole checkpoint, or one of another shape; the caller closes it."""
    option = f"--compressed {path}"
    folder = compressed_folder(path)
    name = f"{folder.parent.name}-{DENSE}" if folder.name == DENSE else folder.name
    try:
        checkpoint = Checkpoint(LocalFiles(folder))
        try:
            _check_same(option, checkpoint, original)
            known = _about(option, folder) or {"layers": tuple(sorted(factored_layers(checkpoint)))}
            saved = (bits(original) - bits(checkpoint)) / bits(original)
            model, identity = Model(name, folder), model_identity(checkpoint)
            with named(option):
                check_loadable(model, checkpoint, identity)
            return Companion(name, model, checkpoint, identity, saved, **{"method": name, **known})
        except BaseException:
            checkpoint.close()
            raise
    except OSError as error:
        reason = f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
        raise InputError(f"{option}: {reason}; check the folder and its rights") from error


def check_tokenizer(companion: Companion, tokenizer: Any, text: str) -> None:
    """InputError where its tokenizer, if it has one, reads the text differently."""
    try:
        theirs = load_tokenizer(companion.model, companion.checkpoint.files)
    except InputError:
        return
    ours, other = (t(text, add_special_tokens=False, verbose=False)["input_ids"] for t in (tokenizer, theirs))
    if ours != other:
        raise InputError(
            f"--compressed {companion.name}: its tokenizer reads the text as other tokens than the model's; compare "
            "checkpoints of the same vocabulary"
        )


def _check_same(option: str, checkpoint: Checkpoint, original: Checkpoint) -> None:
    theirs, ours = (language_config(c.config) for c in (checkpoint, original))
    for field, what in SAME.items():
        if theirs.get(field) != ours.get(field):
            raise InputError(
                f"{option}: has {theirs.get(field)} {what}, the model {ours.get(field)} ({field}); give a checkpoint "
                "that was made of this model"
            )


def _about(option: str, folder: Path) -> dict[str, Any]:
    """What `compress` wrote down, in the folder or, for rebuilt weights, in the one around it."""
    path = (folder.parent if folder.name == DENSE else folder) / ABOUT
    if not path.is_file():
        return {}
    try:
        about = json_text.parse(path.read_bytes())
        if about["state"] != "complete":
            raise InputError(f"{option}: is unfinished; run its compress command again")
        stacks, config = about["stacks"], about["config"]
        layers = sorted({int(row["layer"]) for row in stacks})
        known = {"method": config["method"], "ratio": config["ratio"], "projections": config["projections"]}
        known |= {"calibrated_on": about.get("calibrated_on"), "calibration": str(about.get("calibration") or "")}
        return {**known, "layers": tuple(layers)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{option}: its {ABOUT} cannot be read ({error}); compress again") from error
