"""Checkpoints on disk whose residual stream is compared with the model they were made of, and how they are walked.

Any checkpoint that transformers loads, with the vocabulary, the depth and the hidden size of the model: our own factor
form, or one that another tool compressed, attention and embeddings too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diag.compression.compressed import read
from diag.models.hollow import factored_layers
from diag.models.model import Model
from diag.models.transformer import load_tokenizer
from tdmoe.checkpoint.files import LocalFiles
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression.counted import bits
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import language_config

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
    """InputError where the folder holds no whole checkpoint, or one of another shape or model; the caller closes it."""
    about = read(path)
    option, name = about.option, about.name
    try:
        checkpoint = Checkpoint(LocalFiles(about.folder))
        try:
            _check_same(option, checkpoint, original)
            model, identity = about.checked(checkpoint, original)
            layers = about.layers if about.config else tuple(sorted(factored_layers(checkpoint)))
            known = {**about.config, "layers": layers}
            known |= {"calibrated_on": about.calibrated_on, "calibration": about.calibration}
            saved = (bits(original) - bits(checkpoint)) / bits(original)
            return Companion(name, model, checkpoint, identity, saved, **{"method": name, **known})
        except BaseException:
            checkpoint.close()
            raise
    except OSError as error:
        reason = f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
        raise InputError(option, why=reason, remedy="check the folder and its rights") from error


def check_tokenizer(companion: Companion, tokenizer: Any, text: str) -> None:
    """InputError where its tokenizer, if it has one, reads the text differently."""
    try:
        theirs = load_tokenizer(companion.model, companion.checkpoint.files)
    except InputError:
        return
    ours, other = (t(text, add_special_tokens=False, verbose=False)["input_ids"] for t in (tokenizer, theirs))
    if ours != other:
        raise InputError(
            "compressed",
            companion.name,
            "its tokenizer reads the text as other tokens than the model's",
            "compare checkpoints of the same vocabulary",
        )


def _check_same(option: str, checkpoint: Checkpoint, original: Checkpoint) -> None:
    theirs, ours = (language_config(c.config) for c in (checkpoint, original))
    for field, what in SAME.items():
        if theirs.get(field) != ours.get(field):
            raise InputError(
                option,
                why=f"has {theirs.get(field)} {what}, the model {ours.get(field)} ({field})",
                remedy="give a checkpoint that was made of this model",
            )
