"""TD-MoE: joint Tucker decomposition of a layer's stacked experts, whitened by the second moment of their inputs.

The defaults are the method done right: W S with S S^T = C, the exact best ranks under the budget, HOOI. The published
choices are options, so that each can be measured alone: `allocation=published` (ranks that hit the budget and never
look at the weights), `whitening=none` (as in Rethinking), `whitening_direction=inverse` (both public
re-implementations), `decomposition=hosvd`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tdmoe.blocks import BLOCK_WEIGHTS, BlockReader
from tdmoe.methods import StackStatistics
from tdmoe.modes import Basis, Metrics, mode_bases
from tdmoe.problems import InputError
from tdmoe.rank_search import Grid, error_table, grid_parameters, interesting, rank_grid
from tdmoe.ranks import Ranks, Shape, budget, published_ranks
from tdmoe.tucker import TuckerExperts, finish, hooi, hosvd, st_hosvd
from tdmoe.whitening import DAMPING, inverse_metric, metric

NAME = "tdmoe"
DISPLAY = "TD-MoE"


@dataclass(frozen=True)
class Options:
    """`expert_mode` auto lets the exact search decide, and preserves experts under a published allocation."""

    whitening: Literal["none", "input"] = "input"
    whitening_direction: Literal["correct", "inverse"] = "correct"
    allocation: Literal["exact", "published", "published_every"] = "exact"
    expert_mode: Literal["auto", "preserve", "compress"] = "auto"
    decomposition: Literal["hooi", "hosvd", "st_hosvd"] = "hooi"
    damping: float = DAMPING


def check(shape: Shape, options: Options, ratio: float, *, calibrated: bool) -> None:
    """InputError where the ratio leaves no ranks, or whitening has no statistics."""
    allowed = budget(shape, ratio)
    if options.whitening == "input" and not calibrated:
        raise InputError("--method tdmoe: whitening=input needs statistics; give --tokens, or whitening=none")
    if not (math.isfinite(options.damping) and options.damping >= 0):
        raise InputError(f"--method tdmoe: damping is {options.damping}; a number of at least 0 is needed")
    none, inverse = options.whitening == "none", options.whitening_direction == "inverse"
    if none and inverse:
        raise InputError("--method tdmoe: whitening_direction says nothing where whitening=none; give one of them")
    if (none or inverse) and options.damping != DAMPING:
        raise InputError("--method tdmoe: damping is that of the correct metric only; give one of them")
    if options.allocation == "exact":
        least = int(grid_parameters(shape, _grid(shape, options)).min())
        if least > allowed:
            raise InputError(
                f"--ratio {ratio}: leaves {allowed:,.0f} parameters of a {' x '.join(map(str, shape))} stack, the "
                f"least ranks take {least:,}; lower the ratio"
            )
    else:
        _published(shape, options, ratio)


def compress(
    reader: BlockReader,
    options: Options,
    ratio: float,
    statistics: StackStatistics | None,
    *,
    device: str,
) -> TuckerExperts:
    """Ranks, then factors; products in float32, for a stack of a single block in float64."""
    shape = reader.stack.shape
    small = shape[0] * shape[1] * shape[2] <= BLOCK_WEIGHTS
    how: dict[str, Any] = {"dtype": torch.float64 if small else torch.float32, "device": device}
    metrics = _metrics(options, statistics, device)
    bases = mode_bases(reader, metrics, **how)
    ranks = _ranks(reader, metrics, bases, options, ratio, how)
    if options.decomposition == "st_hosvd":
        factors = st_hosvd(reader, metrics, ranks, first=bases, **how)
    else:
        factors = hosvd(bases, ranks)
    if options.decomposition == "hooi":
        factors, _ = hooi(reader, metrics, factors, float(bases["input"].energy_N.sum()), **how)
    return finish(reader, metrics, factors, **how)


def _metrics(options: Options, statistics: StackStatistics | None, device: str) -> Metrics:
    if options.whitening == "none":
        return {}
    assert statistics is not None, "checked before"
    C_II = statistics.C_II.to(device)
    inverse = options.whitening_direction == "inverse"
    return {"input": inverse_metric(C_II) if inverse else metric(C_II, options.damping)}


def _ranks(
    reader: BlockReader,
    metrics: Metrics,
    bases: dict[str, Basis],
    options: Options,
    ratio: float,
    how: dict[str, Any],
) -> Ranks:
    shape = reader.stack.shape
    if options.allocation != "exact":
        return _published(shape, options, ratio)
    allowed, grid = budget(shape, ratio), _grid(shape, options)
    if options.expert_mode != "compress":
        grid = interesting(bases, shape, grid, allowed)  # its bounds count on the full mode
    return error_table(reader, metrics, bases, grid, **how).best(
        allowed, cut_experts=options.expert_mode == "compress"
    )[0]


def _grid(shape: Shape, options: Options) -> Grid:
    return rank_grid(shape, preserve_experts=options.expert_mode == "preserve")


def _published(shape: Shape, options: Options, ratio: float) -> Ranks:
    mode: Literal["preserve", "compress"] = "compress" if options.expert_mode == "compress" else "preserve"
    rule: Literal["aligned", "every"] = "aligned" if options.allocation == "published" else "every"
    return published_ranks(shape, ratio, expert_mode=mode, rule=rule)
