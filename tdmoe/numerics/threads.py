"""Threads that wait without spinning, and no more of them than the work is worth.

A thread that spins while it waits holds a core that another process needs: two commands at once then take many times
as long as one after the other. So waiting threads sleep, and factorisations of small matrices run on one thread, where
several gain little on an idle machine and lose tenfold on a busy one. The number follows from the size of the work
alone, never from the load: tables do not depend on what else runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

SERIAL = 3072  # rows of a square matrix below which its factorisation gets one thread
WAITING = {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0", "OPENBLAS_NUM_THREADS": "1"}


def sleep_while_waiting() -> None:
    """Set what OpenMP and OpenBLAS read when they are loaded, where the user set nothing: call before numpy or torch.

    OpenBLAS, whose threads always spin, is left one thread; `lapack_threads` gives it more for large matrices.
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)


@contextmanager
def lapack_threads(rows: int, columns: int) -> Iterator[None]:
    """One thread inside where rows x columns x the smaller of them is below SERIAL^3, else as many as torch has."""
    import torch

    threads = torch.get_num_threads()
    few = rows * columns * min(rows, columns) < SERIAL**3
    if few:
        torch.set_num_threads(1)
    try:
        with _openblas().limit(limits=1 if few else threads, user_api="blas"):
            yield
    finally:
        if few:
            torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _openblas() -> Any:
    """The BLAS libraries of numpy and SciPy; torch's own follows torch."""
    import scipy.linalg  # noqa: F401  # loads its BLAS, which is found only then
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
