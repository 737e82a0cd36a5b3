"""Operator errors of truncations of one stack of Qwen3-30B-A3B shape, against dense residuals and their SVDs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.checkpoints import QWEN3_30B, write
from bench.process import measure, with_torch
from bench.results import Figure


def run(folder: Path) -> Iterator[Figure]:
    """Every figure of the section; `folder` takes about 0.5 GB."""
    big = write(folder / "big", QWEN3_30B, projections=("gate",))
    ours, plain = (_once(how, big, folder) for how in ("ours", "plain"))
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ours["parts"].items())
    for name, found in (
        (f"ours, {ours['cases']} truncations of a mode: every mode at four ranks", ours),
        ("straightforward, one of them: dense residual, svdvals of experts and unfoldings", plain),
    ):
        told = f"{found['seconds']:.1f} s, {found['processor']:.1f} s of a processor, peak {found['peak'] / 1e9:.2f} GB"
        yield Figure(name, told)
    yield Figure("inside ours, seconds of a processor", parts)
    wall, busy = (plain[kind] / ours[kind] * ours["cases"] for kind in ("seconds", "processor"))
    yield Figure("straightforward over ours, seconds a truncation", f"{wall:.1f}", ">= 10", wall >= 10)
    yield Figure("the same in seconds of a processor", f"{busy:.1f}", ">= 10", busy >= 10)
    memory = ours["peak"] / plain["peak"]
    yield Figure("ours over straightforward, peak memory", f"{memory:.2f}", "<= 0.5", memory <= 0.5)
    apart = max(abs(ours["norms"][name] / norm - 1) for name, norm in plain["norms"].items())
    yield Figure(
        "largest relative difference of a norm: float32 SVDs of long unfoldings are that inexact", f"{apart:.1e}"
    )


def _once(how: str, model: Path, folder: Path) -> dict[str, Any]:
    """One run, with its peak above the interpreter with torch."""
    result = folder / "result.json"
    peak = measure("bench.operator_once", how, model, result).peak_bytes - with_torch().peak_bytes
    found: dict[str, Any] = json.loads(result.read_text())
    return found | {"peak": peak}
