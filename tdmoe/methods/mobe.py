"""MoBE: mixture of basis experts (Chen et al. 2025), trained as published or fitted to second order.

W_e ~ A_e phi(sum_j a_ej B_j)

published   tdmoe/mobe/published.py: sizes (K = O), start, loss, learning rate and snapshots of the authors' code
corrected   tdmoe/mobe/fit.py: bases and rank searched jointly, A_e in closed form, L-BFGS with curvature
refit       tdmoe/mobe/left_factors.py: of either, the A_e again under each expert's own metric

Sizes, phi, mixing and metric can be set alike in both (free mixing: `mixing=free`; the metric of the inputs:
`whitening=input`), so that what is left between them is the training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from tdmoe.forms.bases import BasisWeights, Fit, group_of
from tdmoe.method.contract import Allotment, Budgeted, Method, Needs, Statistics
from tdmoe.mobe import fit, published, sizes
from tdmoe.mobe.left_factors import refit_left
from tdmoe.mobe.sizes import Sizes
from tdmoe.numerics.products import whole_stack
from tdmoe.numerics.ranks import Shape, beyond_budget, budget, check_alignment
from tdmoe.numerics.whitening import DAMPING, check_damping, metric
from tdmoe.problems import InputError
from tdmoe.stacks.source import WeightSource

LEAST_DAMPING = 1e-6  # products are in float32


@dataclass(frozen=True)
class Options(Budgeted):
    """`bases` (of a group) and `rank` 0 are chosen within the budget; both given fix the storage.

    auto: `whitening` none, `phi` silu and `mixing` softmax where published, input, tanh and free where corrected.
    `alignment`: ranks of the budget are multiples of it. `groups`: consecutive parts of the experts with bases of
    their own, as the authors do for Kimi-K2 (2); the sizes are searched on the first.
    `steps`: of Adam where published, 0 for 30 000; evaluations of the loss where corrected, 0 for 600.
    `refit` expert solves the A_e again under each expert's own metric, as TD-MoE's does the core.
    """

    preset: Literal["corrected", "published"] = "corrected"
    whitening: Literal["auto", "input", "none"] = "auto"
    phi: Literal["auto", "tanh", "silu", "identity"] = "auto"
    mixing: Literal["auto", "softmax", "free"] = "auto"
    bases: int = 0
    rank: int = 0
    alignment: int = 1
    groups: int = 1
    steps: int = 0
    refit: Literal["none", "expert"] = "none"
    damping: float = DAMPING


class MoBE(Method):
    """Mixture of basis experts."""

    NAME, DISPLAY, REFERENCE, FAMILY = "mobe", "MoBE", "Chen et al. 2025", "shared bases"
    OPTIONS = Options

    def needs(self, options: Options) -> Needs:
        """Second moments, where they are in the loss, and each expert's own for the refit."""
        own = options.refit == "expert"
        return Needs(_metric(options) or own, own=own)

    def fixes_storage(self, options: Options) -> bool:
        """Tell whether both sizes are given."""
        return bool(options.bases and options.rank)

    def check_options(self, options: Options) -> None:
        """InputError where options are out of range or contradict each other."""
        check_damping(self.NAME, options.damping)
        check_alignment(self.NAME, options.alignment, rank=options.rank)
        if options.damping != DAMPING and not _metric(options):
            raise self.wrong("damping says nothing without a metric in the loss")
        if options.mixing == "softmax" and options.preset == "corrected":
            raise self.wrong("mixing=softmax is of preset=published only: the fit's mixing is free, which contains it")
        for name in ("bases", "rank", "steps"):
            if (value := getattr(options, name)) < 0:
                raise self.wrong(f"{name} is {value}", "give at least 1, or 0 for the default")

    def check(self, shape: Shape, options: Options, ratio: float) -> None:
        """InputError where there are more groups than experts, or the sizes store more than the dense stack."""
        check_alignment(self.NAME, options.alignment, most=min(shape[1:]))
        if not 1 <= options.groups <= shape[0]:
            raise self.wrong(f"groups is {options.groups}", f"the stack has {shape[0]} experts")
        for choice in _choices(shape, options, ratio):
            sizes.check(shape, choice, options.groups)

    def memory(self, shape: Shape, options: Options, ratio: float) -> int:
        """Float32: the stack and what was made of it; for one group at a time weights, mixtures, their products and
        gradients, and what the optimiser remembers of the bases. Float64: the metric and the leading directions."""
        experts, outputs, inputs = shape
        own = -(-experts // options.groups)
        found = []
        for bases, rank in _choices(shape, options, ratio):
            mixtures, left, basis = own * rank * inputs, own * outputs * rank, bases * rank * inputs
            made = options.groups * (left + basis)
            if options.preset == "published":  # both with gradient, two moments and the best snapshot
                found.append(made + (10 if _metric(options) else 8) * mixtures + 5 * (left + basis))
            else:  # two fits while sizes are searched
                found.append(made + 10 * mixtures + 4 * left + 4 * own * rank**2 + 4 * (fit.MEMORY + 3) * basis)
        square = 0 if options.preset == "published" and not _metric(options) else 8 * inputs**2
        return 4 * ((experts + 3 * own) * outputs * inputs + max(found)) + 8 * square

    def compress(
        self, reader: WeightSource, options: Options, allotment: Allotment, statistics: Statistics, *, device: str
    ) -> BasisWeights:
        """Group by group."""
        W_EOI = whole_stack(reader, device=device)
        choices = _choices(reader.stack.shape, options, allotment.ratio)
        experts = len(W_EOI)
        of = group_of(list(range(experts)), experts, options.groups)
        parts = [torch.tensor([e for e in range(experts) if of[e] == g]) for g in range(options.groups)]
        made: list[BasisWeights] = []
        for part in parts:
            made.append(_fitted(W_EOI[part.to(device)], choices, options, statistics))
            choices = [Sizes(*made[0].ranks)]  # the same in every group
        fits = [part.fit for part in made if part.fit is not None]
        left = torch.cat([part.left_EOK for part in made])
        basis, mixing = torch.cat([part.basis_NKI for part in made]), torch.cat([part.mixing_EM for part in made])
        whole = BasisWeights(left, basis, mixing, made[0].activation, options.groups, _together(fits))
        if options.refit == "none":
            return whole
        assert statistics is not None and statistics.own is not None, "checked before"
        return refit_left(W_EOI, whole, statistics.own)


def _metric(options: Options) -> bool:
    return options.whitening == "input" or (options.whitening == "auto" and options.preset == "corrected")


def _choices(shape: Shape, options: Options, ratio: float) -> list[Sizes]:
    """Sizes to choose among; the first of them where `published`. InputError where the budget leaves none."""
    bases, rank, groups, alignment = options.bases, options.rank, options.groups, options.alignment
    if bases and rank:
        return [Sizes(bases, rank)]
    if bases:
        rank = sizes.rank_within(shape, ratio, bases, groups, alignment)
    elif rank:
        room = budget(shape, ratio) - shape[0] * shape[1] * rank
        bases = min(shape[0] // groups, int(room // (groups * rank * shape[2] + shape[0])))
    if options.bases or options.rank:
        if bases < 1 or rank < 1:
            given = f"{bases} bases leave no rank" if options.bases else f"rank {rank} leaves no basis"
            raise InputError("ratio", ratio, f"{given} within its budget", "lower the ratio, or give less of them")
        return [Sizes(bases, rank)]
    if options.preset == "published":
        return [sizes.published(shape, ratio, groups, alignment)]
    if not (found := sizes.ladder(shape, ratio, groups, alignment)):
        least = sizes.stored(shape, Sizes(1, alignment), groups)
        raise beyond_budget(shape, ratio, f"one basis of rank {alignment} takes", least)
    return found


def _fitted(W_EOI: Tensor, choices: list[Sizes], options: Options, statistics: Statistics) -> BasisWeights:
    C_II = None
    if _metric(options):
        assert statistics is not None, "checked before"
        S = metric(statistics.C_II.to(W_EOI.device), max(options.damping, LEAST_DAMPING)).S_NN
        C_II = S @ S.T / S.square().sum() * len(S)
    if options.preset == "published":
        phi = "silu" if options.phi == "auto" else options.phi
        free, steps = options.mixing == "free", options.steps or published.STEPS
        return published.trained(W_EOI, choices[0], phi, steps, free=free, C_II=C_II)
    phi = "tanh" if options.phi == "auto" else options.phi
    return fit.fitted(W_EOI, choices, phi, options.steps or fit.STEPS, C_II)


def _together(fits: list[Fit]) -> Fit:
    """The fit of all groups: that of one alone as it is; of several the last errors, and whether all converged."""
    if len(fits) == 1:
        return fits[0]
    ends: list[Any] = [part.curve[-1] for part in fits]
    curve = (sum(n for n, _, _ in ends), sum(t for _, t, _ in ends), max(e for _, _, e in ends))
    decrements = [part.decrement for part in fits if part.decrement is not None]
    converged = all(part.stopped == "converged" for part in fits)
    return Fit((curve,), "converged" if converged else "steps", max(decrements, default=None))


METHOD = MoBE()
