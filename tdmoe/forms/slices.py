"""A factored stack restricted to some of its outputs, so that all experts can be rebuilt side by side, strip by strip.

Legend: E experts, O outputs, P rank of the output mode; `some` is a range of outputs.
"""

from __future__ import annotations

from dataclasses import replace

from tdmoe.forms import Factored
from tdmoe.forms.bases import BasisWeights
from tdmoe.forms.dense import DenseWeights
from tdmoe.forms.integers import IntegerWeights
from tdmoe.forms.low_rank import LowRankWeights
from tdmoe.forms.tucker import TuckerWeights
from tdmoe.numerics.precision import full_precision


def outputs(made: Factored, some: slice) -> Factored:
    """The rows W^_e[some] of every expert, in the same form."""
    match made:
        case TuckerWeights(output_OP=None):
            return replace(made, core_RPQ=made.core_RPQ[:, some])
        case TuckerWeights():
            assert made.output_OP is not None
            with full_precision():
                core = made.output_OP[some].to(made.core_RPQ) @ made.core_RPQ
            return replace(made, core_RPQ=core, output_OP=None)
        case LowRankWeights():
            base = None if made.base_OI is None else made.base_OI[some]
            return LowRankWeights(made.left_EOK[:, some], made.right_EKI, base)
        case BasisWeights():
            return replace(made, left_EOK=made.left_EOK[:, some])
        case IntegerWeights():
            one = made.scale_EOJ.shape[1] == 1  # for a whole matrix
            scale = made.scale_EOJ if one else made.scale_EOJ[:, some]
            return replace(made, planes_EObY=made.planes_EObY[:, some], scale_EOJ=scale)
        case DenseWeights():
            return DenseWeights(made.weight_EOI[:, some])
    raise AssertionError(f"{type(made).__name__} has no outputs to choose from")
