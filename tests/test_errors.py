"""Errors of a rebuilt stack against plain dense computations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from planted import open_planted
from tiny import single_thread
from torch import Tensor

import tdmoe.stacks.blocks
from tdmoe import methods
from tdmoe.compression.compress import affordable, compress_stack
from tdmoe.methods import Allotment, StackStatistics
from tdmoe.numerics.errors import stack_errors
from tdmoe.numerics.operator_norm import SMALL, norms_of_matrices
from tdmoe.stacks.blocks import BlockReader

SHAPE = (5, 6, 9)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moment(seed: int) -> Tensor:
    x_TI = draw(30, SHAPE[2], seed=seed).double()
    return x_TI.T @ x_TI / 30


@pytest.mark.parametrize("transposed", [False, True])
def test_all_errors_are_those_of_the_dense_formulas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transposed: bool
) -> None:
    monkeypatch.setattr(tdmoe.stacks.blocks, "BLOCK_WEIGHTS", 2 * SHAPE[1] * SHAPE[2])
    W = draw(*SHAPE, seed=1)
    W_hat = W + 0.1 * draw(*SHAPE, seed=2)
    if transposed:  # more outputs than inputs
        W, W_hat = W.transpose(1, 2).contiguous(), W_hat.transpose(1, 2).contiguous()
    pooled = moment(3)[: W.shape[2], : W.shape[2]]
    own = [moment(10 + e)[: W.shape[2], : W.shape[2]] for e in range(SHAPE[0])]
    reader = BlockReader(open_planted(tmp_path, W), 10**9)
    found = stack_errors(reader, lambda a, b: W_hat[a:b], pooled, own.__getitem__)
    E, W64 = (W_hat - W).double(), W.double()

    def norm(X: Tensor, C: Tensor) -> Tensor:
        return torch.trace(X @ C @ X.T)

    assert found.weight == pytest.approx(float(E.norm() / W64.norm()), rel=1e-6)
    lost, whole = (sum(norm(X[e], pooled) for e in range(SHAPE[0])) for X in (E, W64))
    assert found.functional == pytest.approx(float((lost / whole) ** 0.5), rel=1e-5)
    lost, whole = (sum(norm(X[e], own[e]) for e in range(SHAPE[0])) for X in (E, W64))
    assert found.functional_expert == pytest.approx(float((lost / whole) ** 0.5), rel=1e-5)
    ratios = torch.linalg.matrix_norm(E, 2) / torch.linalg.matrix_norm(W64, 2)
    assert found.operator == pytest.approx(float(ratios.mean()), rel=1e-6)
    assert found.operator_max == pytest.approx(float(ratios.max()), rel=1e-6)


@pytest.mark.parametrize("damping", [0.0, 1e-3, 30.0])
def test_the_functional_error_of_factors_is_that_of_what_is_stored(tmp_path: Path, damping: float) -> None:
    """The norm of the stack comes from its whitening, be it mostly damping or not; inputs are far from isotropic."""
    scale_I = 10.0 ** -torch.arange(SHAPE[2]).double()
    W, C = draw(*SHAPE, seed=11), scale_I[:, None] * moment(12) * scale_I
    reader = BlockReader(open_planted(tmp_path, W), 10**9)
    method, options = methods.parse(f"tdmoe:alignment=1,damping={damping}")
    made = compress_stack(reader, method, options, Allotment(0.3), StackStatistics(C), device="cpu")
    E, W64 = W.double() - made.factored.to(torch.float64).members(0, SHAPE[0]), W.double()
    lost, whole = (float(torch.einsum("eoi,ij,eoj->", X, C, X)) for X in (E, W64))
    assert made.errors.functional == pytest.approx((lost / whole) ** 0.5, rel=1e-5)


def test_nothing_lost_is_no_error_and_nothing_kept_is_all_of_it(tmp_path: Path) -> None:
    W = draw(*SHAPE, seed=4)
    reader = BlockReader(open_planted(tmp_path, W), 10**9)
    same = stack_errors(reader, lambda a, b: W[a:b], moment(5))
    assert (same.weight, same.functional, same.operator, same.operator_max) == (0.0, 0.0, 0.0, 0.0)
    gone = stack_errors(reader, lambda a, b: torch.zeros_like(W[a:b]))
    assert (gone.weight, gone.operator, gone.operator_max) == pytest.approx((1.0, 1.0, 1.0))
    assert gone.functional is None and gone.functional_expert is None, "not calibrated is not zero"


def test_an_input_that_the_moment_does_not_know_loses_nothing(tmp_path: Path) -> None:
    W, C = draw(*SHAPE, seed=8), torch.diag(torch.arange(SHAPE[2]).double())  # singular: no Cholesky factor
    E = torch.zeros(SHAPE)
    E[..., 0], E[..., 2] = 5.0, 0.5
    found = stack_errors(BlockReader(open_planted(tmp_path, W), 10**9), lambda a, b: W[a:b] + E[a:b], C)
    lost = 0.5**2 * 2 * SHAPE[0] * SHAPE[1]
    whole = float((W.double().square() * torch.arange(SHAPE[2])).sum())
    assert found.functional == pytest.approx((lost / whole) ** 0.5, rel=1e-5)


def test_norms_of_large_matrices_lie_in_their_intervals(tmp_path: Path) -> None:
    W, E = draw(2, SMALL + 3, 2 * SMALL, seed=9), 0.1 * draw(2, SMALL + 3, 2 * SMALL, seed=10)
    found = stack_errors(
        BlockReader(open_planted(tmp_path, W), 10**9), lambda a, b: W[a:b] + E[a:b], kinds=("operator",)
    )
    ratios = torch.linalg.matrix_norm(E.double(), 2) / torch.linalg.matrix_norm(W.double(), 2)
    assert found.functional is None and found.operator is not None and found.operator_upper is not None
    assert found.operator <= float(ratios.mean()) <= found.operator_upper <= found.operator * (1 + 5e-4)
    assert found.operator_max == pytest.approx(float(ratios.max()), rel=2.5e-4)


@pytest.mark.parametrize(
    ("method", "shape", "matrices", "norms"),
    [
        *(("rtn", (3, SMALL, 900), 1, True), ("rtn", (3, 700, SMALL + 1), 1, False)),
        *(("identity", (3, 900, 700), 1, False), ("tdmoe", (3, 700, 900), 1, False), ("mobe", (3, 700, 900), 1, True)),
        *(("tdmoe", (3, 2 * SMALL, 900), 2, True), ("tdmoe", (3, 2 * SMALL + 2, 900), 2, False)),  # gate and up as one
    ],
)
def test_spectral_norms_of_large_matrices_are_left_out_of_light_methods(
    method: str, shape: tuple[int, int, int], matrices: int, norms: bool
) -> None:
    kinds = affordable(SimpleNamespace(shape=shape, matrices=matrices), methods.parse(method)[0])  # type: ignore[arg-type]
    assert kinds == (("weight", "functional", "operator") if norms else ("weight", "functional"))


def test_spectral_norms_of_either_side() -> None:
    for X in (draw(3, 4, 11, seed=6), draw(3, 11, 4, seed=7)):
        expected = torch.linalg.matrix_norm(X.double(), 2)
        found = norms_of_matrices(X)
        torch.testing.assert_close(torch.from_numpy(found.lower_B), expected, rtol=1e-9, atol=0)
