"""Singular values of the three mode unfoldings of an WeightStack, each with its noise floor.

sigma_i = sqrt(lambda_i(G)). If the Gram is off by delta in the spectral norm, Weyl moves lambda_i by at most delta,
so sigma_i by about delta / (2 sigma_i): small values suffer first. The floor is where that reaches 1 % of the value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tdmoe.numerics.eigen import eigenvalues
from tdmoe.numerics.gram import MODES, ModeGram, mode_grams
from tdmoe.problems import WeightError
from tdmoe.stacks.blocks import BLOCK_WEIGHTS, BlockReader
from tdmoe.stacks.source import Device
from tdmoe.stacks.stack import WeightStack

FLOOR_CHANGE = 0.01  # relative change of a singular value at the noise floor
PROMISE = 1e-6  # |error of any sigma| / sigma_max that float32 products must keep, else float64


@dataclass(frozen=True)
class Spectrum:
    """`sigma` descending, min(N, weights / N) values in float64; `precision` names the products' dtype."""

    sigma: NDArray[np.float64]
    noise_floor: float
    precision: str


@dataclass(frozen=True)
class StackSpectra:
    """The three spectra by mode; `leave_out[mode]` holds one spectrum per group of experts left out."""

    modes: dict[str, Spectrum]
    leave_out: dict[str, list[NDArray[np.float64]]]


def mode_spectra(reader: BlockReader, *, device: Device = "cpu", groups: int = 0, seed: int = 0) -> StackSpectra:
    """Spectra of the expert, output and input unfoldings; float32 products first, float64 for modes that need it.

    On a GPU, weights that bf16 holds exactly (bf16 itself, MXFP4) are multiplied on its tensor cores instead.
    A stack of a single block is done in float64 at once: measuring float32's error would cost as much.
    `groups` > 1 also gives the spectra with each group of experts left out, for a jackknife. WeightError names the
    tensor that holds NaN or infinity.
    """
    experts = reader.stack.shape[0]
    bounds = [round(experts * g / groups) for g in range(groups + 1)] if groups > 1 else [0, experts]
    first = _first_dtype(reader.stack, device)
    grams = mode_grams(reader, dtype=first, device=device, bounds=bounds, seed=seed)
    if not all(torch.isfinite(g.gram).all() for g in grams.values()):
        reader.refuse_non_finite()  # finite weights whose squares overflow float32 go on below
    spectra = {m: spectrum_of(g, reader.stack.shape, _name(first)) for m, g in grams.items()}
    unsafe = [m for m, s in spectra.items() if s is None or not _keeps_promise(s, grams[m].product_error)]
    if unsafe and first != torch.float64:
        exact = mode_grams(reader, modes=unsafe, dtype=torch.float64, device=device, bounds=bounds, seed=seed)
        for mode, gram in exact.items():
            grams[mode], spectra[mode] = gram, spectrum_of(gram, reader.stack.shape, _name(torch.float64))
    leave_out = {m: _leave_out(m, grams[m], bounds, reader.stack.shape) for m in MODES} if groups > 1 else {}
    modes = {}
    for mode in MODES:
        spectrum = spectra[mode]
        if spectrum is None:
            raise WeightError(f"layer {reader.stack.layer} {reader.stack.projection}: weights change while being read")
        modes[mode] = spectrum
    return StackSpectra(modes, leave_out)


def singular_values(G_NN: Tensor, total_weights: int) -> NDArray[np.float64]:
    """Descending singular values of an N x (total_weights / N) matrix from its float64 Gram."""
    count = min(G_NN.shape[0], total_weights // G_NN.shape[0])
    values: NDArray[np.float64] = np.sqrt(np.maximum(eigenvalues(G_NN)[:count], 0.0))
    return values


def spectrum_of(gram: ModeGram, shape: tuple[int, int, int], precision: str) -> Spectrum | None:
    """Singular values of a mode of a stack of that shape, with their floor; None where the Gram is not finite."""
    if not torch.isfinite(gram.gram).all():
        return None
    sigma = singular_values(gram.gram, math.prod(shape))
    size = gram.gram.shape[0]
    terms = math.prod(shape) // size
    # What float64 itself loses: the eigensolver's backward error, and the sums' rounding.
    double = 2.0**-53 * (size * float(sigma[0]) ** 2 + math.sqrt(terms) * float(gram.gram.diagonal().max()))
    return Spectrum(sigma, math.sqrt((gram.product_error + double) / (2 * FLOOR_CHANGE)), precision)


def _keeps_promise(spectrum: Spectrum, product_error: float) -> bool:
    largest, smallest = float(spectrum.sigma[0]), float(spectrum.sigma[-1])
    if not math.isfinite(product_error):
        return False
    return product_error <= 2 * PROMISE * smallest * largest and (smallest > spectrum.noise_floor or largest == 0.0)


def _first_dtype(stack: WeightStack, device: Device) -> torch.dtype:
    if math.prod(stack.shape) <= BLOCK_WEIGHTS:
        return torch.float64
    on_tensor_cores = torch.device(device).type == "cuda" and stack.encoding.natural == torch.bfloat16
    return torch.bfloat16 if on_tensor_cores else torch.float32


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _leave_out(mode: str, gram: ModeGram, bounds: list[int], shape: tuple[int, int, int]) -> list[NDArray[np.float64]]:
    """Spectra with each group of experts left out: a submatrix for the expert mode, a difference for the others."""
    spectra = []
    for g, (lo, hi) in enumerate(zip(bounds, bounds[1:], strict=False)):
        kept = [e for e in range(shape[0]) if not lo <= e < hi]
        rest = gram.gram[kept][:, kept] if mode == "expert" else gram.gram - gram.parts[g]
        spectra.append(singular_values(rest, len(kept) * shape[1] * shape[2]))
    return spectra
