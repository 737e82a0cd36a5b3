"""Number and rank of bases: storage of a mixture of basis experts, and what a budget allows.

    parameters = E O K + G M K I + E M

M bases in each of G groups of experts, rank K. K = O is the published choice ("truncation = width of an expert"), which
stores more than the dense stack where O is not below I.

Legend: E experts, O outputs, I inputs.
"""

from __future__ import annotations

from typing import NamedTuple

from tdmoe.numerics.ranks import Shape, aligned, budget
from tdmoe.problems import InputError


class Sizes(NamedTuple):
    """Bases of a group, and their rank."""

    bases: int
    rank: int


def stored(shape: Shape, sizes: Sizes, groups: int) -> int:
    """Parameters of a stack."""
    experts, outputs, inputs = shape
    bases, rank = sizes
    return experts * outputs * rank + groups * bases * rank * inputs + experts * bases


def rank_within(shape: Shape, ratio: float, bases: int, groups: int, alignment: int = 1) -> int:
    """The largest multiple of `alignment` that so many bases leave as rank, at most I: 0 where none does."""
    experts, outputs, inputs = shape
    room = budget(shape, ratio) - experts * bases
    return aligned(max(0, min(inputs, int(room // (experts * outputs + groups * bases * inputs)))), alignment)


def ladder(shape: Shape, ratio: float, groups: int, alignment: int = 1) -> list[Sizes]:
    """Numbers of bases, each about 1.4 times the one before, with the rank that the budget leaves them."""
    most = shape[0] // groups  # each expert a basis of its own
    counts = {1, most} | {n for i in range(13) for n in (2**i, 3 * 2**i) if n <= most}
    found = (Sizes(bases, rank_within(shape, ratio, bases, groups, alignment)) for bases in sorted(counts))
    return [sizes for sizes in found if sizes.rank > 0]


def published(shape: Shape, ratio: float, groups: int, alignment: int = 1) -> Sizes:
    """K = min(O, I), and as many bases as fit; where not two do, a basis for four experts and the rank that is left.

    K is rounded down to a multiple of `alignment`, at most min(O, I).
    """
    experts, outputs, inputs = shape
    rank, most = aligned(min(outputs, inputs), alignment), experts // groups
    bases = int((budget(shape, ratio) - experts * outputs * rank) // (groups * rank * inputs + experts))
    if bases >= 2:
        return Sizes(min(bases, most), rank)
    bases = max(2, most // 4)
    return Sizes(bases, min(rank, rank_within(shape, ratio, bases, groups, alignment)))


def check(shape: Shape, sizes: Sizes, groups: int) -> None:
    """InputError where sizes are none, or store more than the dense stack."""
    experts, outputs, inputs = shape
    bases, rank = sizes
    if not 1 <= bases <= experts // groups:
        raise InputError(
            "method",
            "mobe",
            f"bases is {bases} for {experts // groups} experts{' of a group' if groups > 1 else ''}",
            f"give 1 to {experts // groups}",
        )
    if not 1 <= rank <= inputs:
        raise InputError(
            "method", "mobe", f"rank is {rank} with {bases} bases and {inputs} inputs", f"give 1 to {inputs}"
        )
    total, dense = stored(shape, sizes, groups), experts * outputs * inputs
    if total >= dense:
        per_rank = experts * outputs + groups * bases * inputs
        most = (dense - experts * bases - 1) // per_rank
        written = f"{experts} x {outputs} x {rank} + {groups * bases} x {rank} x {inputs} + {experts} x {bases}"
        raise InputError(
            "method",
            "mobe",
            f"bases={bases},rank={rank} stores {written} = {total:,} parameters, {total / dense:.2f} times "
            f"the {dense:,} of the dense stack",
            f"give a rank of at most {most}",
        )
