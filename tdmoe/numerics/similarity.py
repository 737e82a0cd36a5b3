"""Likeness of the experts of a stack, pair by pair, and that of independent experts with the same spectra.

    cosine           <W_e, W_f> / (||W_e|| ||W_f||)
    aligned_cosine   the same after the hidden units of f are permuted to fit e best (linear assignment)
    input_overlap    ||V_e^T V_f||_F^2 / k, the mean cos^2 of the principal angles between the spans of their k leading
                     right singular vectors (row spaces); output_overlap likewise of the left ones (column spaces)
    input_angle      mean of those angles in degrees; input_angle_least the smallest (and so for the output)
    cka              ||Y_e^T Y_f||_F^2 / (||Y_e^T Y_e||_F ||Y_f^T Y_f||_F) of the outputs Y_e = X W_e^T of common inputs

With C = X^T X / n the last one (linear CKA, Kornblith et al. 2019, uncentred) needs no forward pass:

    Y_e^T Y_f = n W_e C W_f^T,    ||W_e C W_f^T||_F^2 = <H_e, H_f>,    H_e = S^T W_e^T W_e S,  S S^T = C

The order of an expert's hidden units is arbitrary: outputs of gate and up, inputs of down. Cosines depend on it, and so
does what is measured in the space that these units span; the space of the other mode does not, nor CKA of gate and up.

The null: every expert rotated on both sides by orthogonal matrices of its own, Q_e = D H D' with random signs D, D'
and H the Hartley transform. Each keeps its own singular values exactly, and nothing else is common to any two.

Legend: E experts, O outputs, I inputs, N either of these, K leading directions, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tdmoe.numerics import lapack
from tdmoe.numerics.eigen import leading_eigenvectors
from tdmoe.numerics.precision import full_precision
from tdmoe.stacks.blocks import BLOCK_WEIGHTS

PAIRS = 2016  # of experts that are compared at most: all of 64
ALIGNED = 64  # pairs whose hidden units are matched
NULL_EXPERTS, NULL_ALIGNED = 16, 8  # experts of one null draw (all their pairs), and pairs of it that are matched
RANK = 1e-6  # of the largest singular value, below which a direction is none

Vector = NDArray[np.float64]
Spaces = Mapping[str, Tensor]  # orthonormal (E, N, K) of "output" and "input"


@dataclass(frozen=True)
class Similarity:
    """One measure: of every pair, and of the pairs of each null draw."""

    values_P: Vector
    null_DP: Vector


def sampled_pairs(experts: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """(P, 2) pairs of these experts, each once and first < second: all, or `limit` of them drawn without repeats."""
    pairs_P2 = torch.combinations(experts.sort().values, 2)
    if len(pairs_P2) > limit:
        pairs_P2 = pairs_P2[torch.randperm(len(pairs_P2), generator=generator)[:limit].sort().values]
    return pairs_P2


def similarities(
    W_EOI: Tensor, S_II: Tensor | None, *, directions: int, units: str, draws: int, generator: torch.Generator
) -> dict[str, Similarity]:
    """All measures between experts that are not zero; `units` is the mode whose order is arbitrary.

    `S_II` with S S^T = C (None: C = I). Spaces are left out where an expert has fewer directions than `directions`.
    W is scaled in place (no measure has a scale). Memory: W once more, and blocks.
    """
    W_EOI /= W_EOI.abs().amax().clamp(min=torch.finfo(W_EOI.dtype).tiny)
    S_II = None if S_II is None else S_II / S_II.abs().amax()
    norms_E = torch.stack([W.double().square().sum() for W in W_EOI]).sqrt()
    alive = norms_E.nonzero()[:, 0].cpu()
    if len(alive) < 2:
        return {}
    spaces = leading_spaces(W_EOI, directions, alive)
    values = _measure(W_EOI, S_II, spaces, sampled_pairs(alive, PAIRS, generator), ALIGNED, units)
    null: list[dict[str, Vector]] = []
    for _ in range(draws):
        chosen = alive[torch.randperm(len(alive), generator=generator)[:NULL_EXPERTS].sort().values]
        turned_EOI = rotated(rotated(W_EOI[chosen.to(W_EOI.device)], 1, generator), 2, generator)
        turned = {m: rotated(X[chosen.to(X.device)], 1, generator) for m, X in spaces.items()}
        pairs = sampled_pairs(torch.arange(len(chosen)), PAIRS, generator)
        null.append(_measure(turned_EOI, S_II, turned, pairs, NULL_ALIGNED, units))
    return {m: Similarity(v, np.array([n[m] for n in null]).reshape(draws, -1)) for m, v in values.items()}


def _measure(
    W_EOI: Tensor, S_II: Tensor | None, spaces: Spaces, pairs_P2: Tensor, aligned: int, units: str
) -> dict[str, Vector]:
    e, f = pairs_P2.T
    few = pairs_P2[torch.linspace(0, len(pairs_P2) - 1, min(aligned, len(pairs_P2))).round().long()]
    found = {
        "cosine": _normalised(weight_products(W_EOI))[e, f].numpy(),
        "aligned_cosine": aligned_cosines(W_EOI, few, units),
    }
    for mode, X_ENK in spaces.items():
        cosines_PK = principal_cosines(X_ENK, pairs_P2)
        degrees_PK = np.degrees(np.arccos(cosines_PK))
        found[f"{mode}_overlap"] = np.square(cosines_PK).mean(axis=1)
        found[f"{mode}_angle"], found[f"{mode}_angle_least"] = degrees_PK.mean(axis=1), degrees_PK.min(axis=1)
    found["cka" if S_II is not None else "cka_isotropic"] = _normalised(cka_products(W_EOI, S_II))[e, f].numpy()
    return found


def _normalised(G_EE: Tensor) -> Tensor:
    """G_ef / sqrt(G_ee G_ff); zero where an expert is zero."""
    scale_E = G_EE.diagonal().clamp(min=torch.finfo(torch.float64).tiny).rsqrt()
    return (G_EE * scale_E[:, None] * scale_E).clamp(-1.0, 1.0).cpu()


def weight_products(W_EOI: Tensor) -> Tensor:
    """<W_e, W_f>, float32 products of short pieces summed in float64."""
    G_EE = torch.zeros(len(W_EOI), len(W_EOI), dtype=torch.float64, device=W_EOI.device)
    with full_precision():
        for Y_EK in W_EOI.flatten(1).split(4096, dim=1):
            G_EE += Y_EK @ Y_EK.T
    return G_EE


def cka_products(W_EOI: Tensor, S_II: Tensor | None) -> Tensor:
    """<H_e, H_f>: strips of rows of all H at once, each only from its diagonal on, since H is symmetric."""
    experts, _, inputs = W_EOI.shape
    G_EE = torch.zeros(experts, experts, dtype=torch.float64, device=W_EOI.device)
    step = max(1, min(inputs, BLOCK_WEIGHTS // (experts * inputs)))
    with full_precision():
        T_EOI = W_EOI if S_II is None else torch.stack([W_OI @ S_II.to(W_OI) for W_OI in W_EOI])
        for start in range(0, inputs, step):
            H_ERI = T_EOI[:, :, start : start + step].transpose(1, 2) @ T_EOI[:, :, start:]
            H_ERI[:, :, step:] *= math.sqrt(2.0)
            for Y_EK in H_ERI.flatten(1).split(4096, dim=1):
                G_EE += Y_EK @ Y_EK.T
    return G_EE


def leading_spaces(W_EOI: Tensor, directions: int, alive: Tensor) -> dict[str, Tensor]:
    """Orthonormal bases of the leading left (output) and right (input) singular directions of every expert, in float64.

    From the eigenvectors of the smaller Gram; empty where one of the experts `alive` has fewer directions.
    """
    experts, outputs, inputs = W_EOI.shape
    U_EOK = torch.zeros(experts, outputs, directions, dtype=torch.float64, device=W_EOI.device)
    V_EIK = torch.zeros(experts, inputs, directions, dtype=torch.float64, device=W_EOI.device)
    wide = outputs <= inputs
    for e in alive.tolist():
        W = W_EOI[e].double() if wide else W_EOI[e].double().T
        energy_K, near_NK = leading_eigenvectors(W @ W.T, directions)
        if float(energy_K[-1]) <= RANK**2 * float(energy_K[0]):
            return {}
        far_MK = lapack.qr(W.T @ near_NK)[0]
        U_EOK[e], V_EIK[e] = (near_NK, far_MK) if wide else (far_MK, near_NK)
    return {"output": U_EOK, "input": V_EIK}


def principal_cosines(X_ENK: Tensor, pairs_P2: Tensor) -> Vector:
    """(P, K): cosines of the principal angles between the spans of each pair (Bjorck & Golub 1973), descending."""
    step = max(1, BLOCK_WEIGHTS // (4 * X_ENK.shape[1] * X_ENK.shape[2]))
    found = []
    for e, f in (part.T.to(X_ENK.device) for part in pairs_P2.split(step)):
        found.append(lapack.svdvals(X_ENK[e].transpose(1, 2) @ X_ENK[f]).cpu())
    return np.asarray(torch.cat(found).clamp(0.0, 1.0))


def aligned_cosines(W_EOI: Tensor, pairs_P2: Tensor, units: str) -> Vector:
    """Cosine after the best permutation of the second expert's hidden units, which lie along the mode `units`."""
    found = []
    with full_precision():
        for e, f in pairs_P2.tolist():
            A, B = (W_EOI[n] if units == "output" else W_EOI[n].T for n in (e, f))
            products_NN = (A @ B.T).double().cpu().numpy()
            rows, columns = linear_sum_assignment(products_NN, maximize=True)
            norms = float(A.double().square().sum().sqrt() * B.double().square().sum().sqrt())
            found.append(float(products_NN[rows, columns].sum()) / norms)
    return np.asarray(found)


def rotated(X_ENM: Tensor, axis: int, generator: torch.Generator) -> Tensor:
    """Every expert's matrix turned along `axis` by an orthogonal matrix of its own, D H D' as above."""
    experts, size = X_ENM.shape[0], X_ENM.shape[axis]
    shape = (experts, size, 1) if axis == 1 else (experts, 1, size)

    def signs() -> Tensor:
        return (2 * torch.randint(2, shape, generator=generator) - 1).to(X_ENM)

    turned = torch.empty_like(X_ENM)
    first, last = signs(), signs()
    for e in range(experts):
        turned[e] = hartley(X_ENM[e] * first[e], axis - 1) * last[e]
    return turned


def hartley(X: Tensor, axis: int) -> Tensor:
    """The orthonormal Hartley transform along `axis`: Re F_k - Im F_k, with F_(n-k) the conjugate of F_k."""
    F = torch.fft.rfft(X, dim=axis, norm="ortho")
    mirrored = (F.real + F.imag).narrow(axis, 1, (X.shape[axis] + 1) // 2 - 1).flip(axis)
    return torch.cat([F.real - F.imag, mirrored], axis)
