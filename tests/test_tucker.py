"""Tucker of expert stacks: against tensorly, against brute force, and by the laws that hold for it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorly
import torch
from planted import MODES, open_planted
from tensorly.decomposition import tucker as tensorly_tucker
from tiny import single_thread
from torch import Tensor
from zoo import FAMILIES, build, save

import tdmoe.stacks.blocks
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.forms.tucker import TuckerWeights
from tdmoe.numerics.products import expert_blocks, mode_products
from tdmoe.numerics.ranks import Ranks
from tdmoe.numerics.whitening import Metric, inverse_metric, metric
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockReader
from tdmoe.stacks.locate import open_stack
from tdmoe.tucker.decomposition import cutting_order, finish, hooi, hosvd, st_hosvd
from tdmoe.tucker.modes import Metrics, mode_bases
from tdmoe.tucker.rank_choice import best_ranks, candidates, measured_error
from tdmoe.tucker.rank_search import error_table, interesting, rank_grid

SHAPE = (6, 10, 14)
DOUBLE = torch.float64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two experts a block, a few rows a strip."""
    monkeypatch.setattr(tdmoe.stacks.blocks, "BLOCK_WEIGHTS", 2 * SHAPE[1] * SHAPE[2])
    monkeypatch.setattr("tdmoe.tucker.modes.BLOCK_WEIGHTS", 70)


def decaying(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Noise under falling column, row and expert scales, so that ranks have something to choose from."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(shape, generator=generator, dtype=DOUBLE)
    for axis, decay in enumerate((0.2, 0.4, 0.8)):
        Q = torch.linalg.qr(torch.randn(shape[axis], shape[axis], generator=generator, dtype=DOUBLE))[0]
        scaled = Q * torch.arange(1, shape[axis] + 1, dtype=DOUBLE) ** -decay
        W = torch.movedim(torch.tensordot(scaled, W, dims=([1], [axis])), 0, axis)
    return W.float().double()


def second_moment(size: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x_TN = torch.randn(4 * size, size, generator=generator, dtype=DOUBLE) * torch.arange(1, size + 1) ** -0.7
    mixed_TN = x_TN @ torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=DOUBLE))[0]
    return mixed_TN.T @ mixed_TN / len(mixed_TN)


def metrics_of(which: str) -> dict[str, Metric]:
    sizes = {"input": SHAPE[2], "output": SHAPE[1]}
    return {m: metric(second_moment(n, n)) for m, n in sizes.items() if which in (m, "both")}


WHICH = ["none", "input", "output", "both"]


@pytest.fixture(scope="module")
def W_EOI() -> Tensor:
    return decaying(SHAPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack")


@pytest.fixture
def reader(folder: Path, W_EOI: Tensor) -> BlockReader:
    return BlockReader(open_planted(folder, W_EOI), 10**9)


def whitened(W_EOI: Tensor, metrics: Metrics) -> Tensor:
    """T_e = L^T W_e S, plainly."""
    L, S = roots(metrics)
    return L.T @ W_EOI @ S


def roots(metrics: Metrics) -> tuple[Tensor, Tensor]:
    """L and S, the identity where there is none."""
    L, S = (metrics[m].S_NN if m in metrics else torch.eye(SHAPE[MODES.index(m)], dtype=DOUBLE) for m in MODES[1:])
    return L, S


# Products


@pytest.mark.parametrize("columns", list(itertools.product((None, 1, 9), (None, 3, 12), (None, 2, 20))), ids=str)
def test_mode_products_are_those_of_the_dense_tensor(
    reader: BlockReader, W_EOI: Tensor, columns: tuple[int | None, ...]
) -> None:
    generator = torch.Generator().manual_seed(3)
    A = [
        None if k is None else torch.randn(n, k, generator=generator, dtype=DOUBLE)
        for n, k in zip(SHAPE, columns, strict=True)
    ]
    full = [torch.eye(n, dtype=DOUBLE) if a is None else a for n, a in zip(SHAPE, A, strict=True)]
    expected = torch.einsum("eoi,er,op,iq->rpq", W_EOI, *full)
    torch.testing.assert_close(mode_products(reader, *A, dtype=DOUBLE), expected, rtol=1e-12, atol=1e-12)


def test_an_input_major_stack_is_turned(tmp_path: Path) -> None:
    family = FAMILIES["gpt_oss"]
    model = build(family)
    with Checkpoint(save(model, tmp_path, fused=True)) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 1, "up")
        assert stack.row_mode == "input"
        W_EOI = stack.weights(0, stack.shape[0]).double()
        blocks = torch.cat([W.clone() for _, W in expert_blocks(BlockReader(stack, 10**9), DOUBLE)])
        assert torch.equal(blocks, W_EOI)
        L, S = metric(second_moment(family.width, 1)), metric(second_moment(24, 2))
        found = mode_bases(BlockReader(stack, 10**9), {"input": S, "output": L}, dtype=DOUBLE)
        expected = svd_bases(L.S_NN.T @ W_EOI @ S.S_NN)
        for mode in MODES:
            torch.testing.assert_close(found[mode].energy_N[: len(expected[mode])], expected[mode], rtol=1e-9, atol=0)


# Bases


def svd_bases(T_EOI: Tensor) -> dict[str, Tensor]:
    """Squared singular values of the unfoldings by tensorly and LAPACK."""
    unfolded = {m: np.ascontiguousarray(tensorly.unfold(T_EOI.numpy(), axis)) for axis, m in enumerate(MODES)}
    return {m: torch.linalg.svdvals(torch.from_numpy(matrix)) ** 2 for m, matrix in unfolded.items()}


@pytest.mark.parametrize("which", WHICH)
def test_bases_are_those_of_the_whitened_unfoldings(reader: BlockReader, W_EOI: Tensor, which: str) -> None:
    metrics = metrics_of(which)
    T_EOI = whitened(W_EOI, metrics)
    found, expected = mode_bases(reader, metrics, dtype=DOUBLE), svd_bases(T_EOI)
    for axis, mode in enumerate(MODES):
        U_NN, energy_N = found[mode].U_NN, found[mode].energy_N
        torch.testing.assert_close(energy_N, expected[mode], rtol=1e-9, atol=1e-12 * float(energy_N[0]))
        torch.testing.assert_close(U_NN.T @ U_NN, torch.eye(len(U_NN), dtype=DOUBLE), rtol=0, atol=1e-12)
        rotated = torch.tensordot(U_NN.T, T_EOI, dims=([1], [axis])).square().sum((1, 2))
        torch.testing.assert_close(rotated, energy_N, rtol=1e-9, atol=1e-12 * float(energy_N[0]))


# Errors of ranks


def rebuilt(T_EOI: Tensor, factors: dict[str, Tensor]) -> Tensor:
    """T projected on the factors, plainly."""
    for axis, mode in enumerate(MODES):
        if mode in factors:
            P = factors[mode] @ factors[mode].T
            T_EOI = torch.movedim(torch.tensordot(P, T_EOI, dims=([1], [axis])), 0, axis)
    return T_EOI


@pytest.mark.parametrize("which", WHICH)
def test_the_error_table_is_that_of_every_triple_tried(reader: BlockReader, W_EOI: Tensor, which: str) -> None:
    metrics = metrics_of(which)
    T_EOI, bases = whitened(W_EOI, metrics), mode_bases(reader, metrics, dtype=DOUBLE)
    grid = rank_grid(SHAPE, alignment=4)
    assert [list(points) for points in grid] == [[1, 2, 3, 4, 5, 6], [4, 8, 10], [4, 8, 12, 14]]
    table = error_table(reader, metrics, bases, grid, dtype=DOUBLE)
    for (a, r), (b, p), (c, q) in itertools.product(*map(enumerate, grid)):
        T_hat = rebuilt(T_EOI, hosvd(bases, Ranks(r, p, q)))
        brute = float((T_EOI - T_hat).square().sum() / T_EOI.square().sum())
        identity = 1 - float(T_hat.square().sum() / T_EOI.square().sum())  # ||T - T^||^2 = ||T||^2 - ||core||^2
        assert table.squared_abc[a, b, c] == pytest.approx(brute, abs=1e-10)
        assert identity == pytest.approx(brute, abs=1e-10)
        assert table.parameters()[a, b, c] == Ranks(int(r), int(p), int(q)).parameters(SHAPE)


@pytest.mark.parametrize("preserve", [True, False])
@pytest.mark.parametrize("ratio", [0.2, 0.4, 0.6, 0.9])
def test_pruning_never_loses_the_best_triple(reader: BlockReader, W_EOI: Tensor, ratio: float, preserve: bool) -> None:
    bases = mode_bases(reader, {}, dtype=DOUBLE)
    budget = (1 - ratio) * W_EOI.numel()
    grid = rank_grid(SHAPE, preserve_experts=preserve, alignment=2)
    pruned = interesting(bases, SHAPE, grid, budget)
    if ratio < 0.5:
        assert np.prod([len(points) for points in pruned]) < np.prod([len(points) for points in grid])
    ranks, error = error_table(reader, {}, bases, pruned, dtype=DOUBLE).best(budget)
    all_ranks, least = error_table(reader, {}, bases, grid, dtype=DOUBLE).best(budget)
    assert ranks == all_ranks and error == pytest.approx(least, abs=1e-12)
    assert ranks.parameters(SHAPE) <= budget and (ranks.expert == SHAPE[0] or not preserve)


def test_the_frontier_has_no_triple_that_another_beats(reader: BlockReader) -> None:
    bases = mode_bases(reader, {}, dtype=DOUBLE)
    table = error_table(reader, {}, bases, rank_grid(SHAPE, alignment=2), dtype=DOUBLE)
    found = table.frontier()
    parameters, errors = found.parameters_n.tolist(), found.squared_n.tolist()
    assert parameters == sorted(set(parameters)) and errors == sorted(set(errors), reverse=True)
    for p, ranks, error in zip(parameters, found.ranks_n3.tolist(), errors, strict=True):
        assert (p, error) == (Ranks(*ranks).parameters(SHAPE), table.best(p)[1])
    for at in np.ndindex(table.squared_abc.shape):
        assert table.best(table.parameters()[at])[1] <= table.squared_abc[at]
    assert errors[-1] == 0.0 and found.ranks_n3[-1].tolist() == list(SHAPE)
    cut = table.frontier(cut_experts=True)
    assert (cut.ranks_n3[:, 0] < SHAPE[0]).all() and cut.squared_n[-1] > 0
    thin = found.thinned(100)
    assert thin.parameters_n[[0, -1]].tolist() == [parameters[0], parameters[-1]]
    assert len(set(thin.parameters_n[1:] // 100)) == len(thin.parameters_n) - 1 < len(parameters)


@pytest.mark.parametrize("objective", ["weight", "functional", "operator"])
def test_ranks_by_measured_error_are_the_best_of_their_candidates(
    reader: BlockReader, W_EOI: Tensor, objective: str
) -> None:
    """Every candidate made again here and measured plainly; the first one is that of the table."""
    C_II = second_moment(SHAPE[2], 3)
    metrics = {"input": metric(C_II)}
    bases, budget = mode_bases(reader, metrics, dtype=DOUBLE), 0.6 * W_EOI.numel()
    grid = rank_grid(SHAPE, alignment=2)
    how = {"dtype": DOUBLE, "device": "cpu"}
    measure = measured_error(reader, metrics, bases, objective, C_II, **how)
    chosen = best_ranks(reader, metrics, bases, grid, budget, measure=measure, **how)
    table = error_table(reader, metrics, bases, grid, dtype=DOUBLE)
    among = candidates(table, budget)
    assert among[0] == table.best(budget)[0] == best_ranks(reader, metrics, bases, grid, budget, **how)
    assert 3 <= len(among) <= 8 and all(ranks.parameters(SHAPE) <= budget for ranks in among)
    for a, b in itertools.combinations(among, 2):
        assert any(abs(x - y) >= 0.1 * n for x, y, n in zip(a, b, SHAPE, strict=True))

    def plainly(ranks: Ranks) -> float:
        W_hat = all_experts(finish(reader, metrics, hosvd(bases, ranks), dtype=DOUBLE))
        norms = torch.linalg.matrix_norm(W_EOI - W_hat, 2) / torch.linalg.matrix_norm(W_EOI, 2)
        return {
            "weight": float((W_EOI - W_hat).norm() / W_EOI.norm()),
            "functional": functional_error(W_EOI, W_hat, C_II),
            "operator": float(norms.mean()),
        }[objective]

    errors = {ranks: plainly(ranks) for ranks in among}
    assert errors[chosen] == pytest.approx(min(errors.values()), rel=1e-4)
    assert measure(chosen) == pytest.approx(errors[chosen], rel=1e-4)


def test_a_budget_below_every_triple_is_refused(reader: BlockReader) -> None:
    bases = mode_bases(reader, {}, dtype=DOUBLE)
    table = error_table(reader, {}, bases, rank_grid(SHAPE), dtype=DOUBLE)
    with pytest.raises(InputError, match="budget 20 parameters: a 6 x 10 x 14 stack takes at least .* lower"):
        table.best(20)


# Decompositions


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("ranks", [(3, 5, 6), (6, 5, 6), (6, 10, 6), (4, 10, 14)], ids=str)
def test_hooi_is_tensorlys_from_the_same_start(
    reader: BlockReader, W_EOI: Tensor, ranks: tuple[int, int, int], which: str
) -> None:
    """The same mode order and number of sweeps; a full mode is left alone by both."""
    metrics = metrics_of(which)
    T_EOI, bases = whitened(W_EOI, metrics), mode_bases(reader, metrics, dtype=DOUBLE)
    start = hosvd(bases, Ranks(*ranks))
    norm = float(T_EOI.square().sum())
    sweeps = 3
    factors, report = hooi(reader, metrics, start, norm, sweeps=sweeps, tolerance=-1.0, dtype=DOUBLE)
    full = [start[m].numpy() if m in start else np.eye(n) for m, n in zip(MODES, SHAPE, strict=True)]
    core = tensorly.tenalg.multi_mode_dot(T_EOI.numpy(), full, transpose=True)
    theirs = tensorly_tucker(T_EOI.numpy(), ranks, n_iter_max=sweeps, init=(core, full), tol=0)
    expected = torch.from_numpy(tensorly.tucker_to_tensor(theirs))
    error = float((T_EOI - expected).square().sum()) / norm
    assert report.squared_errors[-1] == pytest.approx(error, rel=1e-9)
    torch.testing.assert_close(rebuilt(T_EOI, factors), expected, rtol=0, atol=1e-9 * norm**0.5)
    assert all(a >= b - 1e-14 for a, b in itertools.pairwise(report.squared_errors)), "the error never rises"


def test_hooi_stops_by_itself_below_its_start(reader: BlockReader, W_EOI: Tensor) -> None:
    bases = mode_bases(reader, {}, dtype=DOUBLE)
    norm = float(W_EOI.square().sum())
    _, report = hooi(reader, {}, hosvd(bases, Ranks(3, 5, 6)), norm, sweeps=100, dtype=DOUBLE)
    assert report.converged and report.squared_errors[-1] < report.squared_errors[0]
    _, cut_short = hooi(reader, {}, hosvd(bases, Ranks(3, 5, 6)), norm, sweeps=1, tolerance=0.0, dtype=DOUBLE)
    assert not cut_short.converged and len(cut_short.squared_errors) == 2


def test_st_hosvd_cuts_in_order_and_within_its_bound(reader: BlockReader, W_EOI: Tensor) -> None:
    """Its squared error is at most the sum of the tails of T, and exactly the sum of what each cut takes away."""
    ranks = Ranks(4, 3, 6)
    assert cutting_order(SHAPE, ranks) == ["output", "input", "expert"]
    factors = st_hosvd(reader, {}, ranks, dtype=DOUBLE)
    T_EOI, bases = W_EOI, mode_bases(reader, {}, dtype=DOUBLE)
    taken = 0.0
    for mode in cutting_order(SHAPE, ranks):
        smaller = rebuilt(T_EOI, {mode: factors[mode]})
        taken += float((T_EOI - smaller).square().sum())
        best = svd_bases(T_EOI)[mode][ranks[MODES.index(mode)] :].sum()
        assert float((T_EOI - smaller).square().sum()) == pytest.approx(float(best), rel=1e-9)
        T_EOI = smaller
    assert float((W_EOI - T_EOI).square().sum()) == pytest.approx(taken, rel=1e-9)
    assert taken <= sum(float(bases[m].tail()[r]) for m, r in zip(MODES, ranks, strict=True))


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("ranks", [(3, 5, 6), (6, 5, 6), (6, 10, 6), (6, 4, 14), (4, 10, 14), SHAPE], ids=str)
def test_stored_factors_rebuild_the_weights(
    reader: BlockReader, W_EOI: Tensor, ranks: tuple[int, int, int], which: str
) -> None:
    """Undoing the metric of T^ in full, the plain way."""
    metrics = metrics_of(which)
    factors = hosvd(mode_bases(reader, metrics, dtype=DOUBLE), Ranks(*ranks))
    stored = finish(reader, metrics, factors, dtype=DOUBLE)
    T_hat = rebuilt(whitened(W_EOI, metrics), factors)
    L, S = roots(metrics)
    expected = torch.linalg.solve(L.T, torch.linalg.solve(S.T, T_hat.transpose(1, 2)).transpose(1, 2))
    torch.testing.assert_close(all_experts(stored), expected, rtol=0, atol=1e-10)
    assert stored.parameters == Ranks(*ranks).parameters(SHAPE)


def all_experts(stored: TuckerWeights) -> Tensor:
    """Every expert, in uneven pieces."""
    return torch.cat([stored.members(0, 4), stored.members(4, SHAPE[0])])


# The metric


def functional_error(W_EOI: Tensor, W_hat: Tensor, C_II: Tensor) -> float:
    E_EOI = W_EOI - W_hat
    return float(
        (torch.einsum("eoi,ij,eoj->", E_EOI, C_II, E_EOI) / torch.einsum("eoi,ij,eoj->", W_EOI, C_II, W_EOI)) ** 0.5
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rank", range(1, SHAPE[2]))
def test_correct_whitening_is_never_worse_where_the_input_mode_is_cut(seed: int, rank: int, tmp_path: Path) -> None:
    """Eckart-Young in the norm of C: below no whitening, below every other S, at every rank; not so the inverse."""
    W_EOI, C_II = decaying(SHAPE, seed), second_moment(SHAPE[2], seed + 10)
    reader = BlockReader(open_planted(tmp_path, W_EOI), 10**9)
    errors = {}
    for name, found in {
        "none": {},
        "correct": {"input": metric(C_II, damping=0.0)},
        "inverse": {"input": inverse_metric(C_II, floor=1e-12)},
    }.items():
        bases = mode_bases(reader, found, dtype=DOUBLE)
        stored = finish(reader, found, hosvd(bases, Ranks(SHAPE[0], SHAPE[1], rank)), dtype=DOUBLE)
        errors[name] = functional_error(W_EOI, all_experts(stored), C_II)
    assert errors["correct"] <= errors["none"] * (1 + 1e-9)
    assert errors["correct"] <= errors["inverse"] * (1 + 1e-9)
    assert errors["inverse"] > errors["none"], "the law tells the two directions apart"


@pytest.mark.parametrize("rank", [2, 5, 9])
def test_the_output_metric_is_best_where_the_output_mode_is_cut(rank: int, reader: BlockReader, W_EOI: Tensor) -> None:
    """||L^T (W - W^)|| below that of no metric and of its inverse; the inverse is worse than none."""
    D_OO = second_moment(SHAPE[1], 7)
    errors = {}
    for name, found in {
        "none": {},
        "correct": {"output": metric(D_OO, damping=0.0)},
        "inverse": {"output": inverse_metric(D_OO, floor=1e-12)},
    }.items():
        ranks = Ranks(SHAPE[0], rank, SHAPE[2])
        stored = finish(reader, found, hosvd(mode_bases(reader, found, dtype=DOUBLE), ranks), dtype=DOUBLE)
        E_EOI = W_EOI - all_experts(stored)
        errors[name] = float(torch.einsum("eoi,op,epi->", E_EOI, D_OO, E_EOI))
    assert errors["correct"] <= errors["none"] * (1 + 1e-9) < errors["inverse"]


def test_the_metric_of_a_singular_second_moment() -> None:
    """Fewer tokens than features: without damping the unseen directions get next to no weight, none overflows."""
    generator = torch.Generator().manual_seed(1)
    x_TN = torch.randn(5, 12, generator=generator, dtype=DOUBLE)
    C_NN = x_TN.T @ x_TN
    found = metric(C_NN, damping=0.0)
    torch.testing.assert_close(found.S_NN @ found.S_NN.T, C_NN, rtol=0, atol=1e-12 * float(C_NN.trace()))
    U_NR = torch.randn(12, 3, generator=generator, dtype=DOUBLE)
    torch.testing.assert_close(found.S_NN.T @ found.undo(U_NR), U_NR, rtol=0, atol=1e-7)
    damped = metric(C_NN, damping=0.01)
    added = 0.01 * float(C_NN.diagonal().mean())
    assert damped.damping == pytest.approx(added)
    torch.testing.assert_close(damped.S_NN @ damped.S_NN.T, C_NN + added * torch.eye(12, dtype=DOUBLE))
    torch.testing.assert_close(damped.S_NN.T @ damped.undo(U_NR), U_NR)


def test_damping_is_relative() -> None:
    C_NN = second_moment(9, 4)
    small, large = metric(C_NN), metric(1e6 * C_NN)
    torch.testing.assert_close(1e3 * small.S_NN, large.S_NN)


def test_the_inverse_metric_is_the_public_one_clamp_and_all() -> None:
    """S = C^(-1/2) with eigenvalues clamped at 1e-3, whatever their scale (TT-LLM)."""
    C_NN = second_moment(9, 5) * 0.01
    values, V = np.linalg.eigh(C_NN.numpy())
    assert values.min() < 1e-3 < values.max()
    expected = V @ np.diag(np.maximum(values, 1e-3) ** -0.5) @ V.T
    found = inverse_metric(C_NN)
    np.testing.assert_allclose(found.S_NN.numpy(), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.S_NN.T @ found.undo(torch.eye(9, dtype=DOUBLE)), torch.eye(9, dtype=DOUBLE))


@pytest.mark.parametrize(
    ("C", "message"),
    [
        (torch.zeros(3, 4), r"shape is \[3, 4\], a square matrix is needed"),
        (torch.full((3, 3), float("nan")), "holds NaN or infinity; calibrate again"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "is not symmetric; it must be"),
        (torch.zeros(3, 3), "is zero or has a negative diagonal; calibrate"),
        (-torch.eye(3), "is zero or has a negative diagonal"),
    ],
)
def test_what_is_no_second_moment_is_refused(C: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metric(C)
