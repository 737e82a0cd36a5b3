"""Truncated SVD of every expert's matrix by itself: plain (`svd`, LASER's rule), and in the metric of the inputs.

    svd      W_e ~ best rank K in ||W - W^||_F              (LASER, Sharma et al. 2023; Rethinking, sec. 3)
    svd_llm  W_e ~ best rank K in ||(W - W^) C^(1/2)||_F    (SVD-LLM, Wang et al. 2024, sec. 3.2)

Both store K (O + I) an expert; singular values are in the right factor (Rethinking counts K more). C is that of all
routed inputs, or each expert's own (`moments=expert`), shrunk towards the former where tokens are few. SVD-LLM shifts a
C that is not positive definite by its own least eigenvalue; here it is damped relative to its mean, as for TD-MoE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tdmoe.forms.low_rank import LowRankWeights
from tdmoe.methods.base import Allotment, Budgeted, Method, Needs, StackStatistics
from tdmoe.methods.truncated_svd import MetricOf, check_rank, decomposed, rank_within
from tdmoe.numerics.ranks import Shape, check_alignment
from tdmoe.numerics.whitening import DAMPING, check_damping
from tdmoe.stacks.source import WeightSource


@dataclass(frozen=True)
class PlainOptions(Budgeted):
    """`rank` 0 is the largest multiple of `alignment` within the budget; another one fixes the storage."""

    rank: int = 0
    alignment: int = 1


@dataclass(frozen=True)
class Options(PlainOptions):
    """`moments` pooled: one C for all experts of the layer; expert: each one's own."""

    moments: Literal["pooled", "expert"] = "pooled"
    damping: float = DAMPING


class PlainSVD(Method):
    """Truncated SVD, without data."""

    NAME = "svd"
    DISPLAY = "SVD"
    OPTIONS: ClassVar[type[PlainOptions]] = PlainOptions

    def fixes_storage(self, options: PlainOptions) -> bool:
        """Where the rank is given."""
        return options.rank != 0

    def check_options(self, options: PlainOptions) -> None:
        """InputError where the alignment is no step of ranks."""
        check_alignment(self.NAME, options.alignment, rank=options.rank)

    def check(self, shape: Shape, options: PlainOptions, ratio: float) -> None:
        """InputError where rank or ratio leave nothing, or expand the stack."""
        check_alignment(self.NAME, options.alignment, most=min(shape[1:]))
        if self.fixes_storage(options):
            check_rank(self.NAME, shape, options.rank)
        else:
            rank_within(shape, ratio, alignment=options.alignment)

    def compress(
        self,
        reader: WeightSource,
        options: PlainOptions,
        allotment: Allotment,
        statistics: StackStatistics | None,
        *,
        device: str,
    ) -> LowRankWeights:
        """Expert by expert."""
        rank = options.rank or rank_within(reader.stack.shape, allotment.ratio, alignment=options.alignment)
        return decomposed(reader, rank, self.metrics(options, statistics, device), device=device)

    def metrics(self, options: PlainOptions, statistics: StackStatistics | None, device: str) -> MetricOf:
        """None for all of them."""
        return lambda expert: None


class SVDLLM(PlainSVD):
    """Truncated SVD in the metric of the inputs."""

    NAME = "svd_llm"
    DISPLAY = "SVD-LLM"
    OPTIONS = Options

    def needs(self, options: Options) -> Needs:
        """Second moments of inputs."""
        return Needs(True, own=options.moments == "expert")

    def check_options(self, options: PlainOptions) -> None:
        """InputError where damping or alignment are wrong."""
        assert isinstance(options, Options)
        check_damping(self.NAME, options.damping)
        super().check_options(options)

    def metrics(self, options: PlainOptions, statistics: StackStatistics | None, device: str) -> MetricOf:
        """Of every expert's inputs."""
        assert isinstance(options, Options) and statistics is not None, "checked before"
        return statistics.metrics(options.moments, options.damping, device)


OFFERED = (PlainSVD(), SVDLLM())
