"""Ranks that a Tucker decomposition keeps of each mode: storage, and the published search.

A triple of ranks is (expert, output, input). Storage counts the core and one factor for every mode that is cut; a mode
at full rank stores none, since its orthogonal factor goes into the core. The published codes charge it all the same,
and their search looks at nothing but the number of parameters.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from tdmoe.problems import InputError

ALIGNMENT = 8  # of output and input ranks: 16 bytes of bf16, what grouped products want

Shape = tuple[int, int, int]
ExpertMode = Literal["preserve", "compress"]
Rule = Literal["aligned", "every"]


class Ranks(NamedTuple):
    """Directions kept of each mode."""

    expert: int
    output: int
    input: int

    def parameters(self, shape: Shape) -> int:
        """Stored parameters: prod(ranks), and size * rank for every mode below full rank."""
        factors = sum(size * rank for size, rank in zip(shape, self, strict=True) if rank < size)
        return self.expert * self.output * self.input + factors

    def charged(self, shape: Shape, expert_mode: ExpertMode) -> int:
        """Parameters as the published codes count them: full modes are charged a factor, preserved experts are not."""
        expert = 0 if expert_mode == "preserve" else shape[0] * self.expert
        return self.expert * self.output * self.input + expert + shape[1] * self.output + shape[2] * self.input


def check_alignment(name: str, alignment: int, *, rank: int = 0, most: int | None = None) -> None:
    """InputError where it is no step of ranks up to `most`; where a rank is given that is none, or it says nothing."""
    if rank < 0:
        raise InputError(
            "method", name, f"rank is {rank}", "a rank of at least 1 is needed, or 0 for that of the budget"
        )
    if alignment < 1:
        raise InputError("method", name, f"alignment is {alignment}", "a step of ranks of at least 1 is needed")
    if rank and alignment != 1:
        raise InputError("method", name, "alignment says nothing where the rank is given", "give one of them")
    if most is not None and alignment > most:
        raise InputError(
            "method", name, f"alignment is {alignment}", f"ranks of this stack end at {most}, give no more"
        )


def aligned(rank: int, alignment: int) -> int:
    """The largest multiple of `alignment` that is not above `rank`."""
    return rank - rank % alignment


def budget(shape: Shape, ratio: float) -> float:
    """Parameters that may stay when the fraction `ratio` is removed; InputError outside 0 < ratio < 1."""
    if not 0.0 < ratio < 1.0:
        raise InputError("ratio", ratio, "the fraction of parameters to remove must lie between 0 and 1")
    return (1.0 - ratio) * shape[0] * shape[1] * shape[2]


def named(shape: Shape) -> str:
    """Shape of a stack, for messages."""
    return f"a {' x '.join(map(str, shape))} stack"


def beyond_budget(shape: Shape, ratio: float, takes: str, least: int, remedy: str = "lower the ratio") -> InputError:
    """The refusal of a ratio that leaves fewer parameters than the `least` that something `takes`."""
    why = f"leaves {budget(shape, ratio):,.0f} parameters of {named(shape)}, {takes} {least:,}"
    return InputError("ratio", ratio, why, remedy)


def published_ranks(
    shape: Shape, ratio: float, *, expert_mode: ExpertMode = "preserve", rule: Rule = "aligned"
) -> Ranks:
    """The triple whose charged parameters come nearest to the budget; the weights are never looked at.

    `aligned`: TT-LLM (`src/td_moe.py`, behind every MoE number of Rethinking): the target is round((1 - ratio) N);
    output and input in steps of 8, or of 1 where either has fewer than 8; for each output rank the nearest input step
    (in steps of 1 the one below) and its neighbours, also above the target. `every`: the re-implementation of TD-MoE's
    "Algorithm 2" (Tangshengku/TD-MoE): the target is ceil((1 - ratio) N), steps of 1, input rounded down, and a
    preserved expert mode is charged its E x E factor. Both walk experts, then outputs, then inputs upwards, and the
    first of equals wins. Where nothing fits TT-LLM keeps (1, 1, 1); here that is refused.
    """
    experts, outputs, inputs = shape
    every, allowed = rule == "every", budget(shape, ratio)
    target = math.ceil(allowed) if every else max(1, round((1.0 - ratio) * math.prod(shape)))
    step = 1 if every or min(outputs, inputs) < ALIGNMENT else ALIGNMENT
    shifts = np.array([0] if every else [-step, 0, step])
    output = np.arange(step, outputs + 1, step)[:, None]
    best: tuple[float, Ranks] | None = None
    for expert in [experts] if expert_mode == "preserve" else range(1, experts + 1):
        charge = 0 if expert_mode == "preserve" and not every else experts * expert
        exact = (target - charge - outputs * output) / (expert * output + inputs)
        input_ = (np.floor(exact) if step == 1 else np.round(exact / step) * step) + shifts
        total = expert * output * input_ + charge + outputs * output + inputs * input_
        distance = np.where((input_ >= step) & (input_ <= inputs), np.abs(total - target), np.inf)
        row, column = np.unravel_index(distance.argmin(), distance.shape)
        if distance[row, column] < (np.inf if best is None else best[0]):
            best = float(distance[row, column]), Ranks(expert, int(output[row, 0]), int(input_[row, column]))
    if best is None:
        raise InputError("ratio", ratio, f"no ranks of {named(shape)} in steps of {step} fit", "lower the ratio")
    return best[1]


def stored_ranks(shape: Shape, ratio: float, *, expert_mode: ExpertMode = "preserve") -> Ranks:
    """The published triple with one rank moved until what is stored, and not what is charged, meets the budget.

    The published search (`aligned`) charges a factor for output and input whether they are cut or not, so a triple
    with a full mode stores less than its budget; and its steps of 8 may miss it. As in that search the input rank
    takes what the other two leave, in steps of 1, here of the parameters that are really stored; the output rank does
    where the published input rank is full. The weights are never looked at. The first of equals wins.
    """
    found = published_ranks(shape, ratio, expert_mode=expert_mode)
    allowed = budget(shape, ratio)
    moved = "input" if found.input < shape[2] else "output"
    size = shape[Ranks._fields.index(moved)]
    tried = (found._replace(**{moved: rank}) for rank in range(1, size + 1))
    return min(tried, key=lambda ranks: abs(ranks.parameters(shape) - allowed))
