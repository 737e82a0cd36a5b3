"""Compressed checkpoints on disk that are measured beside the model they were made of.

Our own factor form, or any checkpoint that transformers loads, with what has to be the model's own the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diag.compression.compressing import ABOUT, DENSE, SOURCE, Saved
from diag.lockstep.layer_experts import factored_layers
from diag.lockstep.variant import Variant
from diag.models.loadable import check_loadable
from diag.models.model import Model
from diag.models.open_model import model_identity
from diag.runs.files import read_json
from tdmoe.checkpoint.files import LocalFiles
from tdmoe.checkpoint.reader import CONFIG, Checkpoint
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import language_config

FIELDS = {"vocab_size": "tokens in the vocabulary", "num_hidden_layers": "layers", "hidden_size": "as hidden size"}
LABELS = ("method", "ratio", "projections")


@dataclass(frozen=True)
class OnDisk:
    """An opened checkpoint, which the caller closes. `calibrated_on` is the text that its method saw, where it tells.

    `calibration` is the same as tables say it; `rebuilt` where the folder holds dense weights beside factors.
    """

    variant: Variant
    model: Model
    checkpoint: Checkpoint
    identity: str
    saved: Saved
    calibrated_on: str | None
    calibration: str
    rebuilt: bool

    @property
    def name(self) -> str:
        return self.variant.checkpoint


def open_compressed(path: Path, original: Checkpoint, same: Sequence[str] = tuple(FIELDS)) -> OnDisk:
    """InputError where the folder holds no whole checkpoint, one of another model, or one that differs in `same`."""
    option, folder = f"--compressed {path}", _folder(path)
    rebuilt = folder.name == DENSE
    about, name = _about(option, folder), f"{folder.parent.name}-{DENSE}" if rebuilt else folder.name
    try:
        checkpoint = Checkpoint(LocalFiles(folder))
        try:
            _check_same(option, checkpoint, original, same)
            _check_source(option, about, checkpoint, original)
            model, identity = Model(name, folder), model_identity(checkpoint)
            _check_loadable(option, model, checkpoint, identity)
            layers = {int(row["layer"]) for row in about["stacks"]} if about else factored_layers(checkpoint)
            labels = {label: about["config"][label] for label in LABELS} if about else {"method": name}
            source = checkpoint.structure_fingerprint()
            variant = Variant(**labels, layers=tuple(sorted(layers)), source=source, checkpoint=name)
            seen = about.get("calibrated_on"), str(about.get("calibration") or "")
            return OnDisk(variant, model, checkpoint, identity, Saved.of(original, checkpoint), *seen, rebuilt)
        except BaseException:
            checkpoint.close()
            raise
    except OSError as error:
        reason = f"{error.filename or 'a file'} cannot be read ({error.strerror or error})"
        raise InputError(f"{option}: {reason}; check the folder and its rights") from error


def check_folder(path: Path) -> None:
    """InputError where a folder holds no compressed checkpoint, whatever the model is."""
    _about(f"--compressed {path}", _folder(path))


def _about(option: str, folder: Path) -> Mapping[str, Any]:
    """Facts that `compress` wrote of it, nothing where another tool did; InputError where it has not finished."""
    written = (folder.parent if folder.name == DENSE else folder) / ABOUT
    if not written.is_file():
        return {}
    try:
        about: Mapping[str, Any] = read_json(written)
        unfinished = about["state"] != "complete"
        if not unfinished:
            [about["config"][label] for label in LABELS], [int(row["layer"]) for row in about["stacks"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{option}: its {ABOUT} cannot be read ({error}); compress again") from error
    if unfinished:
        raise InputError(f"{option}: is unfinished; run its compress command again")
    return about


def _folder(path: Path) -> Path:
    """The folder of the checkpoint, resolved; InputError where it holds none."""
    option, give = f"--compressed {path}", "give what `compress --to` wrote, or another checkpoint's folder"
    if not path.is_dir():
        raise InputError(f"{option}: no such folder; {give}")
    if not (path / CONFIG).is_file() and not (path / ABOUT).is_file():
        raise InputError(f"{option}: has no {CONFIG}; {give}")
    if not any(path.glob("*.safetensors")) and not (path / ABOUT).is_file():
        raise InputError(f"{option}: has no .safetensors files; {give}")
    return path.resolve()


def _check_same(option: str, checkpoint: Checkpoint, original: Checkpoint, same: Sequence[str]) -> None:
    theirs, ours = (language_config(c.config) for c in (checkpoint, original))
    for name in same:
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"{option}: has {theirs.get(name)} {FIELDS[name]}, the model {ours.get(name)} ({name}); give a "
                "checkpoint that was made of this model"
            )


def _check_source(option: str, about: Mapping[str, Any], checkpoint: Checkpoint, original: Checkpoint) -> None:
    """InputError where `compress` made it of other weights; where it did not say so, by what it copied."""
    if not about:
        return
    if source := about.get(SOURCE):
        same = original.sampled_fingerprint(original.names()) == source
    else:
        both = [name for name in checkpoint.names() if name in original]
        pairs = [(name, checkpoint.entry(name), original.entry(name)) for name in both]
        both = [name for name, a, b in pairs if (a.shape, a.dtype) == (b.shape, b.dtype)]
        same = bool(both) and checkpoint.sampled_fingerprint(both) == original.sampled_fingerprint(both)
    if not same:
        raise InputError(
            f"{option}: was made of {about.get('model') or 'another model'}, whose weights are not those of --model "
            f"({original.files.name}); give the model that it was made of, or compress this one"
        )


def _check_loadable(option: str, model: Model, checkpoint: Checkpoint, identity: str) -> None:
    try:
        check_loadable(model, checkpoint, identity)
    except InputError as error:
        raise InputError(f"{option}: {error}") from error
