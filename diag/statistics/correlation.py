"""Rank correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def spearman(x_R: NDArray[np.float64], y_R: NDArray[np.float64]) -> float | None:
    """Rank correlation, equal values sharing their mean rank; None where either is constant."""
    a, b = (rankdata(values) - (len(values) + 1) / 2 for values in (x_R, y_R))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None
