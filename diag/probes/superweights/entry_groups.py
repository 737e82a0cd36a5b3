"""Groups of entries of a matrix whose recovery is followed (Rethinking, sec. 3.6 and B.3).

    magnitude    the largest |W_oi|
    activation   the largest |W_oi| sqrt(mean_t x_ti^2), x the inputs of this matrix; the root at least 1e-12
    inlier       drawn without replacement among 1e-4 <= |W_oi| <= median |W|

Legend: O outputs, I inputs, P entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

LEAST_INLIER = 1e-4
LEAST_INPUT = 1e-12


def places(flat_P: Tensor, columns: int) -> Tensor:
    """(P, 2): rows and columns of flat indices."""
    return torch.stack([flat_P // columns, flat_P % columns], 1)


def largest(score_OI: Tensor, count: int) -> Tensor:
    """(P, 2): rows and columns of the `count` largest scores, largest first."""
    best_P = score_OI.flatten().topk(min(count, score_OI.numel())).indices
    return places(best_P.cpu(), score_OI.shape[1])


def top_magnitude(W_OI: Tensor, count: int) -> Tensor:
    """(P, 2)."""
    return largest(W_OI.abs(), count)


def activation_weighted(W_OI: Tensor, mean_square_I: Tensor, count: int) -> Tensor:
    """(P, 2); `mean_square_I` is the diagonal of the second moment of the matrix' inputs."""
    root_I = mean_square_I.to(W_OI.device).sqrt().clamp(min=LEAST_INPUT)
    return largest(W_OI.abs().double() * root_I, count)


def random_inliers(W_OI: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(P, 2), fewer where fewer qualify; `generator` is on the CPU."""
    size_OI = W_OI.abs().cpu()
    inside_P = ((size_OI >= LEAST_INLIER) & (size_OI <= size_OI.median())).flatten().nonzero().squeeze(1)
    chosen_P = inside_P[torch.randperm(len(inside_P), generator=generator)[:count]]
    return places(chosen_P, W_OI.shape[1])


def random_entries(shape: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    """(P, 2) distinct entries drawn uniformly."""
    picked: set[int] = set()
    total = shape[0] * shape[1]
    while len(picked) < min(count, total):
        picked |= set(torch.randint(total, (count - len(picked),), generator=generator).tolist())
    return places(torch.tensor(sorted(picked)), shape[1])
