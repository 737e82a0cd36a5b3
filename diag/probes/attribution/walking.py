"""Dense model and compressed ones walked together over the windows: of every model losses, angles and norm ratios.

Only means by window are kept. A chunk of windows goes through a layer before the next layer, so that a layer's factors,
and where the weights are more than `memory` its dense experts, are in memory one layer at a time. What has been walked
is saved now and then.

Legend: V models, Q quantities, W windows, B windows of a batch, T tokens, H hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diag.compression.factors import Factors, Recipe
from diag.compression.layer_factors import Shelf
from diag.models.hollow import Experts
from diag.models.open_model import OpenModel
from diag.models.transformer import load_model
from diag.models.walk import Stream, Walk
from diag.probes.drift.run import weight_bytes
from diag.probes.drift.statistics import angles, norm_ratios
from diag.runs import partial
from diag.statistics.evaluation import window_losses

QUANTITIES = ("losses", "angles", "norm_ratios")
BATCH_TOKENS = 4096  # through the models at once
SAVE_SECONDS = 20.0
FOUND = "found"

Vector = NDArray[np.float64]


class Walking:
    """Of one opened model. A model is given as its factors, None for the dense one."""

    def __init__(
        self, opened: OpenModel, windows_WT: Tensor, layers: Sequence[int], dtype: str, memory: int, folder: Path
    ) -> None:
        self.opened, self.windows_WT, self.layers = opened, windows_WT, layers
        self.memory, self._folder = memory, folder
        self.dtype = opened.run_dtype(dtype)
        self._itemsize = int(getattr(torch, self.dtype).itemsize)
        self._walk: Walk | None = None

    @property
    def by_layer(self) -> bool:
        """Whether experts are read layer by layer, because together with the rest they are more than `memory`."""
        return weight_bytes(self.opened.checkpoint, self._itemsize) > self.memory

    def groups(self, made: Mapping[Any, Factors | None]) -> list[list[Any]]:
        """Models that are walked together: as many as have factors of a layer in a quarter of the memory."""
        found: list[list[Any]] = [[]]
        taken: dict[Recipe, int] = {}
        for model, factors in made.items():
            new = {} if factors is None or factors.recipe in taken else {factors.recipe: self._layer_bytes(factors)}
            if taken and new and sum(taken.values()) + sum(new.values()) > self.memory // 4:
                found.append([])
                taken = new
            else:
                taken |= new
            found[-1].append(model)
        return found

    def walk(
        self, chosen: Sequence[Factors | None], identity: Sequence[Any], on_steps: Callable[[int], None]
    ) -> NDArray[np.float64]:
        """(V, Q, W) of QUANTITIES; `identity` tells what is walked, for what an earlier run left."""
        walk = self._opened_walk()
        resident = walk.resident
        shelf = Shelf(walk, {factors.recipe: factors for factors in chosen if factors is not None})
        variants: list[Any] = [{} if f is None else shelf.variant(f.recipe, self.layers) for f in chosen]
        depth = len(walk.layers)
        found_VQW, done = self._partial(identity, len(chosen))
        on_steps(done * depth)
        saved = time.monotonic()
        batch = max(1, BATCH_TOKENS // self.windows_WT.shape[1])
        for chunk_WT in self.windows_WT[done:].split(self._chunk(batch, len(chosen))):
            batches = list(chunk_WT.to(self.opened.device).split(batch))
            for layer, number, streams in walk.steps(batches, variants):
                if layer == depth - 1:
                    place = slice(done + number * batch, done + number * batch + len(batches[number]))
                    scores(walk, batches[number], streams, found_VQW[:, :, place])
                on_steps(len(batches[number]))
            done += len(chunk_WT)
            if time.monotonic() - saved > SAVE_SECONDS and done < len(self.windows_WT):
                partial.save(self._folder, list(identity), done, {FOUND: found_VQW})
                saved = time.monotonic()
        walk.resident = resident
        return found_VQW

    def forget_partial(self) -> None:
        """What was left of a walk says nothing once that is whole."""
        partial.forget(self._folder)

    def _opened_walk(self) -> Walk:
        if self._walk is None:
            opened = self.opened
            model = load_model(opened.model, opened.checkpoint.files, opened.device, self.dtype, hollow=self.by_layer)
            self._walk = Walk(model)
            if self.by_layer:
                experts = Experts(self._walk, opened.checkpoint, opened.arch, self.memory)
                self._walk.resident = experts.resident
        return self._walk

    def _layer_bytes(self, factors: Factors) -> int:
        by_layer: dict[int, int] = {}
        for row in factors.rows:
            by_layer[row["layer"]] = by_layer.get(row["layer"], 0) + int(row["parameters"]) * self._itemsize
        return max(by_layer.values(), default=0)

    def _chunk(self, batch: int, models: int) -> int:
        """Windows that are walked through a layer before the next layer: whole batches, a quarter of the memory.

        No more than a batch where nothing is read layer by layer but factors.
        """
        window = (1 + models) * self.windows_WT.shape[1] * self.opened.arch.hidden * self._itemsize
        return max(1, self.memory // 4 // (window * batch)) * batch if self.by_layer else batch

    def _partial(self, identity: Sequence[Any], models: int) -> tuple[NDArray[np.float64], int]:
        """What an earlier run that was stopped had walked, if it is of the same models; and how many windows."""
        if (found := partial.load(self._folder, list(identity))) is not None:
            return found[0][FOUND], found[1]
        return np.full((models, len(QUANTITIES), len(self.windows_WT)), np.nan), 0


def scores(walk: Walk, ids_BT: Tensor, streams: Sequence[Stream], found_VQB: Vector) -> None:
    """Means by window of the last layer's streams, the dense model's first, written to each one's models."""
    dense = streams[0]
    for stream in streams:
        members = [member for member in stream.members if member >= 0]
        if not members:
            continue
        losses_B = window_losses(walk.logits(ids_BT, stream.h_BTH), ids_BT).cpu().numpy()
        if stream is dense:
            angle_B, ratio_B = np.zeros(len(ids_BT)), np.ones(len(ids_BT))
        else:
            angle_B = angles(dense.h_BTH, stream.h_BTH).mean(1).cpu().numpy()
            ratio_B = norm_ratios(dense.h_BTH, stream.h_BTH).mean(1).cpu().numpy()
        found_VQB[members] = np.stack([losses_B, angle_B, ratio_B])
