"""Probe `experts`: is the expert mode the binding constraint of a Tucker decomposition, and how alike are the experts?

The ablation of Rethinking (appendix C.2, figure 16: preserve against compress at equal storage) with the published
ranks, which never look at the weights, and with the exact best ones (ablating.py, tdmoe/tucker/expert_mode.py); and the
similarity of experts beside that of independent ones with the same spectra (tdmoe/numerics/similarity.py).
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
from diag.lockstep.variant import Recipe
from diag.probes.experts.ablating import ALLOCATIONS, EXPERT_MODES, NULL_DRAWS, ablation, alignment_of, specs
from diag.probes.experts.columns import TABLES
from diag.probes.experts.settings import Settings
from tdmoe import methods
from tdmoe.methods import Needs, StackStatistics
from tdmoe.numerics.gram import MODES
from tdmoe.numerics.products import whole_stack
from tdmoe.numerics.similarity import Similarity, similarities
from tdmoe.numerics.whitening import DAMPING, metric
from tdmoe.problems import InputError
from tdmoe.stacks.blocks import BLOCK_WEIGHTS, BlockPlan, BlockReader, plan_blocks
from tdmoe.stacks.stack import WeightStack
from tdmoe.tucker.leave_out import groups

__all__ = ["NAME", "TABLES", "VERSION", "Settings", "plan", "run"]

NAME = "experts"
VERSION = 3
UNITS = {"gate": "output", "up": "output", "down": "input"}  # where an expert's hidden units lie, in arbitrary order
CERTAIN = 0.975  # of the null's pairs that a pair must surpass
COPIES = 3  # of a stack in float32 that are held at once: independent experts, and products of them

Row = dict[str, Any]
Vector = NDArray[np.float64]


def plan(stack: WeightStack, settings: Settings) -> BlockPlan:
    """Plan of the job's reads; InputError where ratios, statistics or settings do not fit the stack."""
    if settings.jackknife == 1:
        raise InputError(
            "jackknife", "1", "leaves no other group to compare with", "give 2 or more, or 0 for no intervals"
        )
    if not 0.0 < settings.directions <= 0.5:
        raise InputError(
            "directions",
            settings.directions,
            "is the share of an expert's directions that counts as leading",
            "give more than 0 and at most 0.5",
        )
    if settings.draws < 1:
        raise InputError("draws", settings.draws, "at least 1 draw of the null is needed")
    if settings.whitening == "input" and settings.statistics is None:
        raise InputError("whitening", "input", "needs statistics of the inputs", "give --statistics")
    for ratio in settings.ratios:
        for (_, mode), name in specs("none", DAMPING, alignment_of(stack.shape)).items():
            method, options = methods.parse(name)
            if mode == "preserve" or stack.shape[0] > 1:  # of one expert nothing can be cut, and the table says so
                method.check(stack.shape, options, ratio)
    if settings.statistics is not None:
        check_statistics(Path(settings.statistics), stack, Needs(statistics=True))
    parts = groups(stack.shape[0], settings.jackknife) if settings.jackknife else [0]
    blocks = plan_blocks(stack, settings.memory, len(parts) - 1)
    weights = math.prod(stack.shape)
    products = COPIES * (8 if weights <= BLOCK_WEIGHTS else 4) * weights
    step = alignment_of(stack.shape)
    cells = stack.shape[0] * math.prod(n // step + 1 for n in stack.shape[1:])
    tables = 4 * 8 * cells
    reads = 1 if blocks.resident else _passes(settings, len(parts) - 1)
    return replace(blocks, peak_bytes=blocks.peak_bytes + products + tables, reads=reads)


def _passes(settings: Settings, left_out: int) -> int:
    """Passes over a streamed stack: Grams, tables of products, factors, errors of triples, norms, similarity, null."""
    grams = 2 if settings.whitening == "none" else 3
    headlines = len(ALLOCATIONS) * len(EXPERT_MODES) * len(settings.ratios)
    return grams + 4 * (1 + left_out) + 2 * headlines + 2 + NULL_DRAWS


def run(
    stack: WeightStack,
    settings: Settings,
    *,
    device: str,
    seed: int,
    model: str,
    on_read: Callable[[int], None] | None = None,
) -> tuple[dict[str, list[Row]], dict[str, Vector]]:
    """Rows of the three tables; arrays: every measure of similarity pair by pair, and its null's."""
    reader = BlockReader(stack, settings.memory, on_read)
    statistics = statistics_of(settings.statistics, stack)
    generator = torch.Generator().manual_seed(seed)
    measured = ablation(
        reader,
        statistics,
        whitening=settings.whitening,
        ratios=settings.ratios,
        jackknife=settings.jackknife,
        units=UNITS[stack.projection],
        generator=generator,
        device=device,
    )
    alike = _alike(reader, statistics, settings, device, generator)
    arrays = {name: found.values_P for name, found in alike.items()}
    arrays |= {f"{name}_null": found.null_DP.ravel() for name, found in alike.items()}
    points = [row | _variant(stack, settings, row) for row in measured.points]
    rows = {NAME: points, "binding": measured.bindings, "similarity": _similarity_rows(stack, settings, alike)}
    labels = {"layer": stack.layer, "projection": stack.projection}
    return {name: _complete(rows[name], columns, labels) for name, columns in TABLES.items()}, arrays


def _variant(stack: WeightStack, settings: Settings, row: Row) -> Row:
    """The id of the model with this stack so compressed, where a method did it."""
    if (method := row.get("method")) is None:
        return {}
    ranks = "x".join(str(row.get(f"rank_{mode}")) for mode in MODES)
    recipe = Recipe(method, row["ratio"])
    return {"variant": stack_variant(recipe, stack.layer, stack.projection, settings.statistics, ranks)}


def _complete(rows: list[Row], columns: tuple[str, ...], labels: Row) -> list[Row]:
    """Every column of every row, empty where nothing was measured."""
    assert all(row.keys() <= set(columns) for row in rows), "columns of the table"
    return [{column: (labels | row).get(column) for column in columns} for row in rows]


def leading(stack: WeightStack, settings: Settings) -> int:
    """Directions of an expert that count as leading."""
    return max(1, round(settings.directions * min(stack.shape[1:])))


def _alike(
    reader: BlockReader, statistics: StackStatistics | None, settings: Settings, device: str, generator: torch.Generator
) -> Mapping[str, Similarity]:
    stack = reader.stack
    S_II = None if statistics is None else metric(statistics.C_II.to(device), 0.0).S_NN
    return similarities(
        whole_stack(reader, device=device),
        S_II,
        directions=leading(stack, settings),
        units=UNITS[stack.projection],
        draws=settings.draws,
        generator=generator,
    )


def _similarity_rows(stack: WeightStack, settings: Settings, alike: Mapping[str, Similarity]) -> list[Row]:
    if not alike:
        return [{"status": "too_few_experts"}]
    rows = [_similarity_row(stack, settings, name, found) for name, found in alike.items()]
    return rows if "input_overlap" in alike else [*rows, {"measure": "input_overlap", "status": "rank_too_low"}]


def _similarity_row(stack: WeightStack, settings: Settings, name: str, found: Similarity) -> Row:
    values, null = found.values_P, found.null_DP
    units = UNITS[stack.projection]
    other = "input" if units == "output" else "output"
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    more_alike = -1.0 if "angle" in name else 1.0
    limit = np.quantile(more_alike * null, CERTAIN)
    return {
        **{"measure": name, "directions": leading(stack, settings) if name.startswith(("input", "output")) else None},
        **{"pairs": len(values), "mean": float(values.mean()), "sd": float(values.std()), "least": float(values.min())},
        **{"q05": float(low), "median": float(middle), "q95": float(high), "greatest": float(values.max())},
        **{"null_mean": float(null.mean()), "null_sd": float(null.std()), "null_draws": len(null)},
        **{"null_pairs": null.size, "null_mean_sd": float(null.mean(axis=1).std(ddof=1)) if len(null) > 1 else None},
        **{"beyond_null": float((more_alike * values > limit).mean())},
        **{"order_free": name.startswith((f"{other}_", "aligned")) or (units == "output" and "cka" in name)},
        **{"status": "ok"},
    }
