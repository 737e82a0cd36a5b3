"""Layers to compress, and their order, as Rethinking does it: from the middle outwards.

The paper (appendix C.1) says: from the middle to 75 % of the depth, then to 25 %. Its code goes right for a quarter of
the depth and then left and right in turn, which ends elsewhere: at 18-41 of 48 layers instead of 12-35.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tdmoe.problems import InputError

Order = Literal["paper", "code"]


def middle_out(layers: Sequence[int], count: int, order: Order = "paper") -> list[int]:
    """The first `count` of the model's MoE layers in that order; InputError above half of them."""
    depth, centre = len(layers), len(layers) // 2
    quarter = -(-depth // 4)
    if not 1 <= count <= max(1, depth // 2):
        raise InputError(
            "schedule",
            why=f"{count} layers; middle-out takes 1 to {max(1, depth // 2)} of {depth}",
            remedy="give fewer",
        )
    chosen = list(range(centre, min(centre + quarter, depth)))[:count]
    left, right = centre - 1, centre + quarter
    while len(chosen) < count:
        chosen.append(left)
        left -= 1
        if order == "code" and len(chosen) < count and right < depth:
            chosen.append(right)
            right += 1
    return [layers[i] for i in chosen]
