"""Tucker form: W^_e = output_OP (sum_r expert_ER[e, r] core_RPQ[r]) input_IQ^T. A mode at full rank has no factor.

Legend: E experts, O outputs, I inputs, R, P, Q the ranks of the expert, output and input mode; T tokens, S routed
tokens sorted by expert, B experts of a block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tdmoe.forms.grouped import StackLinear, grouped
from tdmoe.forms.weights import Factored
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import matrix_products
from tdmoe.numerics.ranks import Ranks
from tdmoe.numerics.whitening import DampedNorm


@dataclass(frozen=True)
class TuckerWeights(Factored):
    """W^_e = output_OP (sum_r expert_ER[e, r] core_RPQ[r]) input_IQ^T. None where a mode is not cut (identity).

    `norm_W` is that of the stack that they were made from, where making them told it.
    """

    core_RPQ: Tensor
    expert_ER: Tensor | None = None
    output_OP: Tensor | None = None
    input_IQ: Tensor | None = None
    norm_W: DampedNorm | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for factor in (self.expert_ER, self.output_OP, self.input_IQ):
            assert factor is None or len(factor) > factor.shape[1], "a mode at full rank stores no factor"

    @property
    def shape(self) -> tuple[int, int, int]:
        factors = (self.expert_ER, self.output_OP, self.input_IQ)
        e, o, i = (r if f is None else len(f) for r, f in zip(self.core_RPQ.shape, factors, strict=True))
        return e, o, i

    @property
    def ranks(self) -> Ranks:
        """The shape of the core."""
        return Ranks(*self.core_RPQ.shape)

    def spec(self) -> dict[str, Any]:
        return {"kind": "tucker", "ranks": list(self.ranks)}

    def members(self, start: int, stop: int) -> Tensor:
        """W^_BOI of experts start..stop-1, in the dtype of the core."""
        core = self.core_RPQ
        core_BPQ = (
            core[start:stop]
            if self.expert_ER is None
            else torch.tensordot(self.expert_ER[start:stop].to(core), core, 1)
        )
        A_PO, A_QI = (None if A is None else A.T.to(core) for A in (self.output_OP, self.input_IQ))
        with full_precision():
            return matrix_products(core_BPQ, A_PO, A_QI)


class TuckerLinear(StackLinear):
    """A stack of E linear maps I -> O in Tucker form. A mode at full rank has no factor."""

    def __init__(self, shape: tuple[int, int, int], ranks: Ranks, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        empty = [
            nn.Parameter(torch.empty(n, r, dtype=dtype)) if r < n else None for n, r in zip(shape, ranks, strict=True)
        ]
        self.core = nn.Parameter(torch.empty(*ranks, dtype=dtype))
        self.expert, self.output, self.input = empty

    def enter(self, x_TI: Tensor) -> Tensor:
        return x_TI if self.input is None else x_TI @ self.input

    def mix(self, z_SQ: Tensor, counts: list[int]) -> Tensor:
        if self.expert is None:
            return grouped(z_SQ, self.core, counts)
        hit = [e for e, count in enumerate(counts) if count]
        cores_EPQ = torch.tensordot(self.expert[hit], self.core, 1)
        return grouped(z_SQ, cores_EPQ, [counts[e] for e in hit])

    def leave(self, y_SP: Tensor) -> Tensor:
        return y_SP if self.output is None else y_SP @ self.output.T
