"""The methods on a GPU: the same as on the CPU, and MoBE's loss against time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.checkpoints import QWEN3_30B, Shape, write
from bench.results import Figure
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.forms import Factored, linear
from tdmoe.methods import Allotment, StackStatistics, parse
from tdmoe.mobe import fit, published, sizes
from tdmoe.numerics.products import whole_stack
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockReader
from tdmoe.stacks.locate import open_stack

SHAPE = Shape("qwen3_moe", 12, 40, 56)
SMALL = Shape("qwen3_moe", 24, 80, 160)
SPECS = (
    *("svd", "svd_llm", "svd_llm:moments=expert", "d2_moe", "moe_svd", "moe_svd:preset=published", "rtn"),
    *("rtn:scale=tensor", "mean", "drop", "identity"),
    *("mobe:steps=20", "mobe:steps=20,whitening=none,groups=2", "mobe:preset=published,steps=5"),
)
RATIO = 0.4
STEPS = 3000  # of the published training
ROWS = 96


def every_method_does_on_the_device_what_it_does_on_the_cpu(folder: Path, device: str) -> None:
    for spec in SPECS:
        both = (_made(folder, spec, where) for where in ("cpu", device))
        W_EOI, ours = (made.members(0, SHAPE.experts).double().cpu() for made in both)
        change = float((ours - W_EOI).norm() / W_EOI.norm().clamp(min=1e-9))
        assert change <= (0.05 if "mobe" in spec else 1e-3), f"{spec}: moved by {change:.1e}"


def every_form_runs_on_the_device(folder: Path, device: str) -> None:
    counts = [ROWS // SHAPE.experts] * SHAPE.experts
    for spec in SPECS:
        made = _made(folder, spec, "cpu").to(torch.float32)
        module = linear(made.shape, made.spec(), torch.float32).to(device)
        module.load_state_dict(made.tensors())
        x_SI = torch.randn(ROWS, SHAPE.hidden, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            found = module.leave(module.mix(module.enter(x_SI.to(device)), counts)).cpu()
        W_EOI = made.members(0, SHAPE.experts).float()
        expected = torch.cat([x @ W_OI.T for x, W_OI in zip(x_SI.split(counts), W_EOI, strict=True)])
        error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-9))
        assert error <= 2e-3, f"{spec}: off by {error:.1e}"


CHECKS = (every_method_does_on_the_device_what_it_does_on_the_cpu, every_form_runs_on_the_device)


def timings(folder: Path, device: str, small: bool) -> Iterator[Figure]:
    """Both presets of MoBE at equal storage, until the published one has made its steps."""
    shape, steps = (SMALL, 60) if small else (QWEN3_30B, STEPS)
    with Checkpoint(write(folder / "mobe", shape, projections=("gate",))) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, "gate")
        W_EOI = whole_stack(BlockReader(stack, 10**10), device=device)
    chosen = sizes.published(stack.shape, RATIO, 1)
    theirs = published.trained(W_EOI, chosen, "silu", steps)
    assert theirs.fit is not None
    _, seconds, error = theirs.fit.curve[-1]
    name = f"{chosen.bases} bases of rank {chosen.rank}"
    yield Figure(f"MoBE as published, {name}, {steps:,} steps", f"{seconds:.1f} s, weight error {error:.4f}")
    for how, choices in (("as published", [chosen]), ("searched", sizes.ladder(stack.shape, RATIO, 1))):
        began = time.perf_counter()
        ours = fit.fitted(W_EOI, choices, "tanh", 60 if small else fit.STEPS)
        assert ours.fit is not None
        reached = next((t for _, t, e in ours.fit.curve if e <= error), None)
        bases, rank = ours.ranks
        told = f"{bases} bases of rank {rank}, {time.perf_counter() - began:.1f} s, {ours.fit.curve[-1][2]:.4f}"
        yield Figure(f"MoBE fitted, sizes {how}", told)
        times = f"{seconds / reached:.1f}" if reached else "never"
        yield Figure("times sooner at that error", times, ">= 10", bool(reached and seconds / reached >= 10))


def _made(folder: Path, spec: str, device: str) -> Factored:
    model = folder / "methods"
    if not model.exists():
        write(model, SHAPE, projections=("gate",))
    x = torch.randn(400, SHAPE.hidden, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    C_II, count_E = x.T @ x / len(x), torch.arange(1.0, SHAPE.experts + 1)
    statistics = StackStatistics(C_II, lambda e: C_II, None, count_E, count_E)
    with Checkpoint(model) as checkpoint:
        reader = BlockReader(open_stack(checkpoint, architecture(checkpoint.config), 0, "gate"), 10**9)
        method, options = parse(spec)
        made: Factored = method.compress(reader, options, Allotment(RATIO), statistics, device=device)
    return made
