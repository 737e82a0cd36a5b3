"""TD-MoE: joint Tucker decomposition of a layer's stacked experts, whitened by the second moment of their inputs.

The defaults are the method done right: W S with S S^T = C, the exact best ranks under the budget, HOOI. The published
choices are options, so that each can be measured alone: `allocation=published` (ranks that hit the budget and never
look at the weights; `published_stored`: by what is stored of them, not by what the published code charges),
`whitening=none` (as in Rethinking), `whitening_direction=inverse` (both public re-implementations),
`decomposition=hosvd`. `decomposition=tensorly` is tensorly's own HOOI, to check ours against.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from tdmoe.forms.tucker import TuckerWeights
from tdmoe.method.contract import Allotment, Budgeted, Method, Needs, Sharing, Statistics
from tdmoe.numerics.ranks import (
    ALIGNMENT,
    Ranks,
    Shape,
    beyond_budget,
    budget,
    check_alignment,
    named,
    published_ranks,
    stored_ranks,
)
from tdmoe.numerics.whitening import DAMPING, DampedNorm, Metric, check_damping, inverse_metric, metric
from tdmoe.stacks.blocks import BLOCK_WEIGHTS
from tdmoe.stacks.source import WeightSource
from tdmoe.tucker.core_refit import refit_core
from tdmoe.tucker.decomposition import finish, hooi, hosvd, st_hosvd
from tdmoe.tucker.modes import Basis, Metrics, mode_bases
from tdmoe.tucker.rank_choice import best_ranks, measured_error
from tdmoe.tucker.rank_search import Frontier, Grid, error_table, grid_parameters, rank_grid
from tdmoe.tucker.reference import COPIES, LARGEST, partial_tucker

TRIPLES = 20_000_000  # of an error table: some copies of it are held at once
FRONTIER_STEPS = 5000  # of a stack's parameters between two points that are kept of its frontier


@dataclass(frozen=True)
class Options(Budgeted):
    """`expert_mode` auto lets the exact search decide, and preserves experts under a published allocation.

    `objective` functional is meant in the metric where there are no statistics: whitening=none then goes by weights.
    `gate_up` joint decomposes the two as one stack (E, 2O, I). `refit` expert solves the core again under each expert's
    own metric. `across` and `ratio_of` say how the budget is shared among stacks, and of what it is counted; `weigh`
    what the errors of a global budget count: all alike, or by the loss that they were measured to cost.
    `alignment` is the step of output and input ranks (8: 16 bytes of bf16, which grouped products on a GPU want).
    """

    whitening: Literal["none", "input", "output", "both"] = "input"
    whitening_direction: Literal["correct", "inverse"] = "correct"
    allocation: Literal["exact", "published", "published_every", "published_stored"] = "exact"
    expert_mode: Literal["auto", "preserve", "compress"] = "auto"
    objective: Literal["functional", "weight", "operator"] = "functional"
    decomposition: Literal["hooi", "hosvd", "st_hosvd", "tensorly"] = "hooi"
    gate_up: Literal["apart", "joint"] = "apart"
    refit: Literal["none", "expert"] = "none"
    across: Literal["uniform", "global", "activation"] = "uniform"
    weigh: Literal["functional", "sensitivity"] = "functional"
    damping: float = DAMPING
    alignment: int = ALIGNMENT


class TDMoE(Method):
    """Joint Tucker decomposition of stacked experts."""

    NAME, DISPLAY, REFERENCE, FAMILY = "tdmoe", "TD-MoE", "ICLR 2026, openreview D9cnZNZfxX", "tensor"
    LIGHT = True
    VERSION = 1  # published ranks as the public codes break ties
    OPTIONS = Options
    TIES = ("gate_up", "across", "ratio_of")

    def needs(self, options: Options) -> Needs:
        """Parts of the calibration that these options use."""
        outputs, own = options.whitening in ("output", "both"), options.refit == "expert"
        run = options.across == "activation" or options.weigh == "sensitivity"  # needs routing, or the text itself
        return Needs(options.whitening != "none" or own or run, outputs, own)

    def joins(self, options: Options) -> bool:
        """Tell whether gate and up are compressed as one stack."""
        return options.gate_up == "joint"

    def shares_budget(self, options: Options) -> Sharing:
        """Rule by which the budget is shared among stacks."""
        return Sharing(options.across, options.weigh == "sensitivity", options.ratio_of == "model")

    def is_orthogonal(self, options: Options) -> bool:
        """Tell whether the factors truncate in the metric of the weights."""
        return options.whitening == "none" and options.refit == "none"

    def simpler(self, options: Options, shapes: Iterable[Shape], ratio: float) -> Iterator[tuple[Options, int]]:
        """Published ranks where stored ones are these, known beforehand; HOSVD where one mode is cut at most."""
        stored = options.allocation == "published_stored"
        if stored and all(stored_ranks(shape, ratio) == published_ranks(shape, ratio) for shape in shapes):
            yield replace(options, allocation="published"), 3
        if options.decomposition == "hooi":
            yield replace(options, decomposition="hosvd"), 1

    def check_options(self, options: Options) -> None:
        """InputError where options are out of range or contradict each other."""
        check_damping(self.NAME, options.damping)
        check_alignment(self.NAME, options.alignment)
        none, inverse = options.whitening == "none", options.whitening_direction == "inverse"
        published, uniform = options.allocation != "exact", options.across != "global"
        ranks = "says nothing where ranks are published ones"
        for wrong, what, why in (
            (none and inverse, "whitening_direction", "says nothing where whitening=none"),
            ((none or inverse) and options.damping != DAMPING, "damping", "is that of the correct metric only"),
            (published and options.objective != "functional", "objective", ranks),
            (published and options.alignment != ALIGNMENT, "alignment", ranks),
            (published and not uniform, "across=global", "chooses ranks by their error, not published ones"),
            (uniform and options.weigh != "functional", "weigh", "says nothing unless across=global"),
        ):
            if wrong:
                raise self.wrong(f"{what} {why}")

    def check(self, shape: Shape, options: Options, ratio: float) -> None:
        """InputError where the ratio leaves no ranks, or there are too many to choose from."""
        allowed = budget(shape, ratio)
        if options.expert_mode == "compress" and shape[0] == 1:
            raise self.wrong(
                f"expert_mode=compress cuts the expert mode, {named(shape)} has one expert", "give preserve or auto"
            )
        grid = _grid(shape, options)
        if (triples := math.prod(map(len, grid))) > TRIPLES:
            raise self.wrong(
                f"alignment={options.alignment} gives {named(shape)} {triples:,} rank triples, above {TRIPLES:,}",
                "give a larger one",
            )
        if options.decomposition == "tensorly" and math.prod(shape) > LARGEST:
            raise self.wrong(
                f"decomposition=tensorly holds {named(shape)} in memory, its limit is {LARGEST:,} weights", "give hooi"
            )
        if options.allocation != "exact":
            _published(shape, options, ratio)
        elif (least := int(grid_parameters(shape, grid).min())) > allowed:
            raise beyond_budget(shape, ratio, "the least ranks take", least)

    def memory(self, shape: Shape, options: Options, ratio: float) -> int:
        """Bytes beside the blocks of the stack; tensorly holds copies of all of it."""
        copies = 8 * COPIES * math.prod(shape) if options.decomposition == "tensorly" else 0
        return max(copies, super().memory(shape, options, ratio))

    def compress(
        self,
        reader: WeightSource,
        options: Options,
        allotment: Allotment,
        statistics: Statistics,
        *,
        device: str,
        bases: Mapping[str, Basis] | None = None,
    ) -> TuckerWeights:
        """Ranks, then factors, then the core again where asked; for a stack of a single block in float64.

        `bases` are those of the stack in the metric of the options, where they are known already.
        """
        how = products_in(reader, device)
        metrics = _metrics(options, statistics, device)
        if allotment.ranks == reader.stack.shape:
            return finish(reader, metrics, {}, **how)
        bases = bases or mode_bases(reader, metrics, **how)
        ranks = allotment.ranks or _ranks(reader, metrics, bases, options, allotment.ratio, statistics, how)
        if options.decomposition == "tensorly":
            factors = partial_tucker(reader, metrics, ranks, device=device)
        elif options.decomposition == "st_hosvd":
            factors = st_hosvd(reader, metrics, ranks, first=bases, **how)
        else:
            factors = hosvd(bases, ranks)
        if options.decomposition == "hooi" and len(factors) > 1:  # one factor alone is the best one already
            factors, _ = hooi(reader, metrics, factors, float(bases["input"].energy_N.sum()), **how)
        made = replace(finish(reader, metrics, factors, **how), norm_W=_norm(metrics, bases))
        own = None if statistics is None else statistics.own
        if options.refit == "none" or ranks == reader.stack.shape:
            return made
        assert own is not None, "checked before"
        return refit_core(reader, made, own, **how)

    def frontier_options(self, options: Options) -> Options:
        """The options with all that leaves the frontier alone at its default."""
        kept = ("whitening", "whitening_direction", "expert_mode", "gate_up", "damping", "alignment")
        return Options(**{name: getattr(options, name) for name in kept})

    def frontier(self, reader: WeightSource, options: Options, statistics: Statistics, *, device: str) -> Frontier:
        """The Pareto frontier of ranks, a point every 1/FRONTIER_STEPS of the parameters at most."""
        how, metrics = products_in(reader, device), _metrics(options, statistics, device)
        bases = mode_bases(reader, metrics, **how)
        table = error_table(reader, metrics, bases, _grid(reader.stack.shape, options), **how)
        found = table.frontier(cut_experts=options.expert_mode == "compress")
        step = max(1, math.prod(reader.stack.shape) // FRONTIER_STEPS)
        return found.thinned(step)

    def has_table(self, options: Options) -> bool:
        """Tell whether the error that the ranks minimise is that of the metric in which the stack is decomposed.

        With gradients in the metric the functional error is meant in it.
        """
        return _has_table(options)


def _has_table(options: Options) -> bool:
    if options.objective == "functional":
        return options.whitening in ("input", "both") and options.whitening_direction == "correct"
    return options.objective == "weight" and options.whitening == "none"


def products_in(reader: WeightSource, device: str) -> dict[str, Any]:
    """dtype and device of products: float64 for a stack of a single block."""
    small = math.prod(reader.stack.shape) <= BLOCK_WEIGHTS
    return {"dtype": torch.float64 if small else torch.float32, "device": device}


def _metrics(options: Options, statistics: Statistics, device: str) -> Metrics:
    modes = {"none": (), "both": ("input", "output")}.get(options.whitening, (options.whitening,))
    found: dict[str, Metric] = {}
    for mode in modes:
        assert statistics is not None, "checked before"
        C_NN = statistics.C_II if mode == "input" else statistics.D_OO
        assert C_NN is not None, "checked before"
        inverse = options.whitening_direction == "inverse"
        found[mode] = inverse_metric(C_NN.to(device)) if inverse else metric(C_NN.to(device), options.damping)
    return found


def _norm(metrics: Metrics, bases: Mapping[str, Basis]) -> DampedNorm | None:
    """Damped norm of the stack, where it was decomposed in the metric of the inputs alone."""
    if set(metrics) != {"input"} or metrics["input"].name != "correct":
        return None
    return DampedNorm(float(bases["input"].energy_N.sum()), metrics["input"].damping)


def _ranks(
    reader: WeightSource,
    metrics: Metrics,
    bases: Mapping[str, Basis],
    options: Options,
    ratio: float,
    statistics: Statistics,
    how: dict[str, Any],
) -> Ranks:
    shape = reader.stack.shape
    if options.allocation != "exact":
        return _published(shape, options, ratio)
    measure = None
    if not (_has_table(options) or (statistics is None and options.objective == "functional")):
        C_II = None if statistics is None else statistics.C_II
        measure = measured_error(reader, metrics, bases, options.objective, C_II, **how)
    cut_experts = options.expert_mode == "compress"
    grid = _grid(shape, options)
    return best_ranks(
        reader, metrics, bases, grid, budget(shape, ratio), cut_experts=cut_experts, measure=measure, **how
    )


def _grid(shape: Shape, options: Options) -> Grid:
    return rank_grid(shape, preserve_experts=options.expert_mode == "preserve", alignment=options.alignment)


def _published(shape: Shape, options: Options, ratio: float) -> Ranks:
    mode: Literal["preserve", "compress"] = "compress" if options.expert_mode == "compress" else "preserve"
    if options.allocation == "published_stored":
        return stored_ranks(shape, ratio, expert_mode=mode)
    rule: Literal["aligned", "every"] = "aligned" if options.allocation == "published" else "every"
    return published_ranks(shape, ratio, expert_mode=mode, rule=rule)


METHOD = TDMoE()
