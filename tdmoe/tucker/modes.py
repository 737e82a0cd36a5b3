"""Bases of the three modes of a (whitened) expert stack: eigenvectors of its mode Grams, and what cutting a mode costs.

The stack that is decomposed is T_e = L^T W_e S. S S^T is the second moment of the inputs, L L^T that of the gradient
at the outputs; the identity where there is none. Where only the mode's own metric is given, the Gram of T is
S^T M S with M the Gram of the raw weights; otherwise blocks are whitened one at a time as they stream by.

Legend: E experts, O outputs, I inputs, N size of a mode, B experts of a block, R rows and C columns as stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tdmoe.numerics.eigen import eigenvectors
from tdmoe.numerics.gram import MODES, ModeGram, mode_grams
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import lower_products
from tdmoe.numerics.whitening import Metric
from tdmoe.stacks.blocks import BLOCK_WEIGHTS
from tdmoe.stacks.source import Device, WeightSource

Metrics = Mapping[str, Metric]  # by mode, "input" or "output"; a mode without one is not whitened


@dataclass(frozen=True)
class Basis:
    """Orthonormal directions of a mode, most energy first: columns of U_NN, with ||T x_n u||^2 each (float64)."""

    U_NN: Tensor
    energy_N: Tensor

    def tail(self) -> Tensor:
        """(N + 1,): squared error of keeping the first r directions of this mode and all of the others, r = 0..N."""
        kept_N = self.energy_N.flip(0).cumsum(0).flip(0)
        return torch.cat([kept_N, torch.zeros_like(kept_N[:1])])


def mode_bases(
    reader: WeightSource,
    metrics: Metrics,
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
    modes: tuple[str, ...] = MODES,
) -> dict[str, Basis]:
    """HOSVD bases (De Lathauwer et al. 2000) of the whitened stack, products in `dtype`, Grams in float64."""
    grams = whitened_grams(reader, metrics, dtype=dtype, device=device, modes=modes)
    return {m: basis(grams[m].gram.to(device)) for m in modes}


def whitened_grams(
    reader: WeightSource,
    metrics: Metrics,
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
    modes: tuple[str, ...] = MODES,
    bounds: list[int] | None = None,
) -> dict[str, ModeGram]:
    """Mode Grams of T; with `bounds` those of each group of experts too (see `mode_grams`)."""
    own = [m for m in modes if not set(metrics) - {m}]  # untouched by another mode's metric
    how: dict[str, Any] = {"dtype": dtype, "device": device, "bounds": bounds, "seed": None}
    raw = mode_grams(reader, modes=own, **how) if own else {}
    grams = {m: _under(metrics[m], g) if m in metrics else g for m, g in raw.items()}
    if mixed := [m for m in modes if m not in own]:
        grams |= mode_grams(WhitenedReader(reader, metrics), modes=mixed, **how)
    return grams


def _under(metric: Metric, raw: ModeGram) -> ModeGram:
    gram, *parts = (metric.gram(G_NN.to(metric.S_NN)) for G_NN in (raw.gram, *raw.parts))
    return ModeGram(gram, raw.product_error, tuple(parts))


def basis(G_NN: Tensor) -> Basis:
    """Eigenvectors of a mode Gram; eigenvalues that rounding made negative are zero."""
    energy_N, U_NN = eigenvectors(G_NN)
    return Basis(U_NN, energy_N.clamp(min=0.0))


class WhitenedReader:
    """A BlockReader of T: every block is whitened as it comes, in the order on disk."""

    def __init__(self, reader: WeightSource, metrics: Metrics) -> None:
        self.stack, self._reader = reader.stack, reader
        row_mode = reader.stack.row_mode
        column_mode = "input" if row_mode == "output" else "output"
        self._rows, self._columns = metrics.get(row_mode), metrics.get(column_mode)

    def blocks(
        self, bounds: list[int], dtype: torch.dtype = torch.float32, device: Device = "cpu"
    ) -> Iterator[tuple[int, Tensor]]:
        """(first expert, T_BRC)."""
        for start, W_BRC in self._reader.blocks(bounds, dtype, device):
            yield start, self._whiten(W_BRC, slice(None))

    def strips(self, dtype: torch.dtype = torch.float32, device: Device = "cpu") -> Iterator[Tensor]:
        """Y_EK: some rows of every whitened expert, side by side."""
        experts, rows, columns = self.stack.stored_shape
        if self._rows is None:
            for Y_EK in self._reader.strips(dtype, device):
                yield self._whiten(Y_EK.view(experts, -1, columns), slice(None)).flatten(1)
            return
        step = max(1, BLOCK_WEIGHTS * 4 // (experts * columns))  # a row of T needs all rows of W: one pass a strip
        for first in range(0, rows, step):
            part = slice(first, min(first + step, rows))
            strip_ERC = torch.empty(experts, part.stop - part.start, columns, dtype=dtype, device=device)
            for start, W_BRC in self._reader.blocks([0, experts], dtype, device):
                strip_ERC[start : start + len(W_BRC)] = self._whiten(W_BRC, part)
            yield strip_ERC.flatten(1)

    def _whiten(self, W_BRC: Tensor, part: slice) -> Tensor:
        with full_precision():
            if self._rows is not None:
                W_BRC = self._rows.S_NN[:, part].T.to(W_BRC) @ W_BRC
            if self._columns is None:
                return W_BRC
            S_NN = self._columns.S_NN.to(W_BRC)
            if self._columns.inverse_T_NN is not None:
                return W_BRC @ S_NN
            T_BRC = torch.empty_like(W_BRC)
            for columns, panel_BRP in lower_products(W_BRC, S_NN):
                T_BRC[..., columns] = panel_BRP
            return T_BRC
