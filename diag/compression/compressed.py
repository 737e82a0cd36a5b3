"""What a folder says of the compressed checkpoint that it holds, and whether that was made of the model at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diag.compression.compressing import ABOUT, DENSE, SOURCE
from diag.models.loadable import check_loadable
from diag.models.model import Model
from diag.models.open_model import model_identity
from diag.runs.files import read_json
from tdmoe.checkpoint.reader import CONFIG, Checkpoint
from tdmoe.problems import InputError


@dataclass(frozen=True)
class About:
    """`config` and what follows are empty where another tool wrote the checkpoint."""

    option: str
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[int, ...] = ()
    calibrated_on: str | None = None
    calibration: str = ""  # as tables say it
    made_of: str = ""
    source: str = ""

    @property
    def is_dense(self) -> bool:
        """Whether it holds the rebuilt weights beside factors."""
        return self.folder.name == DENSE

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.folder.parent.name}-{DENSE}" if self.is_dense else self.folder.name

    def checked(self, checkpoint: Checkpoint, original: Checkpoint) -> tuple[Model, str]:
        """The model and the identity of its weights; InputError where it is not of this original, or not whole."""
        self._check_source(checkpoint, original)
        model, identity = Model(self.name, self.folder), model_identity(checkpoint)
        try:
            check_loadable(model, checkpoint, identity)
        except InputError as error:
            raise InputError(f"{self.option}: {error}") from error
        return model, identity

    def _check_source(self, checkpoint: Checkpoint, original: Checkpoint) -> None:
        """InputError where `compress` made it of other weights; where it did not say so, by what it copied."""
        if not self.config:
            return
        if self.source:
            same = original.sampled_fingerprint(original.names()) == self.source
        else:
            both = [name for name in checkpoint.names() if name in original]
            both = [n for n in both if checkpoint.entry(n).shape == original.entry(n).shape]
            both = [n for n in both if checkpoint.entry(n).dtype == original.entry(n).dtype]
            same = bool(both) and checkpoint.sampled_fingerprint(both) == original.sampled_fingerprint(both)
        if not same:
            raise InputError(
                f"{self.option}: was made of {self.made_of}, whose weights are not those of --model "
                f"({original.files.name}); give the model that it was made of, or compress this one"
            )


def read(path: Path) -> About:
    """What --compressed names; InputError where the folder holds no checkpoint, or `compress` has not finished it."""
    option, folder = f"--compressed {path}", _folder(path)
    written = (folder.parent if folder.name == DENSE else folder) / ABOUT
    if not written.is_file():
        return About(option, folder)
    try:
        about = read_json(written)
        if about["state"] != "complete":
            raise InputError(option, why="is unfinished", remedy="run its compress command again")
        config = {key: about["config"][key] for key in ("method", "ratio", "layers", "projections")}
        layers = tuple(sorted({int(row["layer"]) for row in about["stacks"]}))
        calibration, made_of = str(about.get("calibration") or ""), str(about.get("model") or "another model")
        source = str(about.get(SOURCE) or "")
        return About(option, folder, config, layers, about.get("calibrated_on"), calibration, made_of, source)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(option, why=f"its {ABOUT} cannot be read ({error})", remedy="compress again") from error


def _folder(path: Path) -> Path:
    """The folder of the checkpoint, resolved; InputError where it holds none."""
    option, give = f"--compressed {path}", "give what `compress --to` wrote, or another checkpoint's folder"
    if not path.is_dir():
        raise InputError(option, why="no such folder", remedy=give)
    if not (path / CONFIG).is_file() and not (path / ABOUT).is_file():
        raise InputError(option, why=f"has no {CONFIG}", remedy=give)
    if not any(path.glob("*.safetensors")) and not (path / ABOUT).is_file():
        raise InputError(option, why="has no .safetensors files", remedy=give)
    return path.resolve()
