"""torch's factorisations, each on as many threads as its matrices are worth (tdmoe/numerics/threads.py)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from tdmoe.numerics.threads import lapack_threads


def _sized(work: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(work)
    def call(matrices: Tensor, *arguments: Any, **named: Any) -> Any:
        if matrices.device.type != "cpu":
            return work(matrices, *arguments, **named)
        with lapack_threads(*matrices.shape[-2:]):
            return work(matrices, *arguments, **named)

    return call


cholesky = _sized(torch.linalg.cholesky)
cholesky_ex = _sized(torch.linalg.cholesky_ex)
eigh = _sized(torch.linalg.eigh)
eigvalsh = _sized(torch.linalg.eigvalsh)
lstsq = _sized(torch.linalg.lstsq)
qr = _sized(torch.linalg.qr)
svd = _sized(torch.linalg.svd)
svdvals = _sized(torch.linalg.svdvals)
