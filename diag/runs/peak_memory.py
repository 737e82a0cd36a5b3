"""Peak memory of a run: of its process, or of the CUDA device that it computes on.

A process keeps one high-water mark for all that it does. Where that mark did not rise while a run lasted, the run's own
peak is somewhere below it, and not known. The mark of a CUDA device can be set back, so there it is always known.
"""

from __future__ import annotations

import sys
from pathlib import Path

_host_begun = False  # whether a run of this process was measured already
_on_cuda: list[_Cuda] = []  # runs that are being measured, one inside another


class _Host:
    """Peak of this process since it began, or since an earlier run of it began to be measured."""

    def __init__(self) -> None:
        global _host_begun
        self._before = high_water() if _host_begun else 0
        _host_begun = True

    def bytes(self) -> int | None:
        found = high_water()
        return found if found > self._before else None

    def end(self) -> None:
        pass


class _Cuda:
    """Peak of a device: what torch allocated at most."""

    def __init__(self, device: str) -> None:
        self._device, self._seen = device, 0
        for outer in _on_cuda:
            outer._seen = outer.bytes() or 0  # the mark is set back under them
        if _ready():
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        _on_cuda.append(self)

    def bytes(self) -> int | None:
        if not _ready():
            return None
        import torch

        return max(self._seen, int(torch.cuda.max_memory_allocated(self._device))) or None

    def end(self) -> None:
        if self in _on_cuda:
            _on_cuda.remove(self)


PeakMemory = _Host | _Cuda


def measuring(device: str, engine: str) -> PeakMemory | None:
    """A measurement from now on; None where the work is done in other processes."""
    if engine != "inline":
        return None
    return _Cuda(device) if device.startswith("cuda") else _Host()


def high_water() -> int:
    """Largest resident size of this process in bytes.

    From /proc where there is one: Linux hands `ru_maxrss` on to what a process starts.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _ready() -> bool:
    """Tell whether torch uses CUDA in this process: asking must not begin it."""
    import torch

    return bool(torch.cuda.is_initialized())
