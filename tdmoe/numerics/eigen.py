"""Symmetric eigenproblems in float64, largest first.

On the CPU through SciPy's LAPACK: for eigenvalues alone several times as fast as torch's on AMD, where MKL takes slow
paths, with the same algorithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.linalg.lapack import dpotrf
from torch import Tensor

from tdmoe.numerics.threads import lapack_threads


def eigenvalues(G_NN: Tensor) -> NDArray[np.float64]:
    """Descending eigenvalues of a symmetric matrix on the CPU."""
    values: NDArray[np.float64] = _eigh(G_NN, eigvals_only=True, driver="ev")[::-1]
    return values


def eigenvectors(G_NN: Tensor) -> tuple[Tensor, Tensor]:
    """(descending eigenvalues, eigenvectors as columns) of a symmetric matrix, on its device."""
    if G_NN.device.type != "cpu":
        values_N, V_NN = torch.linalg.eigh(G_NN)
        return values_N.flip(0), V_NN.flip(1)
    values, vectors = _eigh(G_NN, driver="evd")
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy())


def largest_eigenvalue(G_NN: Tensor) -> float:
    """The largest eigenvalue of a symmetric matrix on the CPU."""
    last = len(G_NN) - 1
    return float(_eigh(G_NN, eigvals_only=True, driver="evx", subset_by_index=[last, last])[0])


def leading_eigenvectors(G_NN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(the `count` largest eigenvalues, their eigenvectors as columns) of a symmetric matrix, on its device."""
    if G_NN.device.type != "cpu":
        values_N, V_NN = torch.linalg.eigh(G_NN)
        return values_N[-count:].flip(0), V_NN[:, -count:].flip(1)
    size = len(G_NN)
    values, vectors = _eigh(G_NN, driver="evr", subset_by_index=[size - count, size - 1])
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy())


def is_positive_definite(G_NN: Tensor) -> bool:
    """Tell whether a Cholesky factorisation of it succeeds; a matrix on the CPU is overwritten."""
    if G_NN.device.type != "cpu":
        return int(torch.linalg.cholesky_ex(G_NN).info) == 0
    with lapack_threads(*G_NN.shape):
        _, info = dpotrf(G_NN.T.numpy(), lower=1, clean=0, overwrite_a=1)
    return bool(info == 0)


def _eigh(G_NN: Tensor, **how: Any) -> Any:
    with lapack_threads(*G_NN.shape):
        return eigh(G_NN.numpy(), check_finite=False, **how)
