"""Groups of entries of one down projection, and how many of each a truncated SVD or a compressed stack gives back.

Legend: O outputs, I inputs, P entries, E experts, K ranks that are asked for, N all ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diag.probes.superweights import entry_groups
from tdmoe.numerics.recovery import recovered, recovery_curves

GROUPS = ("superweight", "top_magnitude", "activation_weighted", "random_inlier")
FACTOR_BITS = 16  # of a number of the SVD's factors: bf16

Row = dict[str, Any]


@dataclass(frozen=True)
class Tracked:
    """(P, 2) entries of each group, and why a group has none."""

    places: Mapping[str, Tensor]
    missing: Mapping[str, str]

    def flat(self) -> tuple[Tensor, dict[str, Tensor]]:
        """All entries after one another, and where those of each group are."""
        ends = np.cumsum([0, *(len(places) for places in self.places.values())]).tolist()
        at = {group: torch.arange(a, b) for group, a, b in zip(self.places, ends, ends[1:], strict=False)}
        return torch.cat(list(self.places.values())), at


def track(
    W_OI: Tensor,
    super_weights: Sequence[tuple[int, int]],
    mean_square_I: Tensor | None,
    count: int,
    generator: torch.Generator,
) -> Tracked:
    """`count` entries of each group; `mean_square_I` is None where the inputs were not seen."""
    nothing = torch.zeros(0, 2, dtype=torch.long)
    places = {
        "superweight": torch.tensor(super_weights, dtype=torch.long) if super_weights else nothing,
        "top_magnitude": entry_groups.top_magnitude(W_OI, count),
        "activation_weighted": nothing,
        "random_inlier": entry_groups.random_inliers(W_OI, count, generator),
    }
    if mean_square_I is not None:
        places["activation_weighted"] = entry_groups.activation_weighted(W_OI, mean_square_I, count)
    why = {"superweight": "none_found", "activation_weighted": "not_calibrated", "random_inlier": "none_qualify"}
    return Tracked(places, {group: why[group] for group, found in places.items() if not len(found)})


def rank_grid(most: int, count: int) -> Tensor:
    """`count` evenly spaced ranks from 1 to `most`, both included."""
    ranks_K: Tensor = torch.linspace(1, most, min(count, most), dtype=torch.float64).round().long().unique()
    return ranks_K


def svd_rows(W_OI: Tensor, experts: int, tracked: Tracked, ranks: int) -> tuple[list[Row], list[Row]]:
    """Rows of recovery over rank, and of every entry. Storage: that of `experts` matrices at this rank, in bf16."""
    outputs, inputs = W_OI.shape
    places, at = tracked.flat()
    curves = recovery_curves(W_OI, places[:, 0], places[:, 1])
    ranks_K = rank_grid(min(W_OI.shape), ranks)
    rows: list[Row] = []
    for group, among_P in at.items():
        if not len(among_P):
            rows.append({"method": "svd", "group": group, "entries": 0, "status": tracked.missing[group]})
            continue
        shares = zip(ranks_K.tolist(), curves.recovered(ranks_K, among_P), curves.stays(ranks_K, among_P), strict=True)
        for rank, share, stays in shares:
            rows.append(
                {
                    **{"method": "svd", "group": group, "rank": rank, "entries": len(among_P), "status": "ok"},
                    **{"recovered_fraction": float(share), "stays_recovered_fraction": float(stays)},
                    "stored_bits": FACTOR_BITS * experts * rank * (outputs + inputs),
                    "kept_ratio": rank * (outputs + inputs) / (outputs * inputs),
                }
            )
    entries = [
        {
            **{"group": group, "row": int(places[p, 0]), "column": int(places[p, 1])},
            "value": float(W_OI[places[p, 0], places[p, 1]]),
            **{"first_rank": int(curves.first_P[p]), "stays_from_rank": int(curves.stays_from_P[p])},
            **{"dominant_component": int(curves.dominant_P[p]), "dominant_share": float(curves.dominant_share_P[p])},
            **{"half_rank": int(curves.half_P[p]), "full_rank": min(W_OI.shape), "status": "ok"},
        }
        for group, among_P in at.items()
        for p in among_P.tolist()
    ]
    return rows, entries


@dataclass(frozen=True)
class Estimate:
    """One compressed version of a matrix, by a method's spec; bits are those of its whole stack."""

    method: str
    ratio: float | None
    rank: str
    stored_bits: int
    kept_ratio: float
    W_OI: Tensor
    calibration: str = ""


def method_rows(W_OI: Tensor, tracked: Tracked, estimates: Sequence[Estimate]) -> list[Row]:
    """Rows of one method at rising storage: recovered at this one, and at this and every higher one."""
    places, at = tracked.flat()
    w_P = W_OI[places[:, 0], places[:, 1]].double()
    rising = sorted(estimates, key=lambda estimate: estimate.stored_bits)
    found_KP = torch.stack([recovered(e.W_OI[places[:, 0], places[:, 1]].double(), w_P) for e in rising])
    stays_KP = found_KP.flip(0).cumprod(0).flip(0)
    rows: list[Row] = []
    for k, estimate in enumerate(rising):
        for group, among_P in at.items():
            share = {} if not len(among_P) else {
                "recovered_fraction": float(found_KP[k, among_P].double().mean()),
                "stays_recovered_fraction": float(stays_KP[k, among_P].double().mean()),
            }  # fmt: skip
            rows.append(
                {
                    **{"method": estimate.method, "group": group, "rank": estimate.rank, "entries": len(among_P)},
                    **{"stored_bits": estimate.stored_bits, "kept_ratio": estimate.kept_ratio},
                    **{"ratio": estimate.ratio, "calibration": estimate.calibration, **share},
                    "status": tracked.missing.get(group, "ok"),
                }
            )
    return rows
