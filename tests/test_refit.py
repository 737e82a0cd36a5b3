"""Core and left factors solved again under each expert's own metric: as plain least squares, never above before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import open_planted
from tiny import single_thread
from torch import Tensor

import tdmoe.stacks.blocks
from tdmoe.forms.bases import BasisWeights
from tdmoe.forms.tucker import TuckerWeights
from tdmoe.mobe.left_factors import refit_left
from tdmoe.numerics.ranks import Ranks
from tdmoe.numerics.whitening import metric
from tdmoe.stacks.blocks import BlockReader
from tdmoe.tucker.core_refit import refit_core, solve
from tdmoe.tucker.decomposition import finish, hosvd
from tdmoe.tucker.modes import mode_bases

SHAPE = (5, 7, 9)
DOUBLE = torch.float64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture
def W_EOI() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0), dtype=DOUBLE).float().double()


@pytest.fixture
def reader(tmp_path: Path, W_EOI: Tensor, monkeypatch: pytest.MonkeyPatch) -> BlockReader:
    monkeypatch.setattr(tdmoe.stacks.blocks, "BLOCK_WEIGHTS", 2 * SHAPE[1] * SHAPE[2])
    return BlockReader(open_planted(tmp_path, W_EOI), 10**9)


def moments(tokens: int = 30) -> Tensor:
    """C_e of every expert, (E, I, I), each with a direction of its own."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SHAPE[0], tokens, SHAPE[2], generator=generator, dtype=DOUBLE)
    x = x * torch.rand(SHAPE[0], 1, SHAPE[2], generator=generator, dtype=DOUBLE) * 3
    return x.mT @ x / tokens


def start(reader: BlockReader, ranks: tuple[int, int, int], C_EII: Tensor, output_metric: bool) -> TuckerWeights:
    metrics = {"input": metric(C_EII.mean(0), damping=0.0)}
    if output_metric:
        metrics["output"] = metric(torch.diag(torch.arange(1.0, SHAPE[1] + 1)).double(), damping=0.0)
    bases = mode_bases(reader, metrics, dtype=DOUBLE)
    return finish(reader, metrics, hosvd(bases, Ranks(*ranks)), dtype=DOUBLE)


def error(W_EOI: Tensor, made: TuckerWeights, C_EII: Tensor) -> float:
    E_EOI = W_EOI - made.members(0, SHAPE[0])
    return float(torch.einsum("eoi,eij,eoj->", E_EOI, C_EII, E_EOI))


@pytest.mark.parametrize("output_metric", [False, True])
@pytest.mark.parametrize("ranks", [(5, 4, 3), (5, 7, 4), (3, 4, 3), (2, 7, 5), (3, 4, 9), (5, 4, 9)], ids=str)
def test_the_core_is_that_of_plain_least_squares(
    reader: BlockReader, W_EOI: Tensor, ranks: tuple[int, int, int], output_metric: bool
) -> None:
    """min_x ||A x - b||, a row of A for every weight of every expert, made by numpy from the factors alone."""
    C_EII = moments()
    before = start(reader, ranks, C_EII, output_metric)
    found = refit_core(reader, before, lambda e: C_EII[e], dtype=DOUBLE)
    U_E, U_O, U_I = (
        torch.eye(n, dtype=DOUBLE) if U is None else U
        for n, U in zip(SHAPE, (found.expert_ER, found.output_OP, found.input_IQ), strict=True)
    )
    roots = torch.linalg.cholesky(C_EII)
    A = torch.einsum("er,op,eij,iq->eojrpq", U_E, U_O, roots, U_I).reshape(np.prod(SHAPE), -1)
    b = (W_EOI @ roots).reshape(-1)
    core = np.linalg.lstsq(A.numpy(), b.numpy(), rcond=None)[0].reshape(before.core_RPQ.shape)
    np.testing.assert_allclose(found.core_RPQ.numpy(), core, rtol=0, atol=1e-5 * np.abs(core).max())
    assert error(W_EOI, found, C_EII) <= error(W_EOI, before, C_EII) * (1 + 1e-12)
    if ranks[2] < SHAPE[2]:
        assert error(W_EOI, found, C_EII) < 0.999 * error(W_EOI, before, C_EII), "the experts' inputs do differ"
    assert found.parameters == before.parameters


@pytest.mark.parametrize("ranks", [(5, 4, 6), (3, 4, 6)], ids=str)
def test_an_expert_of_a_few_tokens_does_no_harm(
    reader: BlockReader, W_EOI: Tensor, ranks: tuple[int, int, int]
) -> None:
    """C_e of rank 2 and of rank 0: the system is singular, the result finite and no worse."""
    C_EII = moments()
    C_EII[1], C_EII[3] = moments(tokens=2)[1], 0.0
    before = start(reader, ranks, C_EII, output_metric=False)
    found = refit_core(reader, before, lambda e: C_EII[e], dtype=DOUBLE)
    assert torch.isfinite(found.core_RPQ).all()
    assert error(W_EOI, found, C_EII) <= error(W_EOI, before, C_EII) * (1 + 1e-12)


def test_under_a_common_metric_the_core_is_right_already(reader: BlockReader) -> None:
    C_EII = moments().mean(0).expand(5, -1, -1)
    before = start(reader, (4, 5, 6), C_EII, output_metric=False)
    found = refit_core(reader, before, lambda e: C_EII[e], dtype=DOUBLE)
    torch.testing.assert_close(found.members(0, 5), before.members(0, 5), rtol=0, atol=1e-9)


def test_solve_gives_the_least_norm_solution_of_a_singular_system() -> None:
    B = torch.randn(6, 4, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    K, b = B @ B.T, torch.randn(6, 3, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    expected = torch.from_numpy(np.linalg.pinv(K.numpy(), rcond=1e-12)) @ b
    torch.testing.assert_close(solve(K - 1e-16 * torch.eye(6), b), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("groups", [1, 2])
def test_left_factors_of_bases_are_the_best_ones_for_each_expert(groups: int, W_EOI: Tensor) -> None:
    """Against numpy's least squares of W_e C_e^(1/2) on M_e C_e^(1/2), and never above before."""
    generator = torch.Generator().manual_seed(3)
    basis = torch.randn(2 * groups, 4, SHAPE[2], generator=generator)
    left, mixing = (
        torch.randn(SHAPE[0], SHAPE[1], 4, generator=generator),
        torch.randn(SHAPE[0], 2, generator=generator),
    )
    made = BasisWeights(left, basis, mixing, "tanh", groups)
    C_EII = moments()
    found = refit_left(W_EOI.float(), made, lambda e: C_EII[e])
    assert found.basis_NKI is basis and found.mixing_EM is mixing
    for e in range(SHAPE[0]):
        own = basis[2 * (e * groups // SHAPE[0]) :][:2]
        M_KI = torch.tanh((mixing[e, :, None, None] * own).sum(0)).double()
        L_II = torch.linalg.cholesky(C_EII[e])
        expected = np.linalg.lstsq((M_KI @ L_II).T.numpy(), (W_EOI[e] @ L_II).T.numpy(), rcond=None)[0].T
        np.testing.assert_allclose(found.left_EOK[e].numpy(), expected, rtol=1e-4, atol=1e-5)
    again = refit_left(W_EOI.float(), found, lambda e: C_EII[e])
    torch.testing.assert_close(again.left_EOK, found.left_EOK, rtol=1e-5, atol=1e-6)
    empty = refit_left(W_EOI.float(), made, lambda e: torch.zeros_like(C_EII[e]))
    assert torch.equal(empty.left_EOK, left)  # nothing is known of the inputs
