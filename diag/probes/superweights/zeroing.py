"""Weights set to zero in the loaded model, and what that does to the loss, against as many random ones of the same
matrices.

    change = mean_w (c_w - c0_w),   c_w the mean next-token cross-entropy (nats) of window w, c0_w the dense model's

in pairs over the same windows, with its standard error over windows. Weights are zeroed together and restored after.
Random draws of one removal are averaged window by window, c_w = mean_d c_dw, and compared like one: its standard error
is over windows too.

Legend: W windows, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diag.probes.superweights.entry_groups import random_entries
from diag.statistics.evaluation import model_losses, paired, perplexity
from tdmoe.runtime.down_projections import DownProjections, Entry

RANDOM_MEAN = "random_mean"  # group of the mean over draws

Row = dict[str, Any]
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Removal:
    """Weights that are zeroed together; `draw` numbers those drawn at random."""

    group: str
    entries: Sequence[Entry]
    draw: int | None = None
    layer: int | None = None
    projection: str | None = None
    expert: int | None = None


def beside_random(
    removal: Removal, projections: DownProjections, draws: int, generator: torch.Generator
) -> Iterator[Removal]:
    """The removal, and `draws` others of as many entries drawn from each of its matrices."""
    yield removal
    counts = Counter(entry.site for entry in removal.entries)
    for draw in range(draws if removal.entries else 0):
        drawn = [
            Entry(site, row, column)
            for site, count in counts.items()
            for row, column in random_entries(projections.matrix(site).shape, count, generator).tolist()
        ]
        place = (removal.layer, removal.projection, removal.expert)
        yield Removal("random", drawn, draw, *place)


def ablation_rows(
    projections: DownProjections,
    removals: Sequence[Removal],
    windows_WT: Tensor,
    text: str,
    on_window: Callable[[int], None] = lambda count: None,
) -> list[Row]:
    """The dense model's row, one for each removal, and one for the mean of every removal's random draws.

    A removal without entries says `none_found`.
    """
    dense_W = model_losses(projections.model, windows_WT, on_windows=on_window)
    about = {"text": text, "windows": len(windows_WT), "window": windows_WT.shape[1]}
    rows: list[Row] = [{"group": "dense", "zeroed": 0, **_loss(dense_W), **about, "status": "ok"}]
    drawn: dict[tuple[Any, ...], list[Vector]] = {}
    for removal in removals:
        row: Row = {
            **{"layer": removal.layer, "projection": removal.projection, "expert": removal.expert},
            **{"group": removal.group, "draw": removal.draw, "zeroed": len(removal.entries)},
            **about,
        }
        if not removal.entries:
            rows.append(row | {"status": "none_found"})
            continue
        with projections.zeroed(removal.entries):
            loss_W = model_losses(projections.model, windows_WT, on_windows=on_window)
        rows.append(row | _changed(loss_W, dense_W))
        if removal.draw is not None:
            place = (removal.layer, removal.projection, removal.expert, len(removal.entries))
            drawn.setdefault(place, []).append(loss_W)
    for place, losses_DW in drawn.items():
        labels = dict(zip(("layer", "projection", "expert", "zeroed"), place, strict=True))
        changed = _changed(np.mean(losses_DW, 0), dense_W)
        rows.append({"group": RANDOM_MEAN, **labels, **about, **changed})
    return rows


def _changed(loss_W: Vector, dense_W: Vector) -> Row:
    change = paired(loss_W, dense_W)
    return {**_loss(loss_W), "loss_change": change.value, "loss_change_stderr": change.stderr, "status": "ok"}


def _loss(loss_W: Vector) -> Row:
    """Perplexity exp(c) with the standard error exp(c) stderr(c); empty where it overflows."""
    found = perplexity(loss_W)
    whole = math.isfinite(found.value)
    return {
        **{"perplexity": found.value if whole else None, "perplexity_stderr": found.stderr if whole else None},
        **{"loss": found.loss.value, "loss_stderr": found.loss.stderr},
    }
