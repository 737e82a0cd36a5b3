"""Threads by the size of the work, and no more of what waits than the user asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info

from tdmoe.numerics import eigen, lapack
from tdmoe.numerics.threads import SERIAL, WAITING, lapack_threads, sleep_while_waiting


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads() -> set[int]:
    """Of torch, and of the BLAS libraries of numpy and SciPy."""
    return {torch.get_num_threads(), *(lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas")}


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        *((7, 5, 1), (SERIAL - 1, SERIAL - 1, 1), (SERIAL - 1, 2 * SERIAL, 2), (SERIAL, SERIAL, 2), (2 * SERIAL, 8, 1)),
        (60, SERIAL**2, 2),
    ],
)
def test_a_factorisation_gets_the_threads_that_its_size_is_worth(
    two_threads: None, rows: int, columns: int, expected: int
) -> None:
    with pytest.raises(RuntimeError), lapack_threads(rows, columns):
        assert threads() == {expected}
        raise RuntimeError
    assert torch.get_num_threads() == 2, "given back, after an error too"


def test_factorisations_are_those_of_torch_on_one_thread(two_threads: None) -> None:
    X = torch.randn(3, 40, 27, generator=torch.Generator().manual_seed(0)).double()
    G = X.mT @ X
    wrapped = lapack.svdvals(X), lapack.qr(X)[1], lapack.cholesky(G), lapack.eigvalsh(G), lapack.cholesky_ex(G).L
    torch.set_num_threads(1)
    L = torch.linalg.cholesky(G)
    plain = torch.linalg.svdvals(X), torch.linalg.qr(X)[1], L, torch.linalg.eigvalsh(G), L
    assert all(torch.equal(a, b) for a, b in zip(wrapped, plain, strict=True))


def test_positive_definite_is_what_eigenvalues_say() -> None:
    Q = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(1)).double())[0]
    for least, expected in ((0.01, True), (-0.01, False)):
        values = torch.linspace(least, 3.0, 9, dtype=torch.float64)
        assert eigen.is_positive_definite(Q.T * values @ Q) is expected


def test_what_the_user_set_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    sleep_while_waiting()
    assert {name: os.environ[name] for name in WAITING} == {**WAITING, "OMP_WAIT_POLICY": "active"}
