"""Least cost of cutting a mode: the functional error of truncating that mode alone, at a step's ranks.

    mode_error_n = sqrt(t_n(r_n) / ||T||^2),   T_e = W_e S,   S S^T = C

t_n the energy of the unfolding T_(n) beyond its first r_n singular directions (Eckart-Young), C the undamped second
moment of the stack's inputs. A tensor of multilinear rank r has unfoldings of rank r_n at most, in the metric too: so
no Tucker decomposition at these ranks has a smaller functional error than the largest of the three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tdmoe.methods.tdmoe import products_in
from tdmoe.numerics.gram import MODES
from tdmoe.numerics.whitening import metric
from tdmoe.stacks import joint
from tdmoe.stacks.families import MEMBERS
from tdmoe.tucker.modes import mode_bases

Tails = Mapping[str, NDArray[np.float64]]  # by mode: (N + 1,) squared error over ||T||^2 of keeping r directions


def mode_tails(reader: joint.Reader, C_II: Tensor, device: str) -> dict[str, NDArray[np.float64]]:
    """Tails of a stack's modes; all zero where the stack is."""
    how = products_in(reader, device)
    bases = mode_bases(reader, {"input": metric(C_II.to(device), 0.0)}, **how)
    tails = {mode: basis.tail().cpu().numpy() for mode, basis in bases.items()}
    return {mode: tail / tail[0] if tail[0] > 0 else tail for mode, tail in tails.items()}


def mode_errors(stacks: Sequence[tuple[Tails, str, str]]) -> dict[str, float]:
    """Mean error by mode, over stacks (tails, projection, ranks as "ExPxQ"); gate and up as one stack count twice."""
    counts = np.array([len(MEMBERS[projection]) for _, projection, _ in stacks], dtype=np.float64)
    found = {}
    for place, mode in enumerate(MODES):
        errors = [float(tails[mode][int(ranks.split("x")[place])]) ** 0.5 for tails, _, ranks in stacks]
        found[mode] = float(counts @ np.array(errors) / counts.sum())
    return found
