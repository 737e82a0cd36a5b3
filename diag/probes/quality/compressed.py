"""Checkpoints on disk that are compared with the model they were made of: our own factor form, or any dense one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diag.compression.compressed import read
from diag.models.model import Model
from diag.probes.quality.measure import Saved, Subject
from tdmoe.checkpoint.files import LocalFiles
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression.counted import bits, parameters
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import language_config


@dataclass(frozen=True)
class OnDisk:
    """`calibrated_on` is the text that its method saw, where it tells."""

    subject: Subject
    model: Model
    saved: Saved
    identity: str
    calibrated_on: str | None
    calibration: str = ""  # as the table says it


def open_compressed(path: Path, original: Checkpoint) -> OnDisk:
    """InputError where the folder holds no whole checkpoint, or one of another vocabulary or made of another model."""
    about = read(path)
    option, name, config = about.option, about.name, {} if about.is_dense else about.config
    subject = Subject(**{"method": name, **config, "checkpoint": name})
    try:
        with Checkpoint(LocalFiles(about.folder)) as found:
            theirs, ours = (language_config(c.config).get("vocab_size") for c in (found, original))
            if theirs != ours:
                raise InputError(
                    option,
                    why=f"has a vocabulary of {theirs} tokens, the model {ours}",
                    remedy="they cannot be compared",
                )
            model, identity = about.checked(found, original)
            before = bits(original), 16 * parameters(original)
            saved = Saved(*((whole - bits(found)) / whole for whole in before))
            return OnDisk(subject, model, saved, identity, about.calibrated_on, about.calibration)
    except OSError as error:
        reason = f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
        raise InputError(option, why=reason, remedy="check the folder and its rights") from error
