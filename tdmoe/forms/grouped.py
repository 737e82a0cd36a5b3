"""Linear maps of experts, and products of rows with the matrix of their expert.

Legend: T tokens, S rows sorted by expert, E experts, P outputs, Q inputs, O and I those of the whole map.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from tdmoe.forms.weights import Shape, Spec

EXPERTS_AT_ONCE = 8  # whose matrices are made in passing, where they are not stored


class StackLinear(nn.Module):
    """A stack of linear maps, run in three steps of which only the middle one depends on the expert."""

    @classmethod
    def from_spec(cls, shape: Shape, spec: Spec, dtype: torch.dtype | None = None) -> Any:
        """An empty module of the sizes in a spec, which are arguments of its class."""
        sizes = {name: spec[name] for name in signature(cls).parameters if name in spec}
        made: Any = cls
        return made(shape, **sizes, dtype=dtype)

    def enter(self, x_TI: Tensor) -> Tensor:
        """The step taken once a token, whatever its experts."""
        return x_TI

    def mix(self, z_SQ: Tensor, counts: list[int]) -> Tensor:
        """The step taken once a routed token; `counts` says how many rows of `z_SQ` go to each expert, in order."""
        raise NotImplementedError

    def leave(self, y_SP: Tensor) -> Tensor:
        """The last step, once a routed token for gate and up, once a token for down, after the weighted sum: linear."""
        return y_SP


def grouped(x_SQ: Tensor, A_EPQ: Tensor, counts: list[int]) -> Tensor:
    """Rows of x times A_e^T of their expert; on a GPU in one kernel where torch has one for the dtype and alignment."""
    kernel = getattr(nn.functional, "grouped_mm", None)
    aligned = x_SQ.dtype == torch.bfloat16 and all(n % 8 == 0 for n in A_EPQ.shape[1:])
    if kernel is not None and x_SQ.is_cuda and aligned:
        ends = torch.tensor(counts, device=x_SQ.device).cumsum(0).to(torch.int32)
        y_SP: Tensor = kernel(x_SQ.contiguous(), A_EPQ.transpose(1, 2), offs=ends)
        return y_SP
    pieces = [x @ A_PQ.T for x, A_PQ in zip(x_SQ.split(counts), A_EPQ, strict=True) if len(x)]
    return torch.cat(pieces) if pieces else x_SQ.new_zeros(0, A_EPQ.shape[1])


def hit(
    x_SQ: Tensor, counts: list[int], at_once: int = EXPERTS_AT_ONCE
) -> Iterator[tuple[list[int], list[int], Tensor]]:
    """(experts that have rows, how many each, their rows), a few experts at a time."""
    experts = [e for e, count in enumerate(counts) if count]
    first = 0
    for at in range(0, len(experts), at_once):
        some = experts[at : at + at_once]
        theirs = [counts[e] for e in some]
        yield some, theirs, x_SQ[first : first + sum(theirs)]
        first += sum(theirs)
