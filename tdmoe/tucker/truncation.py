"""Residuals of truncations at many ranks in one pass: of one mode of a stack, and of every expert's matrix by itself.

Truncating mode n at rank k leaves E = T x_n (1 - U_k U_k^T), U the eigenvectors of the mode's Gram. Then

    ||E_(n)||_2 = sigma_(n, k+1)        exactly, and the Gram of another unfolding m is a sum over what is left out,
    E_(m) E_(m)^T = sum_(i > k) S_i S_i^T,   S = T x_n U^T,

so it grows from the last rank of a grid to the first and nothing is subtracted. The same holds for one expert where n
is its longer side; where n is the shorter one, E_e^T E_e is the trailing block of (W_e U)^T (W_e U), for all k at once.
An expert of a truncated expert mode is a row of 1 - U_k U_k^T times the stack. An SVD of every expert leaves
sigma_(k+1)(W_e), the smallest that any matrix of rank k can (Eckart & Young 1936).

Legend: E experts, O outputs, I inputs, N size of the mode that is cut, R the other side of an expert, B matrices of a
block, K singular values of an expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tdmoe.forms.residual import HELD_WEIGHTS, Residual, Vector, add_unfolding
from tdmoe.numerics.eigen import eigenvalues, eigenvectors
from tdmoe.numerics.gram import MODES, add_upper, symmetrise
from tdmoe.numerics.operator_norm import Norms, norms_of_grams
from tdmoe.numerics.precision import full_precision
from tdmoe.numerics.products import expert_blocks, mode_products
from tdmoe.stacks.source import Device, WeightSource
from tdmoe.tucker.modes import Basis


def mode_truncations(
    reader: WeightSource,
    mode: str,
    basis: Basis,
    ranks: Sequence[int],
    C_II: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    device: Device = "cpu",
    seed: int = 0,
) -> dict[int, Residual]:
    """Residuals by rank. Cost: the stack rotated twice into the basis, one Gram of each unfolding and each expert."""
    ranks = sorted(set(ranks))
    U_NN = basis.U_NN.to(device)
    weights_N = None
    if mode == "input" and C_II is not None:
        weights_N = basis.energy_N.cpu() * ((C_II.to(U_NN) @ U_NN) * U_NN).sum(0).cpu()
    unfoldings: dict[int, dict[str, Norms]] = {}
    weighted: dict[int, float | None] = dict.fromkeys(ranks)
    for rank, grams in _tail_grams(reader, mode, U_NN, ranks, dtype, device):
        unfoldings[rank] = {m: norms_of_grams(G_NN[None], seed) for m, G_NN in grams.items()}
        sigma = float(_next(basis.energy_N, rank)) ** 0.5
        unfoldings[rank][mode] = Norms.known(np.array([sigma]))
        if weights_N is not None:
            weighted[rank] = float(weights_N[rank:].sum())
        elif C_II is not None:
            weighted[rank] = float((grams["input"] * C_II.to(grams["input"])).sum())
    experts = _of_experts if mode == "expert" else _of_matrices
    found = experts(reader, mode, U_NN, ranks, dtype, device, seed)
    return {k: Residual(norms, squared_E, unfoldings[k], weighted[k]) for k, (norms, squared_E) in found.items()}


def expert_components(
    reader: WeightSource, C_II: Tensor | None = None, *, device: Device = "cpu"
) -> tuple[Vector, Vector | None]:
    """(sigma_EK descending, sigma^2 v^T C v of every component): what an SVD of each expert may leave out."""
    sigma, weighted = [], []
    for _, W_BOI in expert_blocks(reader, torch.float64, device):
        for W_OI in W_BOI:
            tall = W_OI.shape[0] > W_OI.shape[1]
            with full_precision():
                G_KK = W_OI.T @ W_OI if tall else W_OI @ W_OI.T
                if C_II is None:
                    values = eigenvalues(G_KK.cpu())
                else:
                    found_K, V_KK = eigenvectors(G_KK)
                    S_KI = found_K.clamp(min=0.0).sqrt()[:, None] * V_KK.T if tall else V_KK.T @ W_OI
                    weighted.append(((S_KI @ C_II.to(S_KI)) * S_KI).sum(1).cpu().numpy())
                    values = found_K.cpu().numpy()
            sigma.append(np.sqrt(np.maximum(values, 0.0)))
    return np.stack(sigma), np.stack(weighted) if weighted else None


def expert_truncation(sigma_EK: Vector, weighted_EK: Vector | None, rank: int) -> Residual:
    """Residual of an SVD of every expert at that rank, by `expert_components`; its unfoldings are not known."""
    left_EK = sigma_EK[:, rank:]
    largest_E = left_EK[:, 0] if left_EK.shape[1] else np.zeros(len(sigma_EK))
    weighted = None if weighted_EK is None else float(weighted_EK[:, rank:].sum())
    return Residual(Norms.known(largest_E), (left_EK**2).sum(1), {}, weighted)


def _tail_grams(
    reader: WeightSource, mode: str, U_NN: Tensor, ranks: Sequence[int], dtype: torch.dtype, device: Device
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(k, Grams of the residual's other unfoldings), the largest k first."""
    shape = dict(zip(MODES, reader.stack.shape, strict=True))
    others = [m for m in MODES if m != mode]
    sums = {m: torch.zeros(shape[m], shape[m], dtype=torch.float64, device=device) for m in others}
    step = max(1, HELD_WEIGHTS // (shape[others[0]] * shape[others[1]]))
    last = shape[mode]
    for rank in reversed(ranks):
        for first in range(rank, last, step):
            some = U_NN[:, first : min(first + step, last)]
            S_RPQ = mode_products(reader, *(some if m == mode else None for m in MODES), dtype=dtype, device=device)
            for m in others:
                add_unfolding(sums[m], S_RPQ, MODES.index(m))
        last = rank
        whole = {m: G_NN.clone() for m, G_NN in sums.items()}
        for G_NN in whole.values():
            symmetrise(G_NN)
        yield rank, whole


def _of_matrices(
    reader: WeightSource, mode: str, U_NN: Tensor, ranks: Sequence[int], dtype: torch.dtype, device: Device, seed: int
) -> dict[int, tuple[Norms, Vector]]:
    """Norms by rank: ||E_e||_2 and ||E_e||_F^2 of every expert, where the input or the output mode is cut."""
    norms: dict[int, list[Norms]] = {k: [] for k in ranks}
    squares: dict[int, list[Tensor]] = {k: [] for k in ranks}
    least = ranks[0]
    beyond = U_NN[:, least:].to(dtype)
    for _, W_BOI in expert_blocks(reader, dtype, device):
        for W_OI in W_BOI:
            with full_precision():
                Y_RC = (W_OI if mode == "input" else W_OI.T) @ beyond
            grams = _trailing(Y_RC, [k - least for k in ranks])
            energies = Y_RC.double().square().sum(0)
            for k, G_XX in zip(ranks, grams, strict=True):
                norms[k].append(norms_of_grams(G_XX[None], seed))
                squares[k].append(energies[k - least :].sum())
    return {k: (Norms.joined(norms[k]), torch.stack(squares[k]).cpu().numpy()) for k in ranks}


def _trailing(Y_RC: Tensor, firsts: Sequence[int]) -> list[Tensor]:
    """The smaller Gram of Y[:, c:] for every c of `firsts`, ascending."""
    if Y_RC.shape[0] > Y_RC.shape[1]:
        G_CC = _gram(Y_RC.T)
        return [G_CC[c:, c:] for c in firsts]
    total, last, found = torch.zeros(len(Y_RC), len(Y_RC), dtype=torch.float64, device=Y_RC.device), None, []
    for c in reversed(firsts):
        total = total + _gram(Y_RC[:, c:last])
        last = c
        found.append(total)
    return found[::-1]


def _gram(Y_NK: Tensor) -> Tensor:
    """Y Y^T in float64."""
    G_NN = torch.zeros(len(Y_NK), len(Y_NK), dtype=torch.float64, device=Y_NK.device)
    with full_precision():
        add_upper(G_NN, Y_NK)
    symmetrise(G_NN)
    return G_NN


def _of_experts(
    reader: WeightSource, mode: str, U_NN: Tensor, ranks: Sequence[int], dtype: torch.dtype, device: Device, seed: int
) -> dict[int, tuple[Norms, Vector]]:
    """Norms by rank, the same, where the expert mode is cut; some experts at all ranks in each pass over the stack."""
    experts, rows, columns = reader.stack.shape
    norms: dict[int, list[Norms]] = {k: [] for k in ranks}
    squares: dict[int, list[Tensor]] = {k: [] for k in ranks}
    step = max(1, HELD_WEIGHTS // (len(ranks) * rows * columns))
    for start in range(0, experts, step):
        some = U_NN[start : start + step]
        left_EX = torch.cat([U_NN[:, k:] @ some[:, k:].T for k in ranks], 1)  # of 1 - U_k U_k^T, k after k
        E_XOI = mode_products(reader, left_EX, None, None, dtype=dtype, device=device)
        for k, E_BOI in zip(ranks, E_XOI.split(len(some)), strict=True):
            squares[k].append(E_BOI.double().square().sum((1, 2)))
            for E_OI in E_BOI:
                G_NN = _gram(E_OI if rows <= columns else E_OI.T)
                norms[k].append(norms_of_grams(G_NN[None], seed))
    return {k: (Norms.joined(norms[k]), torch.cat(squares[k]).cpu().numpy()) for k in ranks}


def _next(energy_N: Tensor, rank: int) -> Tensor:
    """sigma_(k+1)^2, 0 at full rank."""
    return energy_N[rank] if rank < len(energy_N) else energy_N.new_zeros(())
