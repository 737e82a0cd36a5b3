"""One stack compressed once, in a process of its own: python -m bench.tucker_once HOW MODEL RESULT.json

ours            exact ranks, unwhitened
ours-whitened   exact ranks in the metric of the inputs
plain           what one writes first: unfold by moveaxis and reshape, Gram and eigh of each mode in float32, published
                ranks, core, dense rebuild
tensorly        tensorly's Tucker at our ranks, one sweep
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from bench.checkpoints import shards
from tdmoe.numerics.ranks import Ranks, published_ranks

RATIO = 0.4
UNWHITENED = "whitening=none,objective=weight"


def main() -> None:
    how, model, result = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    work = {"ours": ours, "ours-whitened": whitened, "plain": plain, "tensorly": with_tensorly}[how]
    started = time.perf_counter()
    ranks, error = work(model)
    seconds = time.perf_counter() - started
    result.write_text(json.dumps({"seconds": seconds, "ranks": list(ranks), "error": error}))


def ours(
    model: Path, options: str = "whitening=none,objective=weight", C_II: Tensor | None = None
) -> tuple[Any, float]:
    """Read, decompose, and the error of the stored factors by the identity ||T - T^||^2 = ||T||^2 - ||core||^2."""
    from tdmoe import methods
    from tdmoe.checkpoint.reader import Checkpoint
    from tdmoe.stacks.architecture import architecture
    from tdmoe.stacks.blocks import BlockReader
    from tdmoe.stacks.locate import open_stack

    method, chosen = methods.parse(f"tdmoe:{options}")
    statistics = None if C_II is None else methods.StackStatistics(C_II)
    with Checkpoint(model) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, "gate")
        reader = BlockReader(stack, 4_000_000_000)
        made: Any = method.compress(reader, chosen, methods.Allotment(RATIO), statistics, device="cpu")
        if C_II is not None:
            return made.ranks, float("nan")
        total = sum(float(W.square().sum(dtype=torch.float64)) for _, W in reader.blocks([0, stack.shape[0]]))
        kept = sum(float(core_PQ.square().sum(dtype=torch.float64)) for core_PQ in made.core_RPQ)
        return made.ranks, (1 - kept / total) ** 0.5


def whitened(model: Path) -> tuple[Any, float]:
    generator = torch.Generator().manual_seed(0)
    hidden = json.loads((model / "config.json").read_text())["hidden_size"]
    x_TI = torch.randn(2 * hidden, hidden, generator=generator) * torch.arange(1, hidden + 1) ** -0.5
    return ours(model, "whitening=input", (x_TI.T @ x_TI / len(x_TI)).double())


def plain(model: Path) -> tuple[Any, float]:
    W_EOI = load(model)
    ranks = published_ranks(tuple(W_EOI.shape), RATIO)  # type: ignore[arg-type]
    factors = []
    for mode, rank in enumerate(ranks):
        unfolded = torch.moveaxis(W_EOI, mode, 0).reshape(W_EOI.shape[mode], -1)
        values, vectors = torch.linalg.eigh(unfolded @ unfolded.T)
        factors.append(vectors[:, values.argsort(descending=True)[:rank]])
    core = W_EOI
    for mode, U in enumerate(factors):
        core = _multiply(core, U.T, mode)
    rebuilt = core
    for mode, U in enumerate(factors):
        rebuilt = _multiply(rebuilt, U, mode)
    return ranks, float((W_EOI - rebuilt).norm() / W_EOI.norm())


def with_tensorly(model: Path) -> tuple[Any, float]:
    import tensorly
    from tensorly.decomposition import tucker

    tensorly.set_backend("pytorch")
    W_EOI = load(model)
    experts, outputs, inputs = W_EOI.shape
    allowed = (1 - RATIO) * W_EOI.numel()
    fitting = (Ranks(experts, outputs, r) for r in range(inputs // 8 * 8, 0, -8))
    ranks = next(r for r in fitting if r.parameters((experts, outputs, inputs)) <= allowed)
    found = tucker(W_EOI, rank=list(ranks), n_iter_max=1, init="svd", tol=0)
    return ranks, float((W_EOI - tensorly.tucker_to_tensor(found)).norm() / W_EOI.norm())


def _multiply(T: Tensor, A: Tensor, mode: int) -> Tensor:
    moved = torch.moveaxis(T, mode, 0)
    return torch.moveaxis((A @ moved.reshape(moved.shape[0], -1)).reshape(A.shape[0], *moved.shape[1:]), 0, mode)


def load(model: Path) -> Tensor:
    with safe_open(shards(model)[0], "pt") as file:
        names = sorted((n for n in file.keys() if "gate_proj" in n), key=lambda n: int(n.split(".")[5]))  # noqa: SIM118
        W_EOI = torch.empty(len(names), *file.get_tensor(names[0]).shape)
        for e, name in enumerate(names):
            W_EOI[e] = file.get_tensor(name)
        return W_EOI


if __name__ == "__main__":
    main()
