"""A command as a whole process: seconds, and peak memory above the interpreter with torch loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_bytes: int


def measure(*arguments: object) -> Cost:
    """Run `python ARGUMENTS`; a failure raises with what it printed."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments}: exit code {process.returncode}")
    return Cost(time.perf_counter() - started, usage.ru_maxrss * UNIT)


def with_torch() -> Cost:
    """The interpreter with torch loaded, and nothing done."""
    return measure("-c", "import torch")
