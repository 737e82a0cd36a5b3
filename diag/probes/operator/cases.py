"""Cases that `operator` measures of a stack: truncations over a grid of ranks, and methods at equal storage.

    truncate:mode=expert|output|input   the mode's unfolding, truncated         ranks: fractions of the mode
    svd                                 every expert's matrix, truncated        fractions, and the storage of the others
    tdmoe:whitening=none[,decomposition=hosvd]   all three modes at once        fractions of each mode
    any method                          by its spec, at every ratio             and at the storage that others fix

Factors are measured as they are computed, in float32 or float64: rounding them to what is stored (about 0.2 % in bf16)
would add to every error what no bound speaks of.

Legend: E experts, O outputs, I inputs, K singular values of an expert.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tdmoe import forms, methods
from tdmoe.forms import Factored
from tdmoe.forms.bases import BasisWeights
from tdmoe.forms.low_rank import LowRankWeights
from tdmoe.forms.residual import Residual, Vector, residual
from tdmoe.forms.tucker import TuckerWeights
from tdmoe.method.truncated_svd import rank_within
from tdmoe.methods import Allotment, Method
from tdmoe.numerics.gram import MODES
from tdmoe.numerics.ranks import Ranks
from tdmoe.problems import InputError
from tdmoe.stacks.source import stored_dtype
from tdmoe.stacks.stack import WeightStack
from tdmoe.tucker.decomposition import finish, hooi, hosvd
from tdmoe.tucker.modes import Basis
from tdmoe.tucker.truncation import expert_truncation, mode_truncations

HOSVD, HOOI = "tdmoe:whitening=none,decomposition=hosvd", "tdmoe:whitening=none"
ROOM = 1e-3  # of the storage that a derived ratio must leave to remove, and to keep


@dataclass(frozen=True)
class Case:
    """A method at a rank, and what it loses. `expert_rank` and `ranks` bound those of W^, None where nothing does.

    `orthogonal`: a truncation in the metric of the weights, for which bounds are known.
    """

    method: str
    rank: str
    ratio: float | None
    stored_bits: int
    found: Residual
    expert_rank: int | None
    ranks: Ranks | None
    orthogonal: bool


@dataclass(frozen=True)
class Work:
    """A stack with everything that its cases are made from."""

    stack: WeightStack
    reader: Any
    bases: dict[str, Basis]
    components: tuple[Vector, Vector | None]  # of every expert: singular values, and their energies under C
    statistics: methods.StackStatistics | None
    how: dict[str, Any]  # dtype and device of products
    seed: int

    @property
    def C_II(self) -> Tensor | None:
        """Second moment of the layer's routed inputs, where calibrated."""
        return None if self.statistics is None else self.statistics.C_II

    @property
    def item(self) -> int:
        """Bits of a stored number."""
        return 8 * stored_dtype(self.stack).itemsize

    @property
    def dense_bits(self) -> int:
        """Bits of the dense stack."""
        return self.item * math.prod(self.stack.shape)


def grid_cases(work: Work, fractions: Sequence[float]) -> Iterator[Case]:
    """Truncations at fractions of the rank: of each mode, of every expert, of all modes at once."""
    shape, how = work.stack.shape, work.how
    for axis, mode in enumerate(MODES):
        at = [ranks_at(shape, part)[axis] for part in fractions]
        found = mode_truncations(work.reader, mode, work.bases[mode], at, work.C_II, **how, seed=work.seed)
        for rank, lost in found.items():
            ranks = Ranks(*(rank if a == axis else n for a, n in enumerate(shape)))
            bits = work.item * ranks.parameters(shape)
            expert_rank = min(ranks.output, ranks.input)
            yield Case(f"truncate:mode={mode}", str(rank), None, bits, lost, expert_rank, ranks, True)
    for rank in sorted({max(1, round(part * min(shape[1:]))) for part in fractions}):
        yield svd_case(work, rank, None)
    norm_squared = float(work.bases["input"].energy_N.sum())
    for ranks in dict.fromkeys(ranks_at(shape, part) for part in fractions):
        start = hosvd(work.bases, ranks)
        better, _ = hooi(work.reader, {}, start, norm_squared, **how)
        for name, factors in ((HOSVD, start), (HOOI, better)):
            yield form_case(work, name, None, finish(work.reader, {}, factors, **how), orthogonal=True)


def storage_cases(work: Work, specs: Sequence[str], ratios: Sequence[float]) -> Iterator[Case]:
    """Methods at equal storage: those that fix theirs first, then the others and the SVD at it and at every ratio.

    What does not fit a storage that was derived is left out; that of `ratios` was checked before.
    """
    parsed = [(text, *methods.parse(text)) for text in specs]
    asked = list(ratios)
    for text, method, options in parsed:
        if method.fixes_storage(options):
            made = method.compress(work.reader, options, Allotment(0.0), work.statistics, device=work.how["device"])
            case = form_case(work, text, None, made, orthogonal=False)
            yield case
            if ROOM < (ratio := round(1.0 - case.stored_bits / work.dense_bits, 6)) < 1.0 - ROOM:
                asked.append(ratio)
    for ratio in dict.fromkeys(asked):
        if (rank := _rank_of_svd(work.stack.shape, ratio)) is not None:
            yield svd_case(work, rank, ratio)
        for text, method, options in parsed:
            if not method.fixes_storage(options) and _fits(method, options, work.stack.shape, ratio):
                allotment = Allotment(ratio)
                made = method.compress(work.reader, options, allotment, work.statistics, device=work.how["device"])
                yield form_case(work, text, ratio, made, orthogonal=method.is_orthogonal(options))


def _rank_of_svd(shape: tuple[int, int, int], ratio: float) -> int | None:
    try:
        return rank_within(shape, ratio)
    except InputError:
        return None


def _fits(method: Method, options: Any, shape: tuple[int, int, int], ratio: float) -> bool:
    """Tell whether it has ranks so small."""
    try:
        method.check(shape, options, ratio)
    except InputError:
        return False
    return True


def form_case(work: Work, text: str, ratio: float | None, made: Factored, *, orthogonal: bool) -> Case:
    """The case of factors: what they store in the checkpoint's dtype, and what they lose as they are."""
    bits = forms.stored_bits(made.to(stored_dtype(work.stack)))
    lost = residual(work.reader, made.to(work.how["dtype"]), work.C_II, **work.how, seed=work.seed)
    ranks = made.ranks if isinstance(made, TuckerWeights) else None
    return Case(text, "x".join(map(str, made.ranks)), ratio, bits, lost, rank_of_experts(made), ranks, orthogonal)


def svd_case(work: Work, rank: int, ratio: float | None) -> Case:
    """The Eckart-Young reference, in closed form; of its unfoldings nothing is measured."""
    experts, outputs, inputs = work.stack.shape
    bits = work.item * experts * rank * (outputs + inputs)
    return Case("svd", str(rank), ratio, bits, expert_truncation(*work.components, rank), rank, None, False)


def ranks_at(shape: tuple[int, int, int], part: float) -> Ranks:
    """Ranks that are that fraction of every mode, at least 1."""
    return Ranks(*(max(1, round(part * size)) for size in shape))


def rank_of_experts(made: Factored) -> int | None:
    """The largest that the matrix of an expert can have by its form, None where it is not bounded."""
    match made:
        case TuckerWeights():
            return min(made.core_RPQ.shape[1:])
        case LowRankWeights(base_OI=None) | BasisWeights():
            return int(made.left_EOK.shape[2])
    return None


def products(stack: WeightStack, small: int) -> torch.dtype:
    """Precision of products: float64 for a stack of at most `small` weights, else float32."""
    return torch.float64 if math.prod(stack.shape) <= small else torch.float32
