"""A command as a whole process: seconds, and peak memory above the interpreter with torch loaded."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# Runs MODULE ARGUMENTS (or nothing) in a fresh interpreter and leaves its peak in a file. Linux keeps ru_maxrss of the
# process that started it, so the peak of the new one alone is read from /proc where there is one.
CHILD = """
import atexit, resource, runpy, sys
def peak():
    try:
        return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
place, module, *rest = sys.argv[1:]
atexit.register(lambda: open(place, "w").write(str(peak())))
if module == "torch":
    import torch
else:
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__")
"""


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak_bytes: int


def measure(module: str, *arguments: object) -> Cost:
    """Run `python -m MODULE ARGUMENTS`; a failure raises."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "peak"
        command = [sys.executable, "-c", CHILD, str(place), module, *map(str, arguments)]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return Cost(time.perf_counter() - started, int(place.read_text()))


def with_torch() -> Cost:
    """The interpreter with torch loaded, and nothing done."""
    return measure("torch")
