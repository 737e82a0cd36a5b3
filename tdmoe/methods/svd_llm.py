"""SVD-LLM: truncated SVD of every expert's matrix in the metric of its inputs (Wang et al. 2024, sec. 3.2).

    W_e ~ best rank K in ||(W - W^) C^(1/2)||_F

Stored as `svd`. C is that of all routed inputs, or each expert's own (`moments=expert`), shrunk towards the former
where tokens are few. SVD-LLM shifts a C that is not positive definite by its own least eigenvalue; here it is damped
relative to its mean, as for TD-MoE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tdmoe.method.contract import Needs, Statistics
from tdmoe.method.truncated_svd import MetricOf
from tdmoe.methods import svd
from tdmoe.numerics.whitening import DAMPING, check_damping


@dataclass(frozen=True)
class Options(svd.Options):
    """`moments` pooled: over all experts of the layer; expert: each one's own."""

    moments: Literal["pooled", "expert"] = "pooled"
    damping: float = DAMPING


class SVDLLM(svd.SVD):
    """Truncated SVD in the metric of the inputs."""

    NAME, DISPLAY, REFERENCE = "svd_llm", "SVD-LLM", "Wang et al. 2024"
    OPTIONS = Options

    def needs(self, options: Options) -> Needs:
        """Second moments of inputs."""
        return Needs(True, own=options.moments == "expert")

    def check_options(self, options: Any) -> None:
        """InputError where damping or alignment are wrong."""
        check_damping(self.NAME, options.damping)
        super().check_options(options)

    def metrics(self, options: Any, statistics: Statistics, device: str) -> MetricOf:
        """The metric of each expert's inputs."""
        assert statistics is not None, "checked before"
        return statistics.metrics(options.moments, options.damping, device)


METHOD = SVDLLM()
