"""Rows of `operator.csv` from what cases lose: relative errors, their ratio to the optimum, the bounds.

A case has a row for its experts' mean and one for their maximum (`expert` mean, max; with `--per-expert` one for each),
and a row for every unfolding (`mode`). Weight and functional error are of the whole stack but in rows of one expert.

Legend: E experts, K singular values of an expert.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diag.probes.operator import bounds
from diag.probes.operator.cases import Case, Work
from diag.probes.operator.columns import TABLES
from tdmoe.numerics.gram import MODES
from tdmoe.numerics.spectrum import Spectrum

Vector = NDArray[np.float64]
Row = dict[str, Any]

EXPERT_FLOOR = 1e-7  # of an expert's largest singular value: below, its Gram in float64 says nothing


@dataclass(frozen=True)
class Dense:
    """Values of the stack itself: spectra of the unfoldings, singular values of every expert, and its norms."""

    work: Work
    spectra: dict[str, Spectrum]
    weighted: float | None  # sum_e ||W_e C^(1/2)||_F^2

    @property
    def sigma_EK(self) -> Vector:
        return self.work.components[0]

    @property
    def squared(self) -> float:
        """||W||_F^2."""
        return float((self.sigma_EK**2).sum())


def rows_of(case: Case, dense: Dense, *, per_expert: bool) -> Iterator[Row]:
    """Every row of a case."""
    work, lost = dense.work, case.found
    common = {
        **{"layer": work.stack.layer, "projection": work.stack.projection, "method": case.method, "rank": case.rank},
        **{"stored_bits": case.stored_bits, "kept_ratio": case.stored_bits / work.dense_bits, "ratio": case.ratio},
        "weight_error": _root(float(lost.squared_E.sum()), dense.squared),
        "functional_error": None if lost.weighted is None else _root(lost.weighted, dense.weighted or 0.0),
    }
    for row in [*_experts(case, dense, per_expert), *_unfoldings(case, dense)]:
        if row["status"] == "ok" and lost.weighted is None:
            row["status"] = "not_calibrated"
        whole = common | row
        yield {column: whole.get(column) for column in TABLES["operator"]}


def _experts(case: Case, dense: Dense, per_expert: bool) -> Iterator[Row]:
    sigma_EK, norms = dense.sigma_EK, case.found.experts
    alive = sigma_EK[:, 0] > 0.0
    if not alive.any():
        alive = np.ones_like(alive)
    lower_E, upper_E, squared_E = norms.lower_B[alive], norms.upper_B[alive], case.found.squared_E[alive]
    sigma_EK = sigma_EK[alive]
    whole_E = np.where(sigma_EK[:, 0] > 0, sigma_EK[:, 0], 1.0)
    next_E, status = _next_of_experts(sigma_EK, case.expert_rank)
    over_E = None if next_E is None else lower_E / next_E
    tail = None if next_E is None else float((sigma_EK[:, case.expert_rank :] ** 2).sum())
    beside = _beside_svd(case, dense, sigma_EK, lower_E, whole_E)
    for name, over in (("mean", np.mean), ("max", np.max)):
        yield {
            "expert": name,
            **{
                "operator_error": float(over(lower_E / whole_E)),
                "operator_error_upper": float(over(upper_E / whole_E)),
            },
            "operator_over_optimal": None if over_E is None else float(over(over_E)),
            **{"operator_norm": float(over(lower_E)), "operator_norm_upper": float(over(upper_E))},
            "sigma_next": None if next_E is None else float(over(next_E)),
            "weight_over_optimal": None if tail is None else math.sqrt(float(squared_E.sum()) / tail),
            **{"upper_end": norms.upper_end, "status": status},
            **beside[name],
        }
    for place, e in enumerate(np.flatnonzero(alive).tolist() if per_expert else ()):
        own = float((sigma_EK[place] ** 2).sum())
        yield {
            "expert": e,
            **{"weight_error": _root(float(squared_E[place]), own), "functional_error": None},
            "operator_error": float(lower_E[place] / whole_E[place]),
            "operator_error_upper": float(upper_E[place] / whole_E[place]),
            "operator_over_optimal": None if over_E is None else float(over_E[place]),
            **{"operator_norm": float(lower_E[place]), "operator_norm_upper": float(upper_E[place])},
            "sigma_next": None if next_E is None else float(next_E[place]),
            **{"upper_end": norms.upper_end, "status": status},
        }


def _next_of_experts(sigma_EK: Vector, rank: int | None) -> tuple[Vector | None, str]:
    """sigma_(k+1) of every expert, or why there is none."""
    if rank is None or rank >= sigma_EK.shape[1]:
        return None, "full_rank"
    if (sigma_EK[:, rank] <= EXPERT_FLOOR * sigma_EK[:, 0]).any():
        return None, "below_noise_floor"
    return sigma_EK[:, rank], "ok"


def _beside_svd(
    case: Case, dense: Dense, sigma_EK: Vector, lower_E: Vector, whole_E: Vector
) -> dict[str, dict[str, float | None]]:
    """Errors over those of an SVD of every expert that stores no more; nothing where that loses nothing."""
    experts, outputs, inputs = dense.work.stack.shape
    rank = case.stored_bits // (dense.work.item * experts * (outputs + inputs))
    empty: dict[str, float | None] = {"operator_over_svd": None, "weight_over_svd": None}
    if rank >= sigma_EK.shape[1] or (sigma_EK[:, rank] <= EXPERT_FLOOR * sigma_EK[:, 0]).any():
        return {"mean": empty, "max": empty}
    lost = math.sqrt(float((sigma_EK[:, rank:] ** 2).sum()))
    weight = math.sqrt(float(case.found.squared_E.sum())) / lost
    svd_E = sigma_EK[:, rank] / whole_E
    return {
        name: {"operator_over_svd": float(over(lower_E / whole_E) / over(svd_E)), "weight_over_svd": weight}
        for name, over in (("mean", np.mean), ("max", np.max))
    }


def _unfoldings(case: Case, dense: Dense) -> Iterator[Row]:
    lost = math.sqrt(float(case.found.squared_E.sum()))
    for mode, norms in case.found.unfoldings.items():
        spectrum = dense.spectra[mode]
        lower, upper = float(norms.lower_B[0]), float(norms.upper_B[0])
        whole = float(spectrum.sigma[0]) or 1.0
        row: Row = {
            "mode": mode,
            **{"operator_error": lower / whole, "operator_error_upper": upper / whole},
            **{
                "operator_norm": lower,
                "operator_norm_upper": upper,
                "upper_end": norms.upper_end,
                "status": "full_rank",
            },
        }
        rank = _rank_of_unfolding(case, mode)
        if rank is not None and rank < len(spectrum.sigma):
            row |= _beside_optimum(case, dense, spectrum, rank, lower, lost)
        yield row


def _rank_of_unfolding(case: Case, mode: str) -> int | None:
    """Rank of W^'s unfolding by its form: at most the mode's own, and the product of the others."""
    if case.ranks is None:
        return None
    own = case.ranks[MODES.index(mode)]
    return min(own, math.prod(case.ranks) // own) if own else 0


def _beside_optimum(case: Case, dense: Dense, spectrum: Spectrum, rank: int, lower: float, lost: float) -> Row:
    next_ = float(spectrum.sigma[rank])
    if next_ <= spectrum.noise_floor:
        return {"status": "below_noise_floor"}
    row: Row = {"sigma_next": next_, "operator_over_optimal": lower / next_, "status": "ok"}
    row["weight_over_optimal"] = lost / math.sqrt(float((spectrum.sigma[rank:] ** 2).sum()))
    if case.orthogonal:
        assert case.ranks is not None
        all_modes = [(dense.spectra[m].sigma, case.ranks[axis]) for axis, m in enumerate(MODES)]
        row |= {"bound_paper": bounds.paper(spectrum.sigma, rank), "bound_proven": bounds.proven(all_modes, next_)}
    return row


def _root(lost: float, whole: float) -> float:
    """sqrt(lost / whole), 0 where nothing was lost, also of nothing."""
    return math.sqrt(max(0.0, lost) / whole) if whole > 0.0 else 0.0
