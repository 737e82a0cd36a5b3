"""One stack of Qwen3-30B-A3B shape through the whole command, against what others do and the bare dense cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import tensorly
import torch
from safetensors import safe_open
from tensorly.tenalg import multi_mode_dot
from torch import Tensor

from bench.checkpoints import QWEN3_30B, QWEN3_QUARTER, TINY, read_plainly, shards, write
from bench.machine import fastest, gemm_rate
from bench.parts import seconds_of_parts
from bench.process import Cost, measure, with_torch
from bench.results import Figure

ALLOWANCE = 1.5e9  # bytes above the interpreter with torch


def run(folder: Path) -> Iterator[Figure]:
    """Every figure of the section; `folder` takes about 2 GB."""
    big, quarter, tiny = (
        write(folder / name, shape) for name, shape in (("big", QWEN3_30B), ("quarter", QWEN3_QUARTER), ("tiny", TINY))
    )
    base = min(_command(tiny, folder).seconds for _ in range(3))
    costs = [_command(big, folder) for _ in range(3)]
    ours, peak = min(c.seconds for c in costs) - base, max(c.peak_bytes for c in costs) - with_torch().peak_bytes
    yield Figure("whole command, less the same on a tiny model", f"{ours:.2f} s ({base:.2f} s subtracted)")
    yield Figure("peak memory above Python with torch", f"{peak / 1e9:.2f} GB", "<= 1.5 GB", peak <= ALLOWANCE)

    rate, reading = gemm_rate(), fastest(lambda: [read_plainly(p) for p in shards(big)]) / 3  # a third is gate
    products = 2 * QWEN3_30B.weights * (QWEN3_30B.experts + QWEN3_30B.width + QWEN3_30B.hidden) / rate
    dense = reading + products
    yield Figure("bare dense cost: read the stack, three fp32 GEMMs", f"{dense:.2f} s at {rate / 1e9:.0f} GFLOP/s")
    yield Figure("ours over the bare dense cost", f"{ours / dense:.2f}", "<= 1.0", ours <= dense)

    quarter_ours = min(_command(quarter, folder).seconds for _ in range(3)) - base
    W_EOI = _load(quarter)
    svd, hosvd = _svdvals(W_EOI), _hosvd(W_EOI)
    yield Figure("ours on a quarter of the experts", f"{quarter_ours:.2f} s")
    for name, seconds, factor in (
        ("torch.linalg.svdvals of the three unfoldings, a quarter", svd, 10),
        ("tensorly HOSVD at full rank, a quarter", hosvd, 20),
    ):
        ratio = seconds / quarter_ours
        yield Figure(name, f"{seconds:.1f} s, {ratio:.1f} times ours", f">= {factor} times", ratio >= factor)

    seconds_of_parts(tiny, folder)  # what every run pays once, imports and first figures, is left out here too
    parts = seconds_of_parts(big, folder)
    around = parts["fits"] + parts["figures and page"]
    share = around / parts["Grams"]
    yield Figure("inside: " + ", ".join(parts), ", ".join(f"{s:.2f} s" for s in parts.values()))
    yield Figure("fits, figures and page over the Grams", f"{share:.1%}", "<= 10 %", share <= 0.1)


def _command(model: Path, folder: Path) -> Cost:
    out = folder / f"run-{model.name}"
    options = ("--projections", "gate", "--layers", "0", "--device", "cpu", "--out", out, "--fresh", "--quiet")
    return measure("diag.cli.app", "spectra", "--model", model, *options)


def _load(model: Path) -> Tensor:
    with safe_open(shards(model)[0], "pt") as file:
        names = [f"model.layers.0.mlp.experts.{e}.gate_proj.weight" for e in range(QWEN3_QUARTER.experts)]
        return torch.stack([file.get_tensor(name).float() for name in names])


def _svdvals(W_EOI: Tensor) -> float:
    started = time.perf_counter()
    for mode in range(3):
        torch.linalg.svdvals(W_EOI.movedim(mode, 0).flatten(1))
    return time.perf_counter() - started


def _hosvd(W_EOI: Tensor) -> float:
    """HOSVD as tensorly's Tucker starts it: an SVD of each unfolding, then the core."""
    tensorly.set_backend("pytorch")
    started = time.perf_counter()
    factors = []
    for mode in range(3):
        unfolded = tensorly.unfold(W_EOI, mode)
        factors.append(
            tensorly.tenalg.svd_interface(unfolded, method="truncated_svd", n_eigenvecs=W_EOI.shape[mode])[0]
        )
    multi_mode_dot(W_EOI, factors, transpose=True)
    return time.perf_counter() - started
