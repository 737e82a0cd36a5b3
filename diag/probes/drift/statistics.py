"""Residual-stream drift: how far a variant's stream has turned from the dense model's, and how its routing differs.

    angle, ratio                                                            diag/statistics/streams.py
    agreement  |A n B| / |A|                                                A, B the experts that a token is routed to
    distance   sqrt(H((p+q)/2) - (H(p) + H(q))/2)                           Jensen-Shannon distance, base 2 (0 to 1), of
                                                                            the softmax p, q of the routers' logits

for every token, x the dense and y the variant's residual stream (Rethinking, Figure 5). Tokens of a window depend on
each other, so a window counts as one draw: the mean over windows of their means has the standard error

    sqrt(sum_w (m_w - m)^2 / (W (W - 1)))

and only running sums over windows are kept, whatever the number of tokens.

Legend: B windows of a batch, T tokens of a window, N = B T, H hidden size, E experts, W windows, V variants, L layers,
Q quantities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diag.lockstep.runner import Step
from diag.probes.drift.routing import Routing
from diag.statistics.streams import angles, norm_ratios

QUANTITIES = ("angle_deg", "norm_ratio", "routing_agreement", "routing_js")
SAME = (0.0, 1.0, 1.0, 0.0)  # of one and the same stream


def agreement(a_NE: Tensor, b_NE: Tensor) -> Tensor:
    """Share of the experts chosen in `a` that are chosen in `b` too, (N,), in float64."""
    share_N: Tensor = (a_NE & b_NE).sum(-1).double() / a_NE.sum(-1)
    return share_N


def js_distance(p_NE: Tensor, q_NE: Tensor) -> Tensor:
    """Jensen-Shannon distance, base 2, of the softmax of logits, (N,), in float64."""
    p_NE, q_NE = (logits.double().softmax(-1) for logits in (p_NE, q_NE))
    m_NE = ((p_NE + q_NE) / 2).clamp(min=torch.finfo(torch.float64).tiny)  # 0 log 0/0 is 0
    halves = [torch.xlogy(t, t / m_NE).sum(-1) / 2 for t in (p_NE, q_NE)]
    divergence_N: Tensor = (halves[0] + halves[1]) / np.log(2)
    return divergence_N.clamp(0, 1).sqrt()


def compared(x_BTH: Tensor, y_BTH: Tensor, dense: Routing, other: Routing) -> NDArray[np.float64]:
    """Means by window of QUANTITIES, (B, Q); NaN where there is nothing to compare."""
    windows = len(x_BTH)
    columns = [angles(x_BTH, y_BTH).mean(1), norm_ratios(x_BTH, y_BTH).mean(1)]
    for distance, a_NE, b_NE in (
        (agreement, dense.chosen_TE, other.chosen_TE),
        (js_distance, dense.logits_TE, other.logits_TE),
    ):
        if a_NE is None or b_NE is None or a_NE.shape != b_NE.shape:
            columns.append(columns[0].new_full((windows,), torch.nan))
        else:
            columns.append(distance(a_NE, b_NE).view(windows, -1).mean(1))
    return torch.stack(columns, 1).cpu().numpy()


def unchanged(windows: int, routing: Routing) -> NDArray[np.float64]:
    """`compared` for a stream that is still the dense one."""
    given = (True, True, routing.chosen_TE is not None, routing.logits_TE is not None)
    return np.tile(np.where(given, SAME, np.nan), (windows, 1))


@dataclass
class Sums:
    """Running means over windows, and sums of squared differences from them, of V variants at L layers."""

    count_VL: NDArray[np.float64]
    mean_VLQ: NDArray[np.float64]
    squares_VLQ: NDArray[np.float64]

    @staticmethod
    def empty(variants: int, layers: int) -> Sums:
        """Sums before the first window."""
        shape = variants, layers
        return Sums(np.zeros(shape), np.zeros((*shape, len(QUANTITIES))), np.zeros((*shape, len(QUANTITIES))))

    def add(self, variants: Sequence[int], layer: int, means_BQ: NDArray[np.float64]) -> None:
        """The windows of a batch (Chan, Golub and LeVeque's update)."""
        batch, mean_Q = len(means_BQ), means_BQ.mean(0)
        squares_Q = np.square(means_BQ - mean_Q).sum(0)
        for v in variants:
            before = self.count_VL[v, layer]
            whole = before + batch
            difference_Q = mean_Q - self.mean_VLQ[v, layer]
            self.mean_VLQ[v, layer] += difference_Q * batch / whole
            self.squares_VLQ[v, layer] += squares_Q + np.square(difference_Q) * before * batch / whole
            self.count_VL[v, layer] = whole

    def observe(self, step: Step) -> None:
        """Compare every stream with the dense model's, which is the first."""
        dense = step.streams[0]
        for stream in step.streams:
            if stream is dense:
                means_BQ = unchanged(len(dense.h_BTH), dense.seen)
            else:
                means_BQ = compared(dense.h_BTH, stream.h_BTH, dense.seen, stream.seen)
            self.add(stream.members, step.layer, means_BQ)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The sums by name."""
        return vars(self)

    def restore(self, arrays: Mapping[str, NDArray[Any]], windows: int) -> None:
        """Go on after these."""
        vars(self).update(arrays)

    def means(self, variant: int, layer: int) -> list[tuple[float | None, float | None]]:
        """(mean, standard error) of each of QUANTITIES; None where it was not measured, or of one window only."""
        count = self.count_VL[variant, layer]
        found: list[tuple[float | None, float | None]] = []
        pairs = zip(self.mean_VLQ[variant, layer], self.squares_VLQ[variant, layer], strict=True)
        for mean, squares in pairs:
            if not np.isfinite(mean) or count == 0:
                found.append((None, None))
            else:
                stderr = float(np.sqrt(squares / (count * (count - 1)))) if count > 1 else None
                found.append((float(mean), stderr))
        return found
