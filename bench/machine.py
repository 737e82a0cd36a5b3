"""What the figures were measured on, for the line beside them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor


def hardware() -> str:
    """Processor, cores, memory, GPU, versions."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    parts = [f"{_processor()}, {os.cpu_count()} cores", f"{pages / 2**30:.0f} GiB"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name(0))
    return ", ".join([*parts, f"Python {platform.python_version()}", f"torch {torch.__version__}"])


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def gemm_rate(device: str = "cpu", dtype: torch.dtype = torch.float32, size: int = 2048, terms: int = 4096) -> float:
    """Multiply-adds, counted as two operations, per second of a dense X Y^T: best of several."""
    X = torch.randn(size, terms, device=device).to(dtype)
    Y = torch.randn(size, terms, device=device).to(dtype)
    return 2 * size * size * terms / fastest(lambda: X @ Y.T, repeats=7)


def fastest(work: Callable[[], Tensor | object], repeats: int = 3) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
