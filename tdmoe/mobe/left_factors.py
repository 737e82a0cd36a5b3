"""The left factors solved again under each expert's own metric; bases and mixing as they are.

    minimise ||(W_e - A_e M_e) C_e^(1/2)||_F^2 over A_e,   M_e = phi(sum_j a_ej B_j)
    A_e = W_e C_e M_e^T (M_e C_e M_e^T)^-1

as the refit of the core (tdmoe/tucker/core_refit.py) does for a Tucker decomposition whose expert mode is full. It can
only lower the error; a step of rounding that would not is not taken.

Legend: E experts, O outputs, I inputs, K rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from tdmoe.forms.bases import BasisWeights, group_of, mixed
from tdmoe.numerics.precision import full_precision
from tdmoe.tucker.core_refit import solve


def refit_left(W_EOI: Tensor, made: BasisWeights, own: Callable[[int], Tensor]) -> BasisWeights:
    """`made` with the best left factors for C_e = own(e), positive semidefinite; solved in float64."""
    left_EOK = made.left_EOK.clone()
    experts, bases = len(left_EOK), made.basis_NKI.shape[0] // made.groups
    with full_precision():
        for e, group in enumerate(group_of(list(range(experts)), experts, made.groups)):
            basis_MKI = made.basis_NKI[group * bases : (group + 1) * bases]
            M_KI = mixed(made.mixing_EM[e : e + 1], basis_MKI, made.activation)[0].double()
            V_IK = own(e).to(M_KI) @ M_KI.T
            H_OK, K_KK = W_EOI[e].double() @ V_IK, M_KI @ V_IK
            K_KK = (K_KK + K_KK.T) / 2
            found_OK, before_OK = solve(K_KK, H_OK.T).T, left_EOK[e].double()
            if _value(found_OK, H_OK, K_KK) < _value(before_OK, H_OK, K_KK):
                left_EOK[e] = found_OK.to(left_EOK)
    return replace(made, left_EOK=left_EOK)


def _value(A_OK: Tensor, H_OK: Tensor, K_KK: Tensor) -> float:
    """The squared error up to a constant."""
    return float(((A_OK @ K_KK - 2 * H_OK) * A_OK).sum())
