"""`tdmoe-diag calibrate`: second moments of routed inputs, saved as the arrays of a run folder, a job a layer.

All layers are collected in one pass over the text. What has been summed is saved now and then, so that a run that was
stopped goes on with the next windows; the sums are float64 and added in order, so it ends with the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diag.declare import parse
from diag.declare.defaults import CALIBRATION_TEXT, CALIBRATION_TOKENS
from diag.inputs.texts import check_texts, load_text
from diag.jobs.work import failing
from diag.models.finite import is_finite
from diag.models.open_model import OpenModel
from diag.runs import partial
from diag.runs.folder import Job, RunFolder, digest
from tdmoe.problems import InputError, WeightError
from tdmoe.runtime.calibration import LayerMoments, Moments, PerExpert, Weighting, collecting

NAME = "calibrate"
VERSION = 3
TABLE = "calibration"
COLUMNS = (
    *("layer", "projection", "tokens", "routed", "experts", "experts_unseen", "routed_least", "routed_most"),
    *("shrinkage_largest", "status"),
)
SAVE_SECONDS = 20.0
SAVE_SPACING = 20.0  # times what a save takes, before the next one
FEW = 10  # tokens a feature below which a second moment is told to be rough
BATCH_TOKENS = 8192  # through the model at once


@dataclass(frozen=True)
class Settings:
    """What changes the statistics."""

    text: str = CALIBRATION_TEXT
    tokens: int = CALIBRATION_TOKENS
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
    revision: str | None = None
    command_line: str = ""


class Calibration(OpenModel):
    """A checked plan. Use as a context manager; it holds the checkpoint open."""

    def __init__(self, request: Request) -> None:
        """Check text, model and layers; InputError before the model is loaded."""
        check_texts(("text", request.settings.text))
        super().__init__(request.model, request.device, request.revision)
        self.request, self.settings = request, request.settings
        try:
            self.layers = parse.layers(request.layers, self.arch.layers)
            settings = self.settings
            self.windows_WT = self.windows("text", settings.text, settings.tokens, settings.window)
            self._check_room()
            self.folder = self._folder()
        except BaseException:
            self.checkpoint.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.folder.close()
        super().__exit__()

    def opened(self, *, fresh: bool = False) -> list[str]:
        """The run folder taken up, or begun anew; notes for a person."""
        notes = self.folder.open(fresh=fresh, notes=self.notes())
        if fresh:
            partial.forget(self.folder.path)
        return notes

    def notes(self) -> list[str]:
        """What differs from what was asked."""
        notes, found = self.notes_on(self.settings.text, self.windows_WT, self.settings.tokens), self.windows_WT.numel()
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
                "per_expert",
                self.settings.per_expert,
                f"the sums of {len(self.layers)} layers take {self.sums_bytes / 1e9:.0f} GB, "
                f"{self.device} has {room / 1e9:.0f} GB",
                "calibrate some --layers at a time, or with --per-expert down or none",
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
            with failing(self.folder, self.folder.pending()):
                self._measure(on_tokens)
        self.folder.write_table(TABLE, COLUMNS)

    def _measure(self, on_tokens: Callable[[int], None]) -> None:
        started = time.perf_counter()
        moments = self._collect(on_tokens)
        for job in self.folder.pending():
            sums, seconds = moments.layers[job.layer], time.perf_counter() - started
            with failing(self.folder, [job]):
                if not all(is_finite(sum_) for sum_ in vars(sums).values() if sum_ is not None and sum_.numel()):
                    raise WeightError(
                        f"layer {job.layer}: its inputs came out as NaN or infinite; look at the checkpoint's "
                        "weights, or download it again"
                    )
                rows = {TABLE: [self._row(job, sums, moments.tokens)]}
                self.folder.finish(job, rows, to_arrays(sums), seconds)
        partial.forget(self.folder.path)

    def _collect(self, on_tokens: Callable[[int], None]) -> Moments:
        model = self.load()
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
        arrays = {
            f"{layer}.{name}": array
            for layer, sums in moments.layers.items()
            for name, array in to_arrays(sums).items()
        }
        partial.save(self.folder.path, self._identity(), moments.tokens, arrays)

    def _partial(self) -> Moments:
        """Sums of an earlier run that was stopped, if they are of the same thing."""
        found = partial.load(self.folder.path, self._identity())
        if found is None:
            return Moments()
        layers: dict[int, dict[str, Tensor]] = {}
        for key, array in found[0].items():
            layer, _, name = key.partition(".")
            layers.setdefault(int(layer), {})[name] = torch.from_numpy(array).to(self.device)
        return Moments({layer: LayerMoments(**tensors) for layer, tensors in layers.items()}, found[1])

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

    def _identity(self) -> dict[str, Any]:
        """Of the sums of all layers."""
        return dict(self.folder.identities[self.folder.jobs[0]])

    def _folder(self) -> RunFolder[Job]:
        config = {**asdict(self.settings), "window": self.windows_WT.shape[1], "layers": parse.spans(self.layers)}
        content = digest(load_text(self.settings.text))
        identity = {
            "settings": digest({**config, "windows": len(self.windows_WT), "text": content}),
            "probe_version": VERSION,
        }
        identities = {Job(NAME, layer, "experts"): identity for layer in self.layers}
        line, out = self.request.command_line, self.request.out
        return self.run_folder(NAME, identities, config, out=out, command_line=line, tables={TABLE: COLUMNS})


def to_arrays(sums: LayerMoments) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """As a run folder keeps them."""
    return {name: tensor.cpu().numpy() for name, tensor in vars(sums).items() if tensor is not None}


def from_arrays(arrays: dict[str, np.ndarray[Any, np.dtype[np.float64]]]) -> LayerMoments:
    """`to_arrays` undone."""
    return LayerMoments(**{name: torch.from_numpy(array) for name, array in arrays.items()})
