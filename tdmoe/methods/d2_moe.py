"""D2-MoE: a mean expert that all share, and low-rank deltas (Gu et al. 2025).

    W_e ~ W_mean + left_e right_e,    W_mean = sum_e p_e W_e,    p_e ~ tokens of e, or its Fisher information, or 1

The deltas are the best of their rank in the metric of the inputs, from the mean as it is stored: what its rounding took
is theirs to give back. Where the public code averages the Cholesky factors
of the experts' second moments, weighted by frequency, the second moments themselves are averaged here: that is the
pooled C. Storage: O I + E K (O + I).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tdmoe.forms.low_rank import LowRankWeights
from tdmoe.method.contract import Allotment, Budgeted, Method, Needs, Statistics, alike
from tdmoe.method.truncated_svd import check_rank, decomposed, rank_within
from tdmoe.numerics.products import mode_products
from tdmoe.numerics.ranks import Shape, check_alignment
from tdmoe.numerics.whitening import DAMPING, check_damping
from tdmoe.stacks.source import WeightSource, stored_dtype


@dataclass(frozen=True)
class Options(Budgeted):
    """`mean` is what the experts are weighed by; `rank` 0 is the largest multiple of `alignment` in the budget."""

    mean: Literal["frequency", "fisher", "alike"] = "frequency"
    whitening: Literal["none", "input"] = "input"
    moments: Literal["pooled", "expert"] = "pooled"
    rank: int = 0
    alignment: int = 1
    damping: float = DAMPING


class D2MoE(Method):
    """Shared mean and low-rank deltas."""

    NAME, DISPLAY, REFERENCE, FAMILY = "d2_moe", "D2-MoE", "Gu et al. 2025", "matrix"
    OPTIONS = Options

    def needs(self, options: Options) -> Needs:
        """Second moments, the routing, or gradients."""
        own, fisher = options.moments == "expert", options.mean == "fisher"
        return Needs(options.whitening != "none" or options.mean != "alike" or own, fisher, own)

    def fixes_storage(self, options: Options) -> bool:
        """Tell whether the rank is given."""
        return options.rank != 0

    def check_options(self, options: Options) -> None:
        """InputError where damping or alignment are wrong, or options contradict each other."""
        check_damping(self.NAME, options.damping)
        check_alignment(self.NAME, options.alignment, rank=options.rank)
        for wrong, what in ((options.damping != DAMPING, "damping"), (options.moments == "expert", "moments")):
            if wrong and options.whitening == "none":
                raise self.wrong(f"{what} says nothing where whitening=none")

    def check(self, shape: Shape, options: Options, ratio: float) -> None:
        """InputError where rank or ratio leave nothing, or expand the stack."""
        check_alignment(self.NAME, options.alignment, most=min(shape[1:]))
        shared = shape[1] * shape[2]
        if self.fixes_storage(options):
            check_rank(self.NAME, shape, options.rank, shared=shared)
        else:
            rank_within(shape, ratio, shared=shared, alignment=options.alignment)

    def compress(
        self, reader: WeightSource, options: Options, allotment: Allotment, statistics: Statistics, *, device: str
    ) -> LowRankWeights:
        """The mean in one pass, the deltas in another."""
        shape = reader.stack.shape
        shared, alignment = shape[1] * shape[2], options.alignment
        rank = options.rank or rank_within(shape, allotment.ratio, shared=shared, alignment=alignment)
        assert statistics is not None or options.mean == "alike", "checked before"
        p_E = alike(shape[0]) if statistics is None or options.mean == "alike" else statistics.shares(options.mean)
        mean_OI = mode_products(reader, p_E[:, None], None, None, dtype=torch.float64, device=device)[0]
        base_OI = mean_OI.to(stored_dtype(reader.stack)).double()
        if options.whitening == "none":
            return decomposed(reader, rank, lambda expert: None, base_OI, device=device)
        assert statistics is not None, "checked before"
        metric_of = statistics.metrics(options.moments, options.damping, device)
        return decomposed(reader, rank, metric_of, base_OI, device=device)


METHOD = D2MoE()
