"""Recovery of tracked entries of some down projections, in a process of its own: ... HOW MODEL RESULT.json

ours        every rank in one pass over the components, in float64
plain       what one writes first: an SVD in float32, then for each rank the product of its components, and the entries
            looked up in it; at every rank
published   the same at the ranks of Rethinking's notebook only (2, 34, 66, ... and the full one)
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from bench.checkpoints import shards
from tdmoe.numerics.recovery import recovered, recovery_curves

EXPERTS, ENTRIES = 4, 385  # three groups of 128 and a super weight


def main() -> None:
    how, model, result = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    work: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
        "ours": ours,
        "plain": partial(plain, range(1, 769)),
        "published": partial(plain, [*range(2, 768, 32), 768]),
    }
    torch.linalg.eigh(torch.eye(2))  # what is loaded on first use
    seconds, found = 0.0, []
    with safe_open(shards(model)[0], "pt") as file:
        for expert in range(EXPERTS):
            W_OI = file.get_tensor(f"model.layers.0.mlp.experts.{expert}.down_proj.weight")
            generator = torch.Generator().manual_seed(expert)
            row_P, column_P = (torch.randint(size, (ENTRIES,), generator=generator) for size in W_OI.shape)
            started = time.perf_counter()
            ranks_K, share_K = work[how](W_OI, row_P, column_P)
            seconds += time.perf_counter() - started
            found.append(dict(zip(ranks_K.tolist(), share_K.tolist(), strict=True)))
    result.write_text(json.dumps({"seconds": seconds, "ranks": len(found[0]), "shares": found}))


def ours(W_OI: Tensor, row_P: Tensor, column_P: Tensor) -> tuple[Tensor, Tensor]:
    ranks_N = torch.arange(1, min(W_OI.shape) + 1)
    return ranks_N, recovery_curves(W_OI, row_P, column_P).recovered(ranks_N, torch.arange(len(row_P)))


def plain(ranks: Iterable[int], W_OI: Tensor, row_P: Tensor, column_P: Tensor) -> tuple[Tensor, Tensor]:
    W_OI = W_OI.float()
    U, s, Vt = torch.linalg.svd(W_OI, full_matrices=False)
    shares = []
    for rank in ranks:
        estimate_OI = (U[:, :rank] * s[:rank]) @ Vt[:rank]
        shares.append(recovered(estimate_OI[row_P, column_P], W_OI[row_P, column_P]).double().mean())
    return torch.tensor(list(ranks)), torch.stack(shares)


if __name__ == "__main__":
    main()
