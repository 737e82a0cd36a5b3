"""Probe `operator`: what compression leaves as an operator and in the Frobenius norm (Rethinking, section 4).

Every stack over a grid of ranks and storages: ||E||_2 of experts and unfoldings beside ||E||_F, their ratios to the
least that the rank allows, Corollary 1's bound beside the one that is proven; how that bound grows with the width of a
mode; and the spectral norm of the stack as a tensor (Proposition 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diag.compression.calibrated import check_statistics, stack_variant, statistics_of
from diag.compression.single_stacks import canonical
from diag.lockstep.variant import Recipe
from diag.probes.operator.bounds import growth
from diag.probes.operator.cases import Case, Work, grid_cases, products, storage_cases
from diag.probes.operator.columns import TABLES
from diag.probes.operator.rows import Dense, rows_of
from diag.probes.operator.settings import Settings
from tdmoe import methods
from tdmoe.forms.residual import HELD_WEIGHTS
from tdmoe.numerics.gram import MODES, ModeGram, mode_grams
from tdmoe.numerics.spectrum import Spectrum, spectrum_of
from tdmoe.numerics.tensor_norm import tensor_norm
from tdmoe.problems import InputError, WeightError
from tdmoe.stacks.blocks import BLOCK_WEIGHTS, BlockPlan, BlockReader, plan_blocks
from tdmoe.stacks.stack import WeightStack
from tdmoe.tucker.modes import basis
from tdmoe.tucker.truncation import expert_components

__all__ = ["NAME", "TABLES", "VERSION", "Settings", "plan", "run"]

NAME = "operator"
VERSION = 1  # of the code below and of diag/operator_*.py: results of another version are not reused
Vector = NDArray[np.float64]
Row = dict[str, Any]


def plan(stack: WeightStack, settings: Settings) -> BlockPlan:
    """Plan of the job's reads; InputError where a method, a ratio, the statistics and the stack do not fit."""
    blocks = plan_blocks(stack, settings.memory)
    peak = 0
    if settings.statistics is not None:
        check_statistics(Path(settings.statistics), stack, methods.Needs())
    for text in settings.methods:
        canonical(text)
        method, options = methods.parse(text)
        needs = method.needs(options)
        if settings.statistics is None and needs.statistics and not settings.promised:
            raise InputError("methods", text, "needs statistics of the inputs", "give --statistics")
        if settings.statistics is not None:
            check_statistics(Path(settings.statistics), stack, needs)
        for ratio in (0.5,) if method.fixes_storage(options) else settings.ratios:
            method.check(stack.shape, options, ratio)
            peak = max(peak, method.memory(stack.shape, options, ratio))
    held = 3 * min(HELD_WEIGHTS, math.prod(stack.shape)) * _dtype(stack).itemsize
    return replace(blocks, peak_bytes=blocks.peak_bytes + held + peak)


def run(
    stack: WeightStack,
    settings: Settings,
    *,
    device: str,
    seed: int,
    model: str,
    on_read: Callable[[int], None] | None = None,
) -> tuple[Mapping[str, list[Row]], dict[str, Vector]]:
    """Rows of the three tables; no arrays."""
    generator = torch.Generator().manual_seed(seed)
    reader = BlockReader(stack, settings.memory, on_read)
    grams, how = _grams(reader, device, seed)
    spectra: dict[str, Spectrum] = {}
    for mode, gram in grams.items():
        found = spectrum_of(gram, stack.shape, str(how["dtype"]))
        assert found is not None, "finite"
        spectra[mode] = found
    statistics = statistics_of(settings.statistics, stack)
    C_II = None if statistics is None else statistics.C_II
    work = Work(
        stack,
        reader,
        {mode: basis(gram.gram.to(device)) for mode, gram in grams.items()},
        expert_components(reader, C_II, device=device),
        statistics,
        how,
        seed,
    )
    weighted = None if C_II is None else float((grams["input"].gram * C_II.to(grams["input"].gram)).sum())
    dense = Dense(work, spectra, weighted)
    cases = [*grid_cases(work, settings.ranks), *storage_cases(work, settings.methods, settings.ratios)]
    rows = {
        "operator": [
            row | {"variant": _variant(stack, settings, case)}
            for case in cases
            for row in rows_of(case, dense, per_expert=settings.per_expert)
        ],
        "growth": _growth_rows(stack, grams, generator),
        "tensor_norm": _tensor_rows(work, spectra, generator),
    }
    return {table: [{c: row.get(c) for c in TABLES[table]} for row in found] for table, found in rows.items()}, {}


def _variant(stack: WeightStack, settings: Settings, case: Case) -> str:
    """The id of the model with this stack so compressed; truncations that are no method's are told by their rank."""
    recipe, place = Recipe(case.method, case.ratio), (stack.layer, stack.projection)
    if case.method in settings.methods:
        return stack_variant(recipe, *place, settings.statistics)
    return stack_variant(recipe, *place, source=f"rank {case.rank}")


def _grams(reader: BlockReader, device: str, seed: int) -> tuple[dict[str, ModeGram], dict[str, Any]]:
    """Grams of the three modes, and how products are taken: in float64 also where squares leave float32's range."""
    for dtype in dict.fromkeys((_dtype(reader.stack), torch.float64)):
        grams = mode_grams(reader, dtype=dtype, device=device, seed=seed)
        if all(torch.isfinite(g.gram).all() and math.isfinite(g.product_error) for g in grams.values()):
            return grams, {"dtype": dtype, "device": device}
        reader.refuse_non_finite()
    raise WeightError(f"layer {reader.stack.layer} {reader.stack.projection}: weights change while being read")


def _dtype(stack: WeightStack) -> torch.dtype:
    return products(stack, BLOCK_WEIGHTS)


def _growth_rows(stack: WeightStack, grams: Mapping[str, ModeGram], generator: torch.Generator) -> list[Row]:
    rows: list[Row] = []
    for axis, mode in enumerate(MODES):
        where = {"layer": stack.layer, "projection": stack.projection, "mode": mode}
        found = growth(grams[mode], axis, stack.shape, generator)
        slopes = {"slope_measured": found.measured, "slope_predicted": found.predicted}
        slopes |= {"slope_power_law": found.power_law}
        status = "insufficient_points" if found.measured is None else "ok"
        for at in found.widths:
            row = {"width": at.width, "k": at.k, "alpha": at.alpha, "bound": at.bound}
            rows.append(where | row | slopes | {"status": status})
        if not found.widths:
            rows.append(where | {"status": status})
    return rows


def _tensor_rows(work: Work, spectra: Mapping[str, Spectrum], generator: torch.Generator) -> list[Row]:
    found = tensor_norm(work.reader, work.bases["expert"].U_NN, generator, **work.how)
    rows: list[Row] = []
    for axis, mode in enumerate(MODES):
        norm, size = float(spectra[mode].sigma[0]), work.stack.shape[axis]
        rows.append(
            {
                **{"layer": work.stack.layer, "projection": work.stack.projection, "mode": mode},
                **{"unfolding_norm": norm, "tensor_norm_lower": found.lower},
                "unfolding_over_tensor_upper": norm / found.lower if found.lower > 0 else None,
                "limit": math.sqrt(min(size, math.prod(work.stack.shape) // size)),
                **{"starts": found.starts, "rounds": found.rounds, "status": "lower_bound" if found.lower else "zero"},
            }
        )
    return rows
