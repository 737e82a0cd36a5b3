"""Losses of windows of tokens, perplexity, and differences between models on the same windows or documents.

The loss of a scored token is its next-token cross-entropy in nats, computed in float32 from the logits, never from a
model's own loss (which may carry a load-balancing term). With c_w the mean loss of window w of W, every window with as
many scored tokens,

    perplexity = exp(c),   c = mean_w c_w,   stderr(c) = sqrt(sum_w (c_w - c)^2 / (W (W - 1))),
    stderr(perplexity) = perplexity * stderr(c)      (delta method, first order).

Two models on the same windows are compared in pairs, d_w = c_w - c'_w, with the mean of d and its standard error: what
makes a window hard for both cancels. Likewise answers to the same documents, 1 for right and 0 for wrong. A standard
error takes windows (documents) as independent draws and needs two of them.

Legend: W windows, B windows of a batch, T tokens of a window, V vocabulary, N measurements in pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LOGITS = 2**27  # entries that are turned into float32 at once


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of independent measurements; `stderr` is None where there is only one."""

    value: float
    stderr: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Perplexity:
    """Perplexity with its standard error over windows; `loss` in nats."""

    value: float
    stderr: float | None
    loss: Mean


def mean(x_N: NDArray[np.float64]) -> Mean:
    """Arithmetic mean and its standard error."""
    stderr = float(x_N.std(ddof=1)) / math.sqrt(len(x_N)) if len(x_N) > 1 else None
    return Mean(float(x_N.mean()), stderr, len(x_N))


def paired(x_N: NDArray[np.float64], y_N: NDArray[np.float64]) -> Mean:
    """Mean of x - y, measured on the same windows or documents in the same order."""
    if len(x_N) != len(y_N):
        raise ValueError(f"measurements in pairs: {len(x_N)} of one, {len(y_N)} of the other")
    return mean(x_N - y_N)


def perplexity(loss_W: NDArray[np.float64]) -> Perplexity:
    """Perplexity of the mean losses of windows, every window with as many scored tokens. inf where exp overflows."""
    loss = mean(loss_W)
    value = math.exp(loss.value) if loss.value < 709 else math.inf
    return Perplexity(value, None if loss.stderr is None else value * loss.stderr, loss)


def token_losses(logits_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """Cross-entropy in nats of every token but a window's first, which has no context: (B, T - 1), float64."""
    rows_NV, targets_N = logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten()
    step = max(1, LOGITS // rows_NV.shape[-1])
    parts = [
        nn.functional.cross_entropy(part_NV.float(), part_N, reduction="none").double()
        for part_NV, part_N in zip(rows_NV.split(step), targets_N.split(step), strict=True)
    ]
    return torch.cat(parts).view(len(ids_BT), -1)


def window_losses(logits_BTV: Tensor, ids_BT: Tensor, scored: int | None = None) -> Tensor:
    """Mean loss of the last `scored` tokens of every window (default: all but its first), (B,), float64."""
    scored = ids_BT.shape[1] - 1 if scored is None else scored
    return token_losses(logits_BTV[:, -scored - 1 :], ids_BT[:, -scored - 1 :]).mean(1)


@torch.no_grad()
def model_losses(
    model: Any,
    ids_WT: Tensor,
    scored: int | None = None,
    batch: int = 1,
    on_windows: Callable[[int], None] = lambda count: None,
) -> NDArray[np.float64]:
    """`window_losses` of a model of transformers on its device, `batch` windows at a time."""
    losses = []
    for ids_BT in ids_WT.to(getattr(model, "device", ids_WT.device)).split(batch):
        losses.append(window_losses(model(input_ids=ids_BT, use_cache=False).logits, ids_BT, scored).cpu())
        on_windows(len(ids_BT))
    return torch.cat(losses).numpy()
