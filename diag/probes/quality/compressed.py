"""Checkpoints on disk that are compared with the model they were made of: our own factor form, or any dense one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diag.compressing import ABOUT, DENSE, bits, compressed_folder
from diag.loadable import check_loadable, named
from diag.models import Model
from diag.open_model import model_identity
from diag.probes.quality import Saved, Subject
from tdmoe import json_text
from tdmoe.architecture import language_config
from tdmoe.checkpoint import Checkpoint
from tdmoe.files import LocalFiles
from tdmoe.problems import InputError
from tdmoe.unquantised import parameters


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
    """InputError where the folder holds no whole checkpoint, or one of another vocabulary."""
    option = f"--compressed {path}"
    folder = compressed_folder(path)
    name = f"{folder.parent.name}-{DENSE}" if folder.name == DENSE else folder.name
    subject, calibrated_on, calibration = Subject(name, checkpoint=name), None, ""
    if (folder / ABOUT).is_file():
        try:
            about = json_text.parse((folder / ABOUT).read_bytes())
            config, state, calibrated_on = about.get("config"), about["state"], about.get("calibrated_on")
            calibration = str(about.get("calibration") or "")
            if state != "complete":
                raise InputError(f"{option}: is unfinished; run its compress command again")
            subject = Subject(config["method"], config["ratio"], config["layers"], config["projections"], name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{option}: its {ABOUT} cannot be read ({error}); compress again") from error
    try:
        with Checkpoint(LocalFiles(folder)) as found:
            theirs, ours = (language_config(c.config).get("vocab_size") for c in (found, original))
            if theirs != ours:
                raise InputError(
                    f"{option}: has a vocabulary of {theirs} tokens, the model {ours}; they cannot be compared"
                )
            model, identity = Model(name, folder), model_identity(found)
            with named(option):
                check_loadable(model, found, identity)
            before = bits(original), 16 * parameters(original, embeddings=False)
            saved = Saved(*((whole - bits(found)) / whole for whole in before))
            return OnDisk(subject, model, saved, identity, calibrated_on, calibration)
    except OSError as error:
        reason = f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
        raise InputError(f"{option}: {reason}; check the folder and its rights") from error
