"""Expert-mode ablation of one stack: preserve against compress at equal storage, with published and with exact ranks.

Everything is decomposed by HOSVD in one metric: the weights themselves, or the inputs' second moment C, undamped, so
that the error of the metric is the functional error. Where C is too near to singular for factors of two bytes, it is
damped as the method does by default, and the curve's functional error stays empty.

The paper compares one published triple of each mode, whose ranks are an accident of the budget. That difference is
taken apart, e the error in the metric and r_E the expert rank of the published compress triple:

    published_difference = e(published compress) - e(published preserve)
    due_to_experts       = min e at that r_E - min e with all experts         ranks of the other modes re-optimised
    due_to_ranks         = the rest

What independent experts would give stands beside the answer: with flat spectra the expert mode is dear to cut even
where experts share nothing, and it is the other modes that decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from scipy.stats import t as student

from diag.powerlaw import jackknife_stderr
from tdmoe import methods, spec
from tdmoe.blocks import BlockReader
from tdmoe.compress import as_stored
from tdmoe.errors import stack_norms
from tdmoe.expert_mode import Binding, Point, at_ranks, binding, curve, curve_grid, prices
from tdmoe.forms import parameters
from tdmoe.gram import MODES
from tdmoe.leave_out import Held, Without, bases_without, groups
from tdmoe.methods import Allotment, StackStatistics
from tdmoe.methods.base import whole_stack
from tdmoe.methods.tdmoe import TDMoE, products_in
from tdmoe.modes import Basis, Metrics, WhitenedReader, basis, whitened_grams
from tdmoe.rank_search import ErrorTable, Grid, error_table, rank_grid
from tdmoe.ranks import ExpertMode, Ranks, Shape, budget, published_ranks
from tdmoe.similarity import rotated
from tdmoe.whitening import DAMPING, metric

Whitening = Literal["none", "input"]
Row = dict[str, Any]

LEAST_EIGENVALUE = 1e-6  # of C, over mean(diag C), for an undamped metric: its inverse root multiplies rounding
CONFIDENCE = 0.95
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
        bindings.append(about | _binding(table, left_out, null, found, ratio))
    return Ablation(points, bindings)


def _metrics(statistics: StackStatistics | None, whitening: Whitening, device: str) -> tuple[Metrics, float]:
    """The metric of the inputs, and its damping."""
    if whitening == "none":
        return {}, DAMPING
    assert statistics is not None, "checked before"
    C_II = statistics.C_II.to(device)
    least = float(torch.linalg.eigvalsh(C_II)[0])
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
    """The triple of an allocation; None where no expert can be cut."""
    if allocation == "published":
        return published_ranks(shape, ratio, expert_mode=mode)
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
    norms_W: Sequence[float],
    device: str,
) -> Row:
    """A triple made and measured as it would be stored."""
    method, options = methods.parse(name)
    allotment = Allotment(ratio, point.ranks)
    made = cast(TDMoE, method).compress(reader, options, allotment, statistics, device=device, bases=bases)
    stored, errors = as_stored(reader, made, statistics, device=device, norms_W=norms_W)
    assert parameters(stored) == point.parameters, "storage as planned"
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


def _binding(
    table: ErrorTable, left_out: Sequence[ErrorTable], null: Sequence[ErrorTable], found: Sequence[Point], ratio: float
) -> Row:
    """Is the expert mode the binding constraint: the numbers, and their intervals by leaving out groups of experts."""
    shape = table.shape
    whole = binding(table, budget(shape, ratio))
    assert whole is not None, "checked before: the least ranks with every expert fit"
    without, independent = ([binding(t, budget(t.shape, ratio)) for t in tables] for tables in (left_out, null))
    row: Row = {"experts": shape[0], "groups": len(left_out) or None, **_best(table, whole)}
    for name in ("gain", "price_share"):
        estimate = getattr(whole, name)
        row[name] = estimate
        row[f"{name}_low"], row[f"{name}_high"] = interval(
            estimate, [None if one is None else getattr(one, name) for one in without]
        )
        values = [getattr(one, name) for one in independent if one is not None and getattr(one, name) is not None]
        row[f"{name}_null"] = float(np.mean(values)) if values else None
    row |= _taken_apart(table, found, whole, ratio)
    return row | {"binding": verdict(row), "status": "ok" if whole.cut is not None else "nothing_to_cut"}


def _best(table: ErrorTable, whole: Binding) -> Row:
    best, alone = whole.best, Ranks(whole.best.ranks.expert, *table.shape[1:])
    share = at_ranks(table, alone).squared / best.squared if best.squared > 0.0 else None
    return {
        **{"rank_expert": best.ranks.expert, "error_preserve": whole.whole.error},
        **{"error_compress": whole.cut.error if whole.cut else None},
        **{"rank_expert_compress": whole.cut.ranks.expert if whole.cut else None, "expert_share": share},
    }


def _taken_apart(table: ErrorTable, found: Sequence[Point], whole: Binding, ratio: float) -> Row:
    preserve, compress = (
        at_ranks(table, published_ranks(table.shape, ratio, expert_mode=mode)) for mode in ("preserve", "compress")
    )
    same = next((point for point in found if point.ranks.expert == compress.ranks.expert), None)
    difference = compress.error - preserve.error
    experts = None if same is None else same.error - whole.whole.error
    return {
        **{"rank_expert_published": compress.ranks.expert, "published_difference": difference},
        **{"due_to_experts": experts, "due_to_ranks": None if experts is None else difference - experts},
    }


def interval(estimate: float | None, left_out: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Estimate -/+ t * the delete-a-group standard error, t of groups - 1 degrees of freedom at CONFIDENCE."""
    values = [value for value in left_out if value is not None]
    if estimate is None or len(values) < max(2, len(left_out)):
        return None, None
    error = jackknife_stderr(values)
    assert error is not None
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
    return estimate - reach, estimate + reach


def verdict(row: Row) -> str | None:
    """`no` where cutting experts lowers the error for certain; `yes` where it raises it and their mode costs most."""
    if row["gain"] is None or row["gain_low"] is None:
        return None
    if row["gain_low"] > 0.0:
        return "no"
    if row["gain_high"] < 0.0 and row["price_share_low"] is not None and row["price_share_low"] > 0.5:
        return "yes"
    return "undecided"
