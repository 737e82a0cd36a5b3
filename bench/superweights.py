"""Recovery curves of entries of Qwen3-30B-A3B down projections (2048 x 768), against one reconstruction a rank."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.checkpoints import QWEN3_QUARTER, write
from bench.process import measure, with_torch
from bench.results import Figure
from bench.superweights_once import ENTRIES, EXPERTS

REPEATS = 2


def run(folder: Path) -> Iterator[Figure]:
    """Every figure of the section; `folder` takes about 100 MB."""
    model = write(folder / "model", QWEN3_QUARTER, projections=("down",))
    found = {how: _once(how, model, folder) for how in ("ours", "plain", "published")}
    names = {
        "ours": "ours, every rank in one pass",
        "plain": "SVD once, a product for every rank",
        "published": "SVD once, a product for each of the notebook's ranks",
    }
    for how, name in names.items():
        told = f"{found[how]['seconds']:.2f} s for {EXPERTS} matrices, {ENTRIES} entries, {found[how]['ranks']} ranks"
        yield Figure(name, f"{told}, peak {found[how]['peak'] / 1e6:.0f} MB")
    ours, plain, published = (found[how] for how in names)
    ratio, few = (other["seconds"] / ours["seconds"] for other in (plain, published))
    yield Figure("a product for every rank over ours, seconds", f"{ratio:.1f}", ">= 10", ratio >= 10)
    yield Figure("a product for each of the notebook's ranks over ours, seconds", f"{few:.1f}")
    yield Figure("ours over a product for every rank, peak memory", f"{ours['peak'] / plain['peak']:.2f}")
    apart = ENTRIES * max(_differences(ours["shares"], plain["shares"]))
    yield Figure("largest difference of a curve", f"{apart:.0f} of {ENTRIES} entries (float32 against float64)")


def _once(how: str, model: Path, folder: Path) -> dict[str, Any]:
    """The fastest of several runs, with the largest peak above the interpreter with torch."""
    result, base, runs = folder / "result.json", with_torch().peak_bytes, []
    for _ in range(REPEATS):
        peak = measure("bench.superweights_once", how, model, result).peak_bytes - base
        runs.append({**json.loads(result.read_text()), "peak": peak})
    best: dict[str, Any] = min(runs, key=lambda found: found["seconds"])
    return best | {"peak": max(found["peak"] for found in runs)}


def _differences(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> Iterator[float]:
    for mine, other in zip(ours, theirs, strict=True):
        yield from (abs(mine[rank] - share) for rank, share in other.items())
