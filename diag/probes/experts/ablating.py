"""Expert-mode ablation of one stack: preserve against compress at equal storage, with published and with exact ranks.

Everything is decomposed by HOSVD in one metric: the weights themselves, or the inputs' second moment C, undamped, so
that the error of the metric is the functional error. Where C is too near to singular for factors of two bytes, it is
damped as the method does by default, and the curve's functional error stays empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch

from diag.probes.experts.binding import binding_row
from tdmoe import methods, spec
from tdmoe.compression.compress import as_stored
from tdmoe.methods import Allotment, StackStatistics
from tdmoe.methods.tdmoe import TDMoE, products_in
from tdmoe.numerics import lapack
from tdmoe.numerics.errors import stack_norms
from tdmoe.numerics.gram import MODES
from tdmoe.numerics.operator_norm import Norms
from tdmoe.numerics.products import whole_stack
from tdmoe.numerics.ranks import ExpertMode, Ranks, Shape, budget, published_ranks
from tdmoe.numerics.similarity import rotated
from tdmoe.numerics.whitening import DAMPING, metric
from tdmoe.stacks.blocks import BlockReader
from tdmoe.tucker.expert_mode import Point, at_ranks, curve, curve_grid, prices
from tdmoe.tucker.leave_out import Held, Without, bases_without, groups
from tdmoe.tucker.modes import Basis, Metrics, WhitenedReader, basis, whitened_grams
from tdmoe.tucker.rank_search import ErrorTable, Grid, error_table, rank_grid

Whitening = Literal["none", "input"]
Row = dict[str, Any]

LEAST_EIGENVALUE = 1e-6  # of C, over mean(diag C), for an undamped metric: its inverse root multiplies rounding
NULL_DRAWS = 2  # stacks of independent experts
CELLS = 5_000_000  # of an error table: steps of 8 for 128 x 768 x 2048
EXPERT_MODES: tuple[ExpertMode, ...] = ("preserve", "compress")
ALLOCATIONS = ("published", "exact")
SHARED = ("rank_expert", "rank_output", "rank_input", "parameters", "kept_ratio")


@dataclass(frozen=True)
class Ablation:
    """Rows of `experts.csv` and of `binding.csv`, without layer and projection."""

    points: list[Row]
    bindings: list[Row]


def specs(whitening: Whitening, damping: float, alignment: int) -> dict[tuple[str, ExpertMode], str]:
    """{(allocation, expert mode): canonical spec of the method} of the four triples that are made and measured."""
    found = {}
    for allocation in ALLOCATIONS:
        for mode in EXPERT_MODES:
            options = {"whitening": whitening, "allocation": allocation, "expert_mode": mode, "decomposition": "hosvd"}
            if whitening == "input":
                options["damping"] = str(damping)
            elif allocation == "exact":
                options["objective"] = "weight"
            if allocation == "exact":
                options["alignment"] = str(alignment)
            named = "tdmoe:" + ",".join(f"{key}={value}" for key, value in options.items())
            found[allocation, mode] = spec.text("tdmoe", methods.parse(named)[1])
    return found


def ablation(
    reader: BlockReader,
    statistics: StackStatistics | None,
    *,
    whitening: Whitening,
    ratios: Sequence[float],
    jackknife: int,
    units: str,
    generator: torch.Generator,
    device: str,
) -> Ablation:
    """Measure one stack; `units` is the mode whose order is arbitrary. WeightError where it holds NaN or infinity."""
    shape, how = reader.stack.shape, products_in(reader, device)
    metrics, damping = _metrics(statistics, whitening, device)
    bounds = groups(shape[0], jackknife) if jackknife else [0, shape[0]]
    grams = whitened_grams(reader, metrics, bounds=bounds, **how)
    if not all(torch.isfinite(gram.gram).all() for gram in grams.values()):
        reader.refuse_non_finite()
    if not float(grams["input"].gram.trace()) > 0.0:
        return Ablation([{"status": "zero_weights"}], [{"status": "zero_weights"}])
    bases = {mode: basis(gram.gram.to(device)) for mode, gram in grams.items()}
    table = _table(reader, metrics, bases, ratios, how)
    left_out = []
    for g in range(len(bounds) - 1 if len(bounds) > 2 else 0):
        fewer = Without(reader, bounds[g], bounds[g + 1])
        without = bases_without(grams, bounds, g, device)
        left_out.append(_table(fewer, metrics, without, ratios, how))
    null = [_independent(reader, metrics, ratios, units, generator, how) for _ in range(NULL_DRAWS)]
    norms_W = stack_norms(reader, device=device)
    named = specs(whitening, damping, alignment_of(shape))
    points: list[Row] = []
    bindings: list[Row] = []
    about: Row = {"metric": "weights" if whitening == "none" else "inputs"}
    for ratio in ratios:
        about |= {"ratio": ratio}
        found = curve(table, budget(shape, ratio))
        for (allocation, mode), name in named.items():
            row = {"expert_mode": mode, "allocation": allocation, "point": "headline", "method": name, **about}
            ranks = _chosen(shape, found, ratio, allocation, mode)
            if ranks is None:
                points.append(row | {"status": "nothing_to_cut"})
                continue
            points.append(
                row | _headline(reader, name, at_ranks(table, ranks), table, statistics, bases, ratio, norms_W, device)
            )
        points += [about | _on_curve(shape, point, whitening, damping) for point in found]
        bindings.append(about | binding_row(table, left_out, null, found, ratio))
    return Ablation(points, bindings)


def _metrics(statistics: StackStatistics | None, whitening: Whitening, device: str) -> tuple[Metrics, float]:
    """The metric of the inputs, and its damping."""
    if whitening == "none":
        return {}, DAMPING
    assert statistics is not None, "checked before"
    C_II = statistics.C_II.to(device)
    least = float(lapack.eigvalsh(C_II)[0])
    damping = 0.0 if least >= LEAST_EIGENVALUE * float(C_II.diagonal().mean()) else DAMPING
    return {"input": metric(C_II, damping)}, damping


def _table(
    reader: BlockReader | Without | Held, metrics: Metrics, bases: dict[str, Basis], ratios: Sequence[float], how: Any
) -> ErrorTable:
    """Errors of all triples that the curves may need, and of the published ones."""
    shape = reader.stack.shape
    published = [published_ranks(shape, ratio, expert_mode=mode) for ratio in ratios for mode in EXPERT_MODES]
    grid = curve_grid(bases, shape, _grid(shape, published), [budget(shape, ratio) for ratio in ratios], published)
    return error_table(reader, metrics, bases, grid, **how)


def _independent(
    reader: BlockReader, metrics: Metrics, ratios: Sequence[float], units: str, generator: torch.Generator, how: Any
) -> ErrorTable:
    """The table of independent experts: each rotated by itself among its hidden units, in the metric.

    Their own singular values stay, and so does the Gram of the other mode, what all of them have in common there.
    """
    turned = Held(rotated(whole_stack(WhitenedReader(reader, metrics), **how), MODES.index(units), generator))
    bases = {mode: basis(gram.gram.to(how["device"])) for mode, gram in whitened_grams(turned, {}, **how).items()}
    return _table(turned, {}, bases, ratios, how)


def _grid(shape: Shape, published: Sequence[Ranks]) -> Grid:
    experts, outputs, inputs = rank_grid(shape, alignment=alignment_of(shape))
    outputs = np.unique([*outputs, *(ranks.output for ranks in published)])
    return experts, outputs, np.unique([*inputs, *(ranks.input for ranks in published)])


def alignment_of(shape: Shape) -> int:
    """The step of output and input ranks, a power of two: the finest of which the table has no more than CELLS.

    Fine steps are what keeps storage equal: one of 8 is 4 % of a stack with 192 inputs, 0.4 % of one with 2048.
    """
    alignment = 1
    while shape[0] * (shape[1] // alignment + 1) * (shape[2] // alignment + 1) > CELLS:
        alignment *= 2
    return alignment


def _chosen(shape: Shape, found: Sequence[Point], ratio: float, allocation: str, mode: ExpertMode) -> Ranks | None:
    """The triple of an allocation; None where experts are to be cut and none can be, or the published triple has none.

    A published compress triple of full expert rank is one of preserve, and no point of the ablation.
    """
    if allocation == "published":
        ranks = published_ranks(shape, ratio, expert_mode=mode)
        return ranks if mode == "preserve" or ranks.expert < shape[0] else None
    fitting = [point for point in found if (point.ranks.expert == shape[0]) == (mode == "preserve")]
    return min(fitting, key=lambda point: (point.squared, point.parameters)).ranks if fitting else None


def _headline(
    reader: BlockReader,
    name: str,
    point: Point,
    table: ErrorTable,
    statistics: StackStatistics | None,
    bases: Mapping[str, Basis],
    ratio: float,
    norms_W: Norms,
    device: str,
) -> Row:
    """A triple made and measured as it would be stored."""
    method, options = methods.parse(name)
    allotment = Allotment(ratio, point.ranks)
    made = cast(TDMoE, method).compress(reader, options, allotment, statistics, device=device, bases=bases)
    stored, errors = as_stored(reader, made, statistics, device=device, norms_W=norms_W)
    assert stored.parameters == point.parameters, "storage as planned"
    return {
        **_storage(reader.stack.shape, point),
        **{"weight_error": errors.weight, "functional_error": errors.functional, "operator_error": errors.operator},
        **{"status": "ok" if statistics is not None else "not_calibrated", "metric_error": point.error},
        **{"operator_error_max": errors.operator_max},
        **{f"price_{mode}": price for mode, price in prices(table, point.ranks).items()},
    }


def _on_curve(shape: Shape, point: Point, whitening: Whitening, damping: float) -> Row:
    mode = "preserve" if point.ranks.expert == shape[0] else "compress"
    return {
        **{"expert_mode": mode, "allocation": "exact", "point": "curve", **_storage(shape, point)},
        **{"weight_error": point.error if whitening == "none" else None},
        **{"functional_error": point.error if whitening == "input" and damping == 0.0 else None},
        **{"status": "from_table", "metric_error": point.error},
    }


def _storage(shape: Shape, point: Point) -> Row:
    dense = int(np.prod(shape, dtype=np.int64))
    return dict(zip(SHARED, (*point.ranks, point.parameters, point.parameters / dense), strict=True))
