"""`make gpu`: checks and benchmarks on a GPU, in one command that needs torch, transformers, safetensors, numpy, scipy.

Every check compares with an independent truth: a float64 SVD of weights that transformers or plain torch decoded.
Exit code 0 when every check holds, 1 otherwise, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench import gpu_checks, gpu_methods, gpu_tucker
from bench.checkpoints import QWEN3_30B, Shape, forget, read_plainly, shards, write
from bench.machine import fastest, gemm_rate, hardware, today
from bench.results import Figure, section
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.numerics.gram import mode_grams
from tdmoe.numerics.spectrum import mode_spectra, singular_values
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockReader
from tdmoe.stacks.locate import open_stack

MEMORY = 4_000_000_000
SMALL = Shape("qwen3_moe", 24, 160, 320)


def timings(folder: Path, device: str, small: bool) -> Iterator[Figure]:
    """Rates of the machine, then Grams and whole spectra of one stack, then stacks from a cold disk."""
    shape, layers = (SMALL, 2) if small else (QWEN3_30B, 2)
    model = write(folder / "model", shape, layers)
    tensor_cores = device != "cpu"
    dtype = torch.bfloat16 if tensor_cores else torch.float32
    rates = {t: gemm_rate(device, t) for t in (dtype, torch.float32, torch.float64)}
    for kind, rate in rates.items():
        yield Figure(f"dense product in {str(kind).removeprefix('torch.')}", f"{rate / 1e12:.2f} TFLOP/s")
    with Checkpoint(model) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, "gate")
        reader = BlockReader(stack, MEMORY)
        work = shape.weights * (shape.experts + shape.width + shape.hidden)  # one triangle of each Gram
        for kind in (dtype, torch.float64):
            seconds = fastest(lambda kind=kind: mode_grams(reader, dtype=kind, device=device))  # type: ignore[misc]
            share = work / seconds / rates[kind]
            name = str(kind).removeprefix("torch.")
            yield Figure(f"Grams of one stack in memory, {name}", f"{seconds:.3f} s, {share:.0%} of the dense rate")
        seconds = fastest(lambda: mode_spectra(reader, device=device), repeats=2)
        yield Figure("all three spectra of one stack in memory", f"{seconds:.3f} s")
        exact = _in_float64(reader, device)
        for mode, spectrum in mode_spectra(reader, device=device).modes.items():
            error = abs(spectrum.sigma - exact[mode]).max() / exact[mode][0]
            what = f"{mode}: largest error against float64 Grams, over sigma_max"
            yield Figure(what, f"{error:.1e} ({spectrum.precision})", "<= 1e-6", bool(error <= 1e-6))
    yield from _from_disk(model, layers, device)


def _in_float64(reader: BlockReader, device: str) -> dict[str, NDArray[np.float64]]:
    grams = mode_grams(reader, dtype=torch.float64, device=device)
    return {mode: singular_values(gram.gram, math.prod(reader.stack.shape)) for mode, gram in grams.items()}


def _from_disk(model: Path, layers: int, device: str) -> Iterator[Figure]:
    """Every stack of the model once, from a cold cache, beside a plain sequential read of the same files."""
    cold = "cold cache" if forget(model) else "cache as it was"
    started = time.perf_counter()
    total = sum(read_plainly(path) for path in shards(model))
    plain = time.perf_counter() - started
    forget(model)
    started = time.perf_counter()
    with Checkpoint(model) as checkpoint:
        arch = architecture(checkpoint.config)
        for layer in range(layers):
            for projection in ("gate", "up", "down"):
                reader = BlockReader(open_stack(checkpoint, arch, layer, projection), MEMORY)
                mode_spectra(reader, device=device)
    ours = time.perf_counter() - started
    yield Figure(f"plain read of {total / 1e9:.1f} GB, {cold}", f"{plain:.2f} s, {total / plain / 1e9:.2f} GB/s")
    share = plain / ours
    yield Figure("all spectra of it", f"{ours:.2f} s, {share:.0%} of the disk's rate", ">= 80 %", share >= 0.8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes: tries the script, measures nothing of use")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("make gpu: torch finds no CUDA device here; --device cpu --small tries the script without one")
        return 2
    print(f"{today()}, {hardware()}\n")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for check in (*gpu_checks.CHECKS, *gpu_tucker.CHECKS, *gpu_methods.CHECKS):
            failed += not _holds(check, Path(folder), options.device)
        sections = {"GPU": timings, "TD-MoE on the GPU": gpu_tucker.timings, "MoBE on the GPU": gpu_methods.timings}
        for title, timed in sections.items():
            found = list(timed(Path(folder), options.device, options.small))
            print("\n" + section(title, found))
            failed += any("largest error" in figure.what and not figure.met for figure in found)
    return 1 if failed else 0


def _holds(check: Callable[[Path, str], None], folder: Path, device: str) -> bool:
    name = check.__name__.replace("_", " ")
    try:
        check(folder, device)
    except AssertionError as error:
        print(f"FAILED  {name}: {error}")
        return False
    print(f"ok      {name}")
    return True


if __name__ == "__main__":
    sys.exit(main())
