"""`tdmoe-diag calibrate`: second moments of routed inputs, saved as the arrays of a run folder, a job a layer.

All layers are collected in one pass over the text. What has been summed is saved now and then, so that a run that was
stopped goes on with the next windows; the sums are float64 and added in order, so it ends with the same bytes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from diag import parse
from diag.engine import Inline
from diag.models import resolve
from diag.run import Job, RunFolder, digest, make_manifest
from diag.texts import load_text
from diag.transformer import load_model, load_tokenizer
from diag.windows import token_windows, window_of
from tdmoe.architecture import Architecture, architecture
from tdmoe.atomic import write_bytes
from tdmoe.calibration import LayerMoments, Moments, PerExpert, Weighting, collecting
from tdmoe.checkpoint import Checkpoint
from tdmoe.locate import check_layers
from tdmoe.problems import InputError

NAME = "calibrate"
VERSION = 3
TABLE = "calibration"
COLUMNS = (
    *("layer", "projection", "tokens", "routed", "experts", "experts_unseen", "routed_least", "routed_most"),
    *("shrinkage_largest", "status"),
)
PARTIAL = "partial.safetensors"
SAVE_SECONDS = 20.0
SAVE_SPACING = 20.0  # times what a save takes, before the next one
FEW = 10  # tokens a feature below which a second moment is told to be rough
BATCH_TOKENS = 8192  # through the model at once


@dataclass(frozen=True)
class Settings:
    """What changes the statistics."""

    text: str = "c4-calibration"
    tokens: int = 262_144
    window: int | None = None
    weighting: Weighting = "count"
    per_expert: PerExpert = "none"
    outputs: bool = False


@dataclass(frozen=True)
class Request:
    """One command as typed."""

    model: str
    settings: Settings
    layers: str | None = None
    device: str = "auto"
    out: Path | None = None
    fresh: bool = False
    revision: str | None = None
    command_line: str = ""


class Calibration:
    """A checked plan. Use as a context manager; it holds the checkpoint open."""

    def __init__(self, request: Request) -> None:
        """Check model, text and layers; InputError before the model is loaded."""
        self.request, self.settings = request, request.settings
        self.model = resolve(request.model, request.revision)
        self.device = Inline().device(request.device)
        try:
            text = load_text(self.settings.text)
        except ValueError as error:
            raise InputError(f"--text {self.settings.text}: {error}") from error
        self.checkpoint = Checkpoint(self.model.files())
        try:
            self.arch: Architecture = architecture(self.checkpoint.config)
            check_layers(self.checkpoint, self.arch)
            self.layers = parse.layers(request.layers, self.arch.layers)
            tokenizer = load_tokenizer(self.model, self.checkpoint.files)
            window = window_of(self.checkpoint.config, self.settings.window)
            self.windows_WT = token_windows(tokenizer, text, self.settings.tokens, window)
            self._check_room()
            self.folder = self._folder(text)
        except BaseException:
            self.checkpoint.close()
            raise

    def __enter__(self) -> Calibration:
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.close()
        self.checkpoint.close()

    def notes(self) -> list[str]:
        """What differs from what was asked."""
        found, asked, notes = self.windows_WT.numel(), self.settings.tokens, []
        if asked - found >= self.windows_WT.shape[1]:
            text = self.settings.text
            notes.append(f"--text {text}: holds {found:,} tokens in whole windows, fewer than --tokens {asked:,}")
        if found < FEW * self.arch.hidden:
            notes.append(
                f"{found:,} tokens are few for second moments of {self.arch.hidden:,} features; "
                f"{FEW * self.arch.hidden:,} would be enough"
            )
        return notes

    def _check_room(self) -> None:
        """InputError where the sums alone do not fit the device."""
        if self.device == "cpu":
            room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        else:
            room = torch.cuda.get_device_properties(self.device).total_memory
        if self.sums_bytes > room:
            raise InputError(
                f"--per-expert {self.settings.per_expert}: the sums of {len(self.layers)} layers take "
                f"{self.sums_bytes / 1e9:.0f} GB, {self.device} has {room / 1e9:.0f} GB; calibrate some --layers at a "
                "time, or with --per-expert down or none"
            )

    @property
    def sums_bytes(self) -> int:
        """Of all layers together, on the device."""
        experts, hidden, width = self.arch.experts, self.arch.hidden**2, self.arch.width**2
        inputs = hidden * (experts if self.settings.per_expert == "all" else 1)
        downs = width * (experts if self.settings.per_expert != "none" else 1)
        outputs = hidden + 2 * width if self.settings.outputs else 0
        return 8 * len(self.layers) * (inputs + downs + outputs + 3 * experts)

    def execute(self, on_tokens: Callable[[int], None]) -> None:
        """Run the model over what is left of the text, and save every layer's sums and the table."""
        if self.folder.pending():
            self.folder.begin()
            started = time.perf_counter()
            moments = self._collect(on_tokens)
            for job in self.folder.jobs:
                sums, seconds = moments.layers[job.layer], time.perf_counter() - started
                self.folder.finish(job, [self._row(job, sums, moments.tokens)], to_arrays(sums), seconds)
            (self.folder.path / PARTIAL).unlink(missing_ok=True)
        self.folder.write_table(TABLE, COLUMNS)

    def _collect(self, on_tokens: Callable[[int], None]) -> Moments:
        model = load_model(self.model, self.checkpoint.files, self.device)
        moments = self._partial()
        on_tokens(moments.tokens)
        length = self.windows_WT.shape[1]
        batch = 1 if self.settings.outputs else max(1, BATCH_TOKENS // length)  # a backward pass keeps activations
        names = ("weighting", "per_expert", "outputs")
        options = {name: getattr(self.settings, name) for name in names}
        saved, pause = time.monotonic(), SAVE_SECONDS
        with collecting(model, moments, layers=self.layers, **options) as run:
            for window_BT in self.windows_WT[moments.tokens // length :].split(batch):
                run(window_BT)
                on_tokens(window_BT.numel())
                if time.monotonic() - saved > pause:
                    started = time.monotonic()
                    self._save_partial(moments)
                    saved = time.monotonic()
                    pause = max(SAVE_SECONDS, SAVE_SPACING * (saved - started))
        return moments

    def _save_partial(self, moments: Moments) -> None:
        tensors = {
            f"{layer}.{name}": tensor.cpu().contiguous()
            for layer, sums in moments.layers.items()
            for name, tensor in vars(sums).items()
            if tensor is not None
        }
        about = {"tokens": str(moments.tokens), "identity": json.dumps(self._identity)}
        write_bytes(self.folder.path / PARTIAL, save(tensors, about))

    def _partial(self) -> Moments:
        """Sums of an earlier run that was stopped, if they are of the same thing."""
        path = self.folder.path / PARTIAL
        if not path.is_file() or self.request.fresh:
            return Moments()
        with safe_open(path, "pt", device=self.device) as file:
            about = file.metadata() or {}
            if about.get("identity") != json.dumps(self._identity):
                return Moments()
            layers: dict[int, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118  not a dict
                layer, _, name = key.partition(".")
                layers.setdefault(int(layer), {})[name] = file.get_tensor(key)
        return Moments({layer: LayerMoments(**tensors) for layer, tensors in layers.items()}, int(about["tokens"]))

    def _row(self, job: Job, sums: LayerMoments, tokens: int) -> dict[str, Any]:
        counts_E = sums.tokens_E
        own = [p for p in ("gate", "down") if sums.has_own(p)]  # gate stands for up: they share their inputs
        largest = max((sums.shrinkage(p, e) for p in own for e in range(len(counts_E))), default=None)
        return {
            **{"layer": job.layer, "projection": job.projection, "tokens": tokens, "routed": int(counts_E.sum())},
            **{"experts": len(counts_E), "experts_unseen": int((counts_E == 0).sum())},
            **{"routed_least": int(counts_E.min()), "routed_most": int(counts_E.max())},
            **{"shrinkage_largest": largest, "status": "ok" if counts_E.any() else "not_calibrated"},
        }

    def _folder(self, text: str) -> RunFolder:
        config = {**asdict(self.settings), "window": self.windows_WT.shape[1], "layers": parse.spans(self.layers)}
        fingerprint = self.checkpoint.structure_fingerprint()
        self._identity = {
            "model": self.model.name,
            "device": self.device.partition(":")[0],
            "settings": digest({**config, "windows": len(self.windows_WT), "text": digest(text)}),
            "probe_version": VERSION,
            "weights": model_identity(self.checkpoint),
        }
        manifest = make_manifest(
            command=NAME,
            command_line=self.request.command_line,
            model=self.model.name,
            commit=self.checkpoint.files.commit,
            fingerprint=fingerprint,
            config=config,
            device=self.device,
        )
        short = digest(self._identity)[:8]
        out = self.request.out or Path("runs") / f"{self.model.name}-{NAME}-{short}"
        return RunFolder(out, manifest, {Job(NAME, layer, "experts"): self._identity for layer in self.layers})


def model_identity(checkpoint: Checkpoint) -> str:
    """Identity of all weights, from a tensor of every shard: its time and header count too."""
    by_shard = {entry.file: entry for entry in map(checkpoint.entry, checkpoint.names())}
    return checkpoint.weights_fingerprint(list(by_shard.values()))


def to_arrays(sums: LayerMoments) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """As a run folder keeps them."""
    return {name: tensor.cpu().numpy() for name, tensor in vars(sums).items() if tensor is not None}


def from_arrays(arrays: dict[str, np.ndarray[Any, np.dtype[np.float64]]]) -> LayerMoments:
    """`to_arrays` undone."""
    return LayerMoments(**{name: torch.from_numpy(array) for name, array in arrays.items()})
