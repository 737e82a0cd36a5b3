"""Weights set to zero in the loaded model, and what that does to the loss, against as many random ones of the same
matrices.

    change = mean_w (c_w - c0_w),   c_w the mean next-token cross-entropy (nats) of window w, c0_w the dense model's

in pairs over the same windows, with its standard error over windows. Weights are zeroed together and restored after.

Legend: W windows, T tokens of a window, V vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tdmoe.down_projections import DownProjections, Entry
from tdmoe.entry_groups import random_entries

Row = dict[str, Any]


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
    on_window: Callable[[], None] = lambda: None,
) -> list[Row]:
    """The dense model's row, then one for each removal; a removal without entries says `none_found`."""
    dense_W = losses(projections.model, windows_WT, on_window)
    about = {"text": text, "windows": len(windows_WT), "window": windows_WT.shape[1]}
    rows: list[Row] = [{"group": "dense", "zeroed": 0, **_loss(dense_W), **about, "status": "ok"}]
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
            loss_W = losses(projections.model, windows_WT, on_window)
        change, stderr = _mean(loss_W - dense_W)
        rows.append(row | _loss(loss_W) | {"loss_change": change, "loss_change_stderr": stderr, "status": "ok"})
    return rows


@torch.no_grad()
def losses(model: Any, windows_WT: Tensor, on_window: Callable[[], None] = lambda: None) -> Tensor:
    """(W,): mean cross-entropy in nats of all tokens of a window but its first, from float32 logits."""
    device = next(model.parameters()).device
    found = []
    for window_T in windows_WT.to(device):
        logits_TV = model(input_ids=window_T[None], use_cache=False).logits[0, :-1].float()
        found.append(float(cross_entropy(logits_TV, window_T[1:])))
        on_window()
    return torch.tensor(found, dtype=torch.float64)


def _loss(loss_W: Tensor) -> Row:
    """Perplexity exp(c) with the standard error exp(c) stderr(c)."""
    loss, stderr = _mean(loss_W)
    perplexity = math.exp(loss) if loss < 709 else None  # overflows
    return {
        **{
            "perplexity": perplexity,
            "perplexity_stderr": perplexity * stderr if perplexity and stderr is not None else None,
        },
        **{"loss": loss, "loss_stderr": stderr},
    }


def _mean(x_W: Tensor) -> tuple[float, float | None]:
    """Mean and its standard error; None of a single window."""
    return float(x_W.mean()), float(x_W.std()) / math.sqrt(len(x_W)) if len(x_W) > 1 else None
