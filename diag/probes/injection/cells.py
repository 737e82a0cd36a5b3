"""Injections as cells: the mean response of a family at one design and size, resampled, and with something left out.

Legend: R runs, C cells, S seeds of a cell, W windows, B bootstrap samples, J left out in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diag.statistics.intervals import students_interval, weights

ERRORS = ("weight_error", "functional_error", "functional_error_expert", "operator_error")
CLEAR = 0.99  # share of bootstrap samples in which a response has to be positive

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One injection: its row of the table, and the change of every window's loss. Methods have no seed."""

    row: Mapping[str, Any]
    change_W: Vector

    @property
    def cell(self) -> tuple[str, str, float]:
        return self.row["design"], self.row["family"], self.row["size"]


class Cells:
    """Responses of cells, their bootstrap samples, and what they are with something left out.

    Errors are the geometric mean over a cell's seeds.
    """

    def __init__(self, runs: Sequence[Run], random: np.random.Generator, samples: int) -> None:
        by_cell: dict[tuple[str, str, float], dict[int | None, Run]] = {}
        for run in runs:
            by_cell.setdefault(run.cell, {})[run.row["seed"]] = run
        self.keys: list[tuple[str, str, float]] = list(by_cell)
        windows = len(runs[0].change_W)
        weights_BW = weights(random, samples, windows)
        seeds = sorted({run.row["seed"] for run in runs if run.row["seed"] is not None})
        families = dict.fromkeys(family for _, family, _ in self.keys)
        shares = {family: weights(random, samples, len(seeds)) for family in families} if seeds else {}
        self.drawn_C = np.array([None not in members for members in by_cell.values()])
        means, sampled = [], []
        self.errors: list[dict[str, float | None]] = []
        for key, members in by_cell.items():
            change_SW = np.stack([run.change_W for run in members.values()])
            share_BS = np.ones((samples, 1))
            if None not in members:
                share_BS = shares[key[1]][:, [seeds.index(seed) for seed in members]]
            total_B = share_BS.sum(1)
            mean_B = (share_BS * (weights_BW @ change_SW.T)).sum(1) / np.where(total_B > 0, total_B, 1.0)
            sampled.append(np.where(total_B > 0, mean_B, np.nan))
            means.append(change_SW.mean())
            self.errors.append({error: geometric([run.row[error] for run in members.values()]) for error in ERRORS})
        self.mean_C, self.mean_BC = np.array(means), np.stack(sampled, 1)
        self.mean_JC, self.groups_J = _left_out(by_cell, self.mean_C)
        self.clear_C = (self.mean_C > 0) & ((self.mean_BC > 0).mean(0) >= CLEAR)

    def bounds(self, estimate: float, left_out_J: Vector) -> tuple[float | None, float | None]:
        """Student's interval from the estimates with something left out; none where one of them has no value."""
        return students_interval(estimate, left_out_J, self.groups_J)

    def clear(self, *key: Any) -> bool:
        """Tell whether the cell's response is clearly positive."""
        return bool(self.clear_C[self.keys.index(key)])

    def column(self, error: str) -> Vector | None:
        """(C,) logarithms of an error; None where a cell has none."""
        values = [cell[error] for cell in self.errors]
        if any(value is None for value in values):
            return None
        with np.errstate(divide="ignore"):
            logs: Vector = np.log(np.array(values, dtype=np.float64))
        return logs


def _left_out(
    by_cell: Mapping[tuple[str, str, float], Mapping[int | None, Run]], mean_C: Vector
) -> tuple[Vector, NDArray[np.int64]]:
    """(J, C) responses without one window, then without one seed of one family; (J,) numbers of what is resampled.

    A family with one seed, and a single window, cannot be left out.
    """
    change_CSW = [np.stack([run.change_W for run in members.values()]) for members in by_cell.values()]
    windows = change_CSW[0].shape[1]
    by_window_CW = np.stack([change_SW.mean(0) for change_SW in change_CSW])
    known = [list(members) for members in by_cell.values()]
    without, groups = [], []
    if windows > 1:
        without += list(((windows * mean_C[:, None] - by_window_CW) / (windows - 1)).T)
        groups += [0] * windows
    for number, family in enumerate(dict.fromkeys(family for _, family, _ in by_cell), 1):
        own = [c for c, (key, members) in enumerate(by_cell.items()) if key[1] == family and None not in members]
        if not own or any(len(known[c]) < 2 for c in own):
            continue
        for seed in dict.fromkeys(seed for c in own for seed in known[c]):
            fewer_C = mean_C.copy()
            for c in [c for c in own if seed in known[c]]:
                fewer_C[c] = np.delete(change_CSW[c], known[c].index(seed), 0).mean()
            without.append(fewer_C)
            groups.append(number)
    return np.array(without).reshape(-1, len(mean_C)), np.array(groups, dtype=np.int64)


def geometric(values: Sequence[float | None]) -> float | None:
    """Mean of positive numbers; None where one is not known."""
    if any(value is None for value in values):
        return None
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(np.array(values, dtype=np.float64)).mean()))
