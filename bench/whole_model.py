"""Four layers of Qwen3-30B-A3B width, a shard a layer, from a cold cache: is a run bound by reading or by computing?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from bench.checkpoints import QWEN3_30B, forget, read_plainly, shards, write
from bench.process import measure
from bench.results import Figure

LAYERS = 4


def run(folder: Path) -> Iterator[Figure]:
    """Every figure of the section; `folder` takes about 5 GB."""
    model = write(folder / "layers", QWEN3_30B, LAYERS)
    cold = forget(model)
    started = time.perf_counter()
    total = sum(read_plainly(path) for path in shards(model))
    plain = total / (time.perf_counter() - started)
    state = "cold cache" if cold else "cache as it was"
    yield Figure(f"plain sequential read, {state}", f"{plain / 1e9:.2f} GB/s")

    totals = {}
    for cache in ("warm", "cold"):
        if cache == "cold" and not forget(model):
            continue
        out = folder / f"run-{cache}"
        measure("diag.cli.app", "spectra", "--model", model, "--device", "cpu", "--out", out, "--fresh", "--quiet")
        seconds = [job["seconds"] for job in json.loads((out / "run.json").read_text())["jobs"]]
        a_layer = len(seconds) // LAYERS
        by_layer = ", ".join(f"{sum(seconds[i : i + a_layer]) / a_layer:.2f}" for i in range(0, len(seconds), a_layer))
        totals[cache] = sum(seconds)
        yield Figure(f"seconds a stack, {cache}: mean of each layer in turn", by_layer)
    rate = total / totals["warm"]
    yield Figure("bytes a second of the run, and over the plain read", f"{rate / 1e9:.2f} GB/s, {rate / plain:.0%}")
    if "cold" in totals:
        ratio, bound = totals["cold"] / totals["warm"], 1 + total / plain / totals["warm"]
        yield Figure(
            "cold over warm (reading and computing in turn would be the target)",
            f"{ratio:.2f}",
            f"< {bound:.2f}",
            ratio < bound,
        )
