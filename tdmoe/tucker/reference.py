"""Reference: HOOI by tensorly on the whitened stack held in memory, to check ours on one's own weights.

    T = W x_output S_O^T x_input S_I^T,    T ~ G x_m U_m over the modes that are cut (`partial_tucker`, torch, float64)

Starts from the HOSVD as ours does, and goes on until a sweep changes the error by less than TOLERANCE.
Source: Kossaifi et al. 2019. Takes about COPIES times the stack in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tdmoe.numerics.gram import MODES
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import mode_products
from tdmoe.numerics.ranks import Ranks
from tdmoe.stacks.source import Device, WeightSource
from tdmoe.tucker.modes import Metrics

LARGEST = 1 << 28  # weights of a stack: 2.1 GB in float64
COPIES = 6  # T, its unfolding, right singular vectors and what LAPACK works in
SWEEPS = 500
TOLERANCE = 1e-10  # of the error relative to ||T||


def partial_tucker(
    reader: WeightSource, metrics: Metrics, ranks: Ranks, *, device: Device = "cpu"
) -> dict[str, Tensor]:
    """Orthonormal factors of the modes that are cut, in float64."""
    import tensorly
    from tensorly import decomposition

    cut = {axis: rank for axis, rank in enumerate(ranks) if rank < reader.stack.shape[axis]}
    if not cut:
        return {}
    projectors = (metrics[mode].S_NN if mode in metrics else None for mode in MODES)
    T_EOI = mode_products(reader, *projectors, dtype=torch.float64, device=device)
    with full_precision(), tensorly.backend_context("pytorch", local_threadsafe=True):
        (_, factors), _ = decomposition.partial_tucker(
            T_EOI, list(cut.values()), modes=list(cut), n_iter_max=SWEEPS, tol=TOLERANCE
        )
    return {MODES[axis]: U_NR.contiguous() for axis, U_NR in zip(cut, factors, strict=True)}
