"""The Pareto frontier of ranks of every stack: what `compress --across global` shares one budget by.

Squared errors are those of the HOSVD in the metric of the method's spec, exact for every aligned triple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from diag.compression.calibrated import stack_variant, statistics_of
from diag.compression.compressing import Settings, plan
from diag.lockstep.variant import Recipe
from diag.runs.results import Row
from tdmoe import methods
from tdmoe.stacks.joint import Stack, reader
from tdmoe.tucker.rank_search import Frontier
from tdmoe.tucker.shared_budget import lower_hull

__all__ = ["Settings", "plan"]

NAME = "frontier"
VERSION = 1
COLUMNS = (
    *("layer", "projection", "method", "rank_expert", "rank_output", "rank_input", "parameters", "kept_ratio"),
    *("error", "on_hull", "status", "variant"),
)
TABLES = {NAME: COLUMNS}
UNIDENTIFIED = ("memory", "to", "statistics", "calibrates", "allotted", "ratio")


def run(
    stack: Stack,
    settings: Settings,
    *,
    device: str,
    seed: int,
    model: str,
    on_read: Callable[[int], None] | None = None,
) -> tuple[dict[str, list[Row]], Mapping[str, NDArray[np.float64]]]:
    """A row a point: `error` is relative to the stack's norm, in the metric of the method."""
    method, options = methods.parse(settings.method)
    source = reader(stack, settings.memory, on_read)
    found = method.frontier(source, options, statistics_of(settings.statistics, stack), device=device)
    corners = set(lower_hull(found.parameters_n.astype(np.float64), found.squared_n).tolist())
    dense = int(np.prod(stack.shape))
    place = stack.layer, stack.projection
    rows = [
        {
            **{"layer": stack.layer, "projection": stack.projection, "method": settings.method},
            **dict(zip(COLUMNS[3:6], ranks, strict=True)),
            **{"parameters": parameters, "kept_ratio": parameters / dense, "error": squared**0.5},
            **{"on_hull": i in corners, "status": "ok"},
            "variant": stack_variant(Recipe(settings.method, None), *place, settings.statistics, str(ranks)),
        }
        for i, (parameters, ranks, squared) in enumerate(
            zip(found.parameters_n.tolist(), found.ranks_n3.tolist(), found.squared_n.tolist(), strict=True)
        )
    ]
    arrays = {
        "parameters": found.parameters_n.astype(np.float64),
        "ranks": found.ranks_n3.astype(np.float64),
        "squared": found.squared_n,
    }
    return {NAME: rows}, arrays


def from_arrays(arrays: Mapping[str, NDArray[np.float64]]) -> Frontier:
    """Frontier that `run` saved."""
    parameters, ranks = (arrays[name].astype(np.int64) for name in ("parameters", "ranks"))
    return Frontier(parameters, ranks, arrays["squared"])
