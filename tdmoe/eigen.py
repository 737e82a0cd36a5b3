"""Symmetric eigenproblems in float64, largest first.

On the CPU through SciPy's LAPACK: for eigenvalues alone several times as fast as torch's on AMD, where MKL takes slow
paths, with the same algorithm.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor


def eigenvalues(G_NN: Tensor) -> NDArray[np.float64]:
    """Descending eigenvalues of a symmetric matrix on the CPU."""
    values: NDArray[np.float64] = eigh(G_NN.numpy(), eigvals_only=True, driver="ev", check_finite=False)[::-1]
    return values


def eigenvectors(G_NN: Tensor) -> tuple[Tensor, Tensor]:
    """(descending eigenvalues, eigenvectors as columns) of a symmetric matrix, on its device."""
    if G_NN.device.type != "cpu":
        values_N, V_NN = torch.linalg.eigh(G_NN)
        return values_N.flip(0), V_NN.flip(1)
    values, vectors = eigh(G_NN.numpy(), driver="evd", check_finite=False)
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy())


def largest_eigenvalue(G_NN: Tensor) -> float:
    """Of a symmetric matrix on the CPU."""
    last = len(G_NN) - 1
    values = eigh(G_NN.numpy(), eigvals_only=True, driver="evx", subset_by_index=[last, last], check_finite=False)
    return float(values[0])


def leading_eigenvectors(G_NN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(the `count` largest eigenvalues, their eigenvectors as columns) of a symmetric matrix, on its device."""
    if G_NN.device.type != "cpu":
        values_N, V_NN = torch.linalg.eigh(G_NN)
        return values_N[-count:].flip(0), V_NN[:, -count:].flip(1)
    size = len(G_NN)
    values, vectors = eigh(G_NN.numpy(), driver="evr", subset_by_index=[size - count, size - 1], check_finite=False)
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy())
