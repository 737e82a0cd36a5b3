"""Probe `spectra`: power-law exponents of the three mode unfoldings of every expert stack (Rethinking, Table 1).

For each mode: the singular values, the rank exponent alpha with its Gaussian null; the density exponent of the
eigenvalues, and how much energy the leading directions carry beside what they would carry without structure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diag.probes.spectra.columns import TABLES
from diag.probes.spectra.settings import Settings
from diag.statistics.null import gaussian_singular_values
from diag.statistics.powerlaw import RankFit, fit_density_exponent, fit_indices, fit_rank_exponent, jackknife_stderr
from tdmoe.numerics.spectrum import Spectrum, mode_spectra
from tdmoe.problems import InputError
from tdmoe.stacks.blocks import BlockPlan, BlockReader, plan_blocks
from tdmoe.stacks.stack import WeightStack

__all__ = ["NAME", "TABLES", "VERSION", "Settings", "plan", "run"]

NAME = "spectra"
VERSION = 1  # of the code below: results of another version are not reused
LARGEST_EIGENPROBLEM = 20_000  # LAPACK's 32-bit workspace overflows not far above
ENERGY_FRACTIONS = (0.10, 0.25, 0.50)

# Table 1 of Rethinking: alpha of (expert, output, input); the fit range is not stated there.
PAPER = {
    ("Qwen3-30B-A3B", (128, 768, 2048)): {
        (0, "gate"): (0.160, 0.075, 0.402),
        (0, "up"): (0.187, 0.062, 0.358),
        (12, "gate"): (0.047, 0.050, 0.197),
        (12, "up"): (0.040, 0.045, 0.190),
        (24, "gate"): (0.039, 0.053, 0.202),
        (24, "up"): (0.025, 0.046, 0.195),
        (47, "gate"): (0.052, 0.051, 0.142),
        (47, "up"): (0.048, 0.051, 0.134),
    }
}

Vector = NDArray[np.float64]
Row = dict[str, Any]


def plan(stack: WeightStack, settings: Settings) -> BlockPlan:
    """Plan of the job's reads; InputError if the stack cannot be split into `jackknife` groups or is too large."""
    if settings.jackknife and not 2 <= settings.jackknife <= stack.shape[0]:
        raise InputError(
            "jackknife",
            settings.jackknife,
            f"layer {stack.layer} has {stack.shape[0]} experts",
            f"give 2 to {stack.shape[0]} groups, or 0 for none",
        )
    if max(stack.shape) > LARGEST_EIGENPROBLEM:
        raise InputError(
            f"layer {stack.layer} {stack.projection}: shape {stack.shape} has a mode above {LARGEST_EIGENPROBLEM:,}, "
            "the limit of an exact eigensolve; leave it out with --projections or --layers"
        )
    return plan_blocks(stack, settings.memory, settings.jackknife)


def run(
    stack: WeightStack,
    settings: Settings,
    *,
    device: str,
    seed: int,
    model: str,
    on_read: Callable[[int], None] | None = None,
) -> tuple[dict[str, list[Row]], dict[str, Vector]]:
    """Rows of `spectra.csv` and the arrays behind them: each mode's singular values and its Gaussian null's."""
    reader = BlockReader(stack, settings.memory, on_read)
    spectra = mode_spectra(reader, device=device, groups=settings.jackknife, seed=seed)
    rows: list[Row] = []
    arrays: dict[str, Vector] = {}
    weights = int(np.prod(stack.shape))
    paper = PAPER.get((model, stack.shape), {}).get((stack.layer, stack.projection))
    for axis, (mode, spectrum) in enumerate(spectra.modes.items()):
        null = gaussian_singular_values(stack.shape[axis], weights)
        null *= np.linalg.norm(spectrum.sigma) / np.linalg.norm(null)
        row = {"layer": stack.layer, "projection": stack.projection, "mode": mode}
        row |= _measure(spectrum, null, settings, spectra.leave_out.get(mode, []))
        row |= {"alpha_paper": paper[axis] if paper else None, "precision": spectrum.precision}
        rows.append({column: row[column] for column in TABLES[NAME]})
        arrays |= {mode: spectrum.sigma, f"{mode}_null": null}
    return {NAME: rows}, arrays


def _measure(spectrum: Spectrum, null: Vector, settings: Settings, leave_out: list[Vector]) -> Row:
    sigma = spectrum.sigma
    first, last = fit_indices(sigma, spectrum.noise_floor, settings.fit_range)
    fit = fit_rank_exponent(sigma, first, last)
    density = fit_density_exponent(sigma[sigma > spectrum.noise_floor] ** 2)
    status = "insufficient_points" if fit.alpha is None else "insufficient_tail" if density is None else "ok"
    row: Row = {
        "n": len(sigma),
        **{"alpha": fit.alpha, "alpha_stderr": fit.stderr, "r2": fit.r2, "fit_first": fit.first, "fit_last": fit.last},
        "alpha_null": fit_rank_exponent(null, first, last).alpha,
        "alpha_jackknife_stderr": jackknife_stderr(_left_out_alphas(leave_out, spectrum, settings)),
        **_sizes(sigma),
        "effective_rank_null": effective_rank(null),
        "sigma_max": float(sigma[0]),
        "noise_floor": spectrum.noise_floor,
        "status": status,
    }
    found = asdict(density) if density else {}
    row |= {
        "alpha_density": found.get("alpha"),
        "alpha_density_stderr": found.get("stderr"),
        "density_xmin": found.get("xmin"),
        "density_tail": found.get("tail"),
    }
    for name in ("lognormal", "truncated"):
        row[f"{name}_ratio"], row[f"{name}_p"] = found.get(name, (None, None))
    for fraction in ENERGY_FRACTIONS:
        key = f"energy_{round(100 * fraction)}"
        row[key], row[f"{key}_null"] = energy(sigma, fraction), energy(null, fraction)
    return row


def _left_out_alphas(leave_out: list[Vector], spectrum: Spectrum, settings: Settings) -> list[float]:
    """Alpha with each group of experts left out, over the same fractions of the indices."""
    fits: list[RankFit] = []
    for sigma in leave_out:
        fits.append(fit_rank_exponent(sigma, *fit_indices(sigma, spectrum.noise_floor, settings.fit_range)))
    alphas = [fit.alpha for fit in fits if fit.alpha is not None]
    return alphas if len(alphas) == len(leave_out) else []


def _sizes(sigma: Vector) -> Row:
    energy_total = float(sigma @ sigma)
    stable = energy_total / float(sigma[0]) ** 2 if sigma[0] > 0 else None
    return {"effective_rank": effective_rank(sigma), "stable_rank": stable}


def effective_rank(sigma: Vector) -> float | None:
    """exp(-sum p_i log p_i) with p_i = sigma_i / sum sigma (Roy & Vetterli 2007); None for a zero matrix."""
    total = sigma.sum()
    if total == 0:
        return None
    p = sigma[sigma > 0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


def energy(sigma: Vector, fraction: float) -> float | None:
    """Share of sum sigma^2 in the first ceil(fraction * n) values; None for a zero matrix."""
    squares = sigma**2
    total = squares.sum()
    return float(squares[: int(np.ceil(fraction * len(sigma)))].sum() / total) if total > 0 else None
