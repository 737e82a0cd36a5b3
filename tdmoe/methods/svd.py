"""SVD of every expert's matrix by itself, without data (LASER, Sharma et al. 2023; Rethinking, sec. 3).

    W_e ~ best rank K in ||W - W^||_F

Stores K (O + I) an expert; singular values are in the right factor (Rethinking counts K more).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tdmoe.forms.low_rank import LowRankWeights
from tdmoe.method.contract import Allotment, Budgeted, Method, Statistics
from tdmoe.method.truncated_svd import MetricOf, check_rank, decomposed, rank_within
from tdmoe.numerics.ranks import Shape, check_alignment
from tdmoe.stacks.source import WeightSource


@dataclass(frozen=True)
class Options(Budgeted):
    """`rank` 0 is the largest multiple of `alignment` within the budget; another one fixes the storage."""

    rank: int = 0
    alignment: int = 1


class SVD(Method):
    """Truncated SVD, in the metric of the weights."""

    NAME, DISPLAY, REFERENCE, FAMILY = "svd", "SVD", "Sharma et al. 2023", "matrix"
    OPTIONS: ClassVar[type[Options]] = Options

    def fixes_storage(self, options: Any) -> bool:
        """Tell whether the rank is given."""
        return bool(options.rank)

    def check_options(self, options: Any) -> None:
        """InputError where the alignment is no step of ranks."""
        check_alignment(self.NAME, options.alignment, rank=options.rank)

    def check(self, shape: Shape, options: Any, ratio: float) -> None:
        """InputError where rank or ratio leave nothing, or expand the stack."""
        check_alignment(self.NAME, options.alignment, most=min(shape[1:]))
        if self.fixes_storage(options):
            check_rank(self.NAME, shape, options.rank)
        else:
            rank_within(shape, ratio, alignment=options.alignment)

    def compress(
        self, reader: WeightSource, options: Any, allotment: Allotment, statistics: Statistics, *, device: str
    ) -> LowRankWeights:
        """Factors expert by expert."""
        rank = options.rank or rank_within(reader.stack.shape, allotment.ratio, alignment=options.alignment)
        return decomposed(reader, rank, self.metrics(options, statistics, device), device=device)

    def metrics(self, options: Any, statistics: Statistics, device: str) -> MetricOf:
        """The metric of each expert: none."""
        return lambda expert: None


METHOD = SVD()
