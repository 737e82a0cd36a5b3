"""`tdmoe-diag calibrate`: second moments of routed inputs, saved as the arrays of a run folder, a job a layer.

All layers are collected in one pass over the text. What has been summed is saved now and then, so that a run that was
stopped goes on with the next windows; the sums are float64 and added in order, so it ends with the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diag.declare import parse
from diag.declare.defaults import CALIBRATION_TEXT, CALIBRATION_TOKENS
from diag.inputs.texts import check_texts, load_text, text_of
from diag.jobs.work import failing
from diag.lockstep.runner import Resumed, batch_windows
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
FEW = 10  # tokens a feature below which a second moment is told to be rough
BATCH_TOKENS = 8192  # through the model at once


@dataclass(frozen=True)
class Settings:
    """Settings that change the statistics."""

    text: str = CALIBRATION_TEXT
    tokens: int = CALIBRATION_TOKENS
    window: int | None = None
    weighting: Weighting = "count"
    per_expert: PerExpert = "none"
    outputs: bool = False

    def seen(self, window: int) -> str:
        """Key of what a method sees, in windows of so many tokens: the same for the same content of texts."""
        content = digest(text_of("calibration_text", self.text))
        return f"{content} {self.tokens} {window} {self.weighting}"


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
        with self.closing():
            self.layers = parse.layers(request.layers, self.arch.layers)
            settings = self.settings
            self.windows_WT = self.windows("text", settings.text, settings.tokens, settings.window)
            self._check_room()
            self.folder = self._folder()

    def opened(self, *, fresh: bool = False) -> list[str]:
        """The run folder taken up, or begun anew; notes for a person."""
        notes = self.folder.open(fresh=fresh, notes=self.notes())
        if fresh:
            partial.forget(self.folder.path)
        return notes

    def notes(self) -> list[str]:
        """Differences from what was asked."""
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
        """Bytes of the sums of all layers, on the device."""
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
        model, given = self.load(), self.settings
        sums, length = _Sums(Moments(), self.device), self.windows_WT.shape[1]
        batch = 1 if given.outputs else batch_windows(BATCH_TOKENS, length)  # a backward pass keeps activations
        resumed = Resumed(self.folder.path, self.folder.identities[self.folder.jobs[0]])
        how: dict[str, Any] = {name: getattr(given, name) for name in ("weighting", "per_expert", "outputs")}
        run: list[Callable[[Tensor], None]] = []

        def resume(windows: int) -> None:
            """Collect on top of what an earlier run left."""
            run.append(collected.enter_context(collecting(model, sums.moments, layers=self.layers, **how)))
            on_tokens(windows * length)

        def observe(window_BT: Tensor, first: int) -> None:
            run[0](window_BT)
            on_tokens(window_BT.numel())

        with ExitStack() as collected:
            resumed.run(self.windows_WT, sums, observe, chunk=batch, on_resume=resume)
        return sums.moments

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


@dataclass(frozen=True)
class _Sums:
    """The moments as a pass over windows saves them."""

    moments: Moments
    device: str

    def arrays(self) -> Mapping[str, np.ndarray[Any, Any]]:
        layers = {layer: to_arrays(sums) for layer, sums in self.moments.layers.items()}
        found = {f"{layer}.{name}": array for layer, arrays in layers.items() for name, array in arrays.items()}
        return found | {"tokens": np.array(self.moments.tokens)}

    def restore(self, arrays: Mapping[str, np.ndarray[Any, Any]], windows: int) -> None:
        self.moments.tokens = int(arrays["tokens"])
        layers: dict[int, dict[str, Tensor]] = {}
        for key, array in arrays.items():
            layer, _, name = key.partition(".")
            if name:
                layers.setdefault(int(layer), {})[name] = torch.from_numpy(array).to(self.device)
        self.moments.layers.update({layer: LayerMoments(**tensors) for layer, tensors in layers.items()})


def to_arrays(sums: LayerMoments) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Arrays as a run folder keeps them."""
    return {name: tensor.cpu().numpy() for name, tensor in vars(sums).items() if tensor is not None}


def from_arrays(arrays: dict[str, np.ndarray[Any, np.dtype[np.float64]]]) -> LayerMoments:
    """`to_arrays` undone."""
    return LayerMoments(**{name: torch.from_numpy(array) for name, array in arrays.items()})
