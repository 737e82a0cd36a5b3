"""MoBE: the published training against its equations, the fit against autograd, planted answers and the training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_tucker import decaying
from tiny import single_thread
from torch import Tensor

from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.forms.bases import ACTIVATIONS
from tdmoe.mobe import fit, published, sizes
from tdmoe.mobe.objective import Objective, Point, mix, orthogonal
from tdmoe.mobe.sizes import Sizes
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.locate import open_stack

MINI = Path(__file__).parents[1] / "diag" / "assets" / "mini"
DOUBLE = torch.float64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def mini() -> Tensor:
    with Checkpoint(MINI) as checkpoint:
        return open_stack(checkpoint, architecture(checkpoint.config), 1, "gate").weights(0, 32).float()


def relative(W_EOI: Tensor, found: Tensor) -> float:
    return float((found - W_EOI).norm() / W_EOI.norm())


# Sizes


def test_published_sizes_are_those_of_the_papers() -> None:
    qwen, deepseek = (128, 768, 2048), (256, 2048, 7168)
    for bases, kept in ((16, 0.5), (32, 0.625), (48, 0.75), (64, 0.875)):
        assert sizes.stored(qwen, Sizes(bases, 768), 1) / np.prod(qwen) == pytest.approx(kept, abs=1e-4)
        assert sizes.published(qwen, 1 - kept - 1e-3, 1) == Sizes(bases, 768)
    assert sizes.stored(deepseek, Sizes(64, 2048), 1) / np.prod(deepseek) == pytest.approx(0.536, abs=1e-3)
    assert sizes.rank_within((16, 128, 192), 0.4, 4, 1) == 83
    assert sizes.published((8, 50, 20), 0.4, 1) == Sizes(2, 10), "width above the input: no two bases of full rank fit"


@pytest.mark.parametrize("shape", [(128, 768, 2048), (64, 2048, 1024), (32, 80, 192)], ids=str)
@pytest.mark.parametrize("alignment", [1, 8])
def test_every_number_of_bases_fills_the_budget(shape: tuple[int, int, int], alignment: int) -> None:
    """The largest rank, counted up one by one; on large stacks all numbers of bases store the same to 0.5 %."""
    experts, outputs, inputs = shape
    for bases in (1, 2, 4, 8):
        stored = {
            rank: experts * outputs * rank + bases * rank * inputs + experts * bases
            for rank in range(alignment, inputs + 1, alignment)
        }
        best = max(rank for rank, total in stored.items() if total <= 0.6 * np.prod(shape))
        found = sizes.rank_within(shape, 0.4, bases, 1, alignment)
        assert found == best and Sizes(bases, found) in sizes.ladder(shape, 0.4, 1, alignment)
        if alignment == 1 and experts * outputs * inputs > 1e8:
            assert stored[found] / (0.6 * np.prod(shape)) == pytest.approx(1.0, abs=0.005)
    assert sizes.published((128, 770, 2048), 0.4, 1, 8).rank == 768


def test_the_setting_that_expands_gpt_oss_is_refused_with_its_arithmetic() -> None:
    with pytest.raises(ValueError, match=r"32 x 2880 x 2880 \+ 8 x 2880 x 2880 .* 1.25 times .*; give .* at most 2303"):
        sizes.check((32, 2880, 2880), Sizes(8, 2880), 1)
    sizes.check((32, 2880, 2880), Sizes(8, 1440), 1)


# As published


def numpy_step(
    W: np.ndarray, A: np.ndarray, B: np.ndarray, w: np.ndarray, activation: str, free: bool, C: np.ndarray
) -> list[np.ndarray]:
    """One step of Adam on the mean of E C E^T, E = A phi(softmax(w) B) - W / std (free: w B), gradients by hand."""
    Z = W / W.std(ddof=1)
    a = w if free else np.exp(w) / np.exp(w).sum(1, keepdims=True)
    M = np.einsum("em,mki->eki", a, B)
    s = 1 / (1 + np.exp(-M))
    H, slope = (M * s, s * (1 + M * (1 - s))) if activation == "silu" else (np.tanh(M), 1 - np.tanh(M) ** 2)
    R = 2 * (np.einsum("eok,eki->eoi", A, H) - Z) @ C / Z.size
    dA, dM = np.einsum("eoi,eki->eok", R, H), np.einsum("eok,eoi->eki", A, R) * slope
    dB, da = np.einsum("em,eki->mki", a, dM), np.einsum("eki,mki->em", dM, B)
    dw = da if free else a * (da - (a * da).sum(1, keepdims=True))
    # first step of Adam: bias correction leaves g / (|g| + eps)
    return [x - 0.07 * g / (np.abs(g) + 1e-8) for x, g in ((A, dA), (B, dB), (w, dw))]


@pytest.mark.parametrize("activation", ["silu", "tanh"])
@pytest.mark.parametrize("free", [False, True], ids=["softmax", "free"])
@pytest.mark.parametrize("weighed", [False, True])
def test_one_published_step_is_that_of_the_equations(activation: str, free: bool, weighed: bool) -> None:
    W_EOI = decaying((6, 5, 11)).float()
    C_II = second_moment(11) if weighed else torch.eye(11, dtype=DOUBLE)
    training = published.Training(W_EOI, Sizes(2, 4), activation, free=free, C_II=C_II if weighed else None)
    before = [t.detach().double().numpy() for t in training.state]
    expected = numpy_step(W_EOI.double().numpy(), *before, activation, free, C_II.numpy())
    training.step()
    for found, wanted in zip(training.state, expected, strict=True):
        moved = np.abs(wanted - found.detach().double().numpy())
        assert np.quantile(moved, 0.99) < 1e-4, "but where a gradient is nearly zero"


def test_the_published_start_is_a_svd_of_consecutive_groups() -> None:
    W_EOI = decaying((6, 5, 11)).float()
    A, B, w = published.start(W_EOI, Sizes(3, 4))
    assert torch.equal(w, torch.eye(3).repeat_interleave(2, 0))
    for g in range(3):
        rows = W_EOI[2 * g : 2 * g + 2].reshape(10, 11)
        U, s, V = torch.linalg.svd(rows, full_matrices=False)
        best = U[:, :4] * s[:4] @ V[:4]
        torch.testing.assert_close((A[2 * g : 2 * g + 2] @ B[g]).reshape(10, 11), best, rtol=1e-4, atol=1e-5)
    assert [int((published.start(W_EOI, Sizes(4, 2))[2][:, g] == 1).sum()) for g in range(4)] == [2, 1, 2, 1]
    assert not published.start(W_EOI, Sizes(6, 7))[1][:, 5:].any(), "an expert of five rows has five directions"


def test_free_mixing_starts_from_the_same_prediction_and_ends_elsewhere() -> None:
    W_EOI = decaying((6, 5, 11)).float()
    soft, free = (published.Training(W_EOI, Sizes(3, 4), "silu", free=free) for free in (False, True))
    torch.testing.assert_close(free.predicted(), soft.predicted())
    made = published.trained(W_EOI, Sizes(3, 4), "silu", 40, free=True)
    for _ in range(40):
        free.step()
    assert torch.equal(made.mixing_EM, free.state[2].detach())
    assert float((made.mixing_EM.sum(1) - 1).abs().max()) > 0.1, "no softmax"


def test_what_is_trained_in_a_metric_has_the_error_that_it_says() -> None:
    """Undone in what is stored: the curve's last error is the functional one of the rebuilt weights."""
    W_EOI, C_II = decaying((6, 5, 11)), second_moment(11)
    made = published.trained(W_EOI.float(), Sizes(3, 4), "tanh", 400, free=True, C_II=C_II)
    E, best = made.members(0, 6) - W_EOI, min(error for _, _, error in made.fit.curve) if made.fit else 0.0
    error = torch.einsum("eoi,ij,eoj->", E, C_II, E) / torch.einsum("eoi,ij,eoj->", W_EOI, C_II, W_EOI)
    assert float(error) ** 0.5 == pytest.approx(best, rel=0.1), "the snapshot is one step after its loss"
    plain = published.trained(W_EOI.float(), Sizes(3, 4), "tanh", 400, free=True).members(0, 6) - W_EOI
    assert float(torch.einsum("eoi,ij,eoj->", plain, C_II, plain)) > float(torch.einsum("eoi,ij,eoj->", E, C_II, E))


def test_the_best_snapshot_is_kept_and_the_last_state_of_a_short_run() -> None:
    W_EOI = decaying((6, 5, 11)).float()
    short = published.trained(W_EOI, Sizes(2, 4), "silu", 3)
    training = published.Training(W_EOI, Sizes(2, 4), "silu")
    losses = [training.step() for _ in range(400)]
    assert short.fit is not None and short.fit.curve[-1][0] == 3
    made = published.trained(W_EOI, Sizes(2, 4), "silu", 400)
    best = 200 if losses[199] < losses[399] else 400
    again = published.Training(W_EOI, Sizes(2, 4), "silu")
    for _ in range(best):
        again.step()
    torch.testing.assert_close(made.members(0, 6), (again.predicted() * again.scale).detach(), rtol=1e-4, atol=1e-5)
    three = published.Training(W_EOI, Sizes(2, 4), "silu")
    for _ in range(3):
        three.step()
    torch.testing.assert_close(short.members(0, 6), (three.predicted() * three.scale).detach(), rtol=1e-4, atol=1e-5)


# The fit


def second_moment(inputs: int) -> Tensor:
    x = torch.randn(30, inputs, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    x = x * torch.arange(1, inputs + 1, dtype=DOUBLE) ** -0.7
    return x.T @ x / 30


def point(shape: tuple[int, int, int], at: Sizes) -> Point:
    generator = torch.Generator().manual_seed(4)
    B = torch.randn(at.bases, at.rank, shape[2], dtype=DOUBLE, generator=generator)
    return Point(B, torch.randn(shape[0], at.bases, dtype=DOUBLE, generator=generator))


@pytest.mark.parametrize("activation", ["identity", "tanh", "silu"])
@pytest.mark.parametrize("weighed", [False, True])
def test_loss_and_gradient_are_those_of_autograd(
    activation: str, weighed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a least-squares solve for A that autograd goes through."""
    monkeypatch.setattr("tdmoe.mobe.objective.RIDGE", 0.0)
    W_EOI = decaying((6, 5, 11))
    C_II = second_moment(11) if weighed else torch.eye(11, dtype=DOUBLE)
    objective = Objective(W_EOI, activation, C_II if weighed else None)
    at = point((6, 5, 11), Sizes(3, 4))
    B, a = (t.clone().requires_grad_() for t in at)
    phi = {"identity": lambda x: x, "tanh": torch.tanh, "silu": torch.nn.functional.silu}[activation]
    S = torch.linalg.cholesky(C_II)
    H = phi(torch.einsum("em,mki->eki", a, B)) @ S
    A = torch.linalg.solve(H @ H.transpose(1, 2), H @ (W_EOI @ S).transpose(1, 2)).transpose(1, 2)
    loss = (A @ H - W_EOI @ S).square().sum() / (W_EOI @ S).square().sum()
    loss.backward()
    value = objective.value(at)
    assert value.loss == pytest.approx(float(loss.detach()), rel=1e-9)
    assert B.grad is not None and a.grad is not None
    torch.testing.assert_close(value.gradient.basis_MKI, B.grad, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(value.gradient.mixing_EM, a.grad, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(value.left_EOK, A.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weighed", [False, True])
def test_the_curvature_of_linear_phi_is_the_hessian_with_left_factors_held(
    weighed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdmoe.mobe.objective.RIDGE", 0.0)
    monkeypatch.setattr("tdmoe.mobe.objective.DAMPING", 0.0)
    W_EOI, at = decaying((6, 5, 11)), point((6, 5, 11), Sizes(2, 3))
    C_II = second_moment(11) if weighed else torch.eye(11, dtype=DOUBLE)
    objective = Objective(W_EOI, "identity", C_II if weighed else None)
    value = objective.value(at)
    norm = float(torch.einsum("eoi,ij,eoj->", W_EOI, C_II, W_EOI))

    def held(B: Tensor, a: Tensor) -> Tensor:
        E = value.left_EOK @ torch.einsum("em,mki->eki", a, B) - W_EOI
        return torch.einsum("eoi,ij,eoj->", E, C_II, E) / norm

    gradient = Point(*(torch.randn(t.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(5)) for t in at))
    step = objective.curvature(at, value).solve(gradient)
    for j in range(2):
        H = torch.autograd.functional.hessian(
            lambda B_KI, j=j: held(torch.cat([at.basis_MKI[:j], B_KI[None], at.basis_MKI[j + 1 :]]), at.mixing_EM),
            at.basis_MKI[j],
        ).reshape(33, 33)
        torch.testing.assert_close(H @ step.basis_MKI[j].flatten(), gradient.basis_MKI[j].flatten())
    for e in range(6):
        H = torch.autograd.functional.hessian(
            lambda a_M, e=e: held(at.basis_MKI, torch.cat([at.mixing_EM[:e], a_M[None], at.mixing_EM[e + 1 :]])),
            at.mixing_EM[e],
        )
        torch.testing.assert_close(H @ step.mixing_EM[e], gradient.mixing_EM[e])


def test_a_loss_that_overflows_is_never_taken_for_a_good_one() -> None:
    objective = Objective(decaying((6, 5, 11)).float(), "identity")
    at = Point(*(1e25 * t.float() for t in point((6, 5, 11), Sizes(3, 4))))
    assert objective.value(at).loss == float("inf")


def test_orthogonal_mixing_is_the_same_mixture() -> None:
    at = point((6, 5, 11), Sizes(3, 4))
    same = orthogonal(at)
    torch.testing.assert_close(mix(same), mix(at))
    torch.testing.assert_close(same.mixing_EM.T @ same.mixing_EM, 2.0 * torch.eye(3, dtype=DOUBLE))


@pytest.mark.parametrize("activation", ["identity", "tanh", "silu"])
@pytest.mark.parametrize("weighed", [False, True])
def test_a_planted_mixture_is_found_from_beside_it(activation: str, weighed: bool) -> None:
    """Experts that are made of three bases, the start off by a tenth (the loss has other minima further away)."""
    shape, true = (12, 7, 16), Sizes(3, 4)
    at = point(shape, true)
    A = torch.randn(12, 7, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(8))
    W_EOI = A @ ACTIVATIONS[activation](mix(at))
    objective = Objective(W_EOI, activation, second_moment(16) + 0.01 * torch.eye(16) if weighed else None)
    fitter = fit.Fitter(objective, true, fit.input_directions(objective, W_EOI))
    generator = torch.Generator().manual_seed(9)
    fitter.at = Point(*(x + 0.1 * torch.randn(x.shape, dtype=DOUBLE, generator=generator) for x in at))
    fitter.value = objective.value(fitter.at)
    assert fitter.value.loss > 1e-3
    fitter.run(2000)
    assert fitter.value.loss < 1e-5 and relative(W_EOI, fitter.made().members(0, 12)) < 0.02


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("shape", [(8, 20, 50), (8, 50, 20), (8, 30, 30), None], ids=str)
def test_one_linear_basis_is_the_input_mode_tucker_optimum(
    shape: tuple[int, int, int] | None, weighed: bool, mini: Tensor
) -> None:
    """Of wide, tall and square stacks and the trained one, from the start on: what singular values leave."""
    W_EOI = mini if shape is None else torch.randn(shape, generator=torch.Generator().manual_seed(1))
    inputs = W_EOI.shape[2]
    C_II = second_moment(inputs) + 0.01 * torch.eye(inputs) if weighed else torch.eye(inputs, dtype=DOUBLE)
    rank = 107 if shape is None else inputs // 3
    s = torch.linalg.svdvals((W_EOI.double() @ torch.linalg.cholesky(C_II)).flatten(0, 1))
    best = float(s[rank:].square().sum() / s.square().sum()) ** 0.5
    for steps in (1, 60):
        made = fit.fitted(W_EOI, [Sizes(1, rank)], "identity", steps, C_II if weighed else None)
        E, W = made.members(0, len(W_EOI)).double() - W_EOI, W_EOI.double()
        error = torch.einsum("eoi,ij,eoj->", E, C_II, E) / torch.einsum("eoi,ij,eoj->", W, C_II, W)
        assert float(error) ** 0.5 == pytest.approx(best, rel=1e-5)
        assert made.fit is not None and made.fit.curve[-1][2] == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("weighed", [False, True])
def test_the_start_of_as_many_bases_as_experts_is_a_step_of_each(weighed: bool) -> None:
    """From the shared basis H by Q^-1 d_e, d_e of autograd and Q the mean curvature: nothing is lost in mixing."""
    W_EOI = decaying((6, 5, 11))
    C_II = second_moment(11) + 0.01 * torch.eye(11) if weighed else torch.eye(11, dtype=DOUBLE)
    objective = Objective(W_EOI, "identity", C_II if weighed else None)
    directions = fit.input_directions(objective, W_EOI)
    H = directions[:, :4].T * (fit.SPREAD / directions[:, :4].square().mean().sqrt())
    A = torch.linalg.solve(H @ C_II @ H.T, H @ C_II @ W_EOI.transpose(1, 2)).transpose(1, 2)
    M = H.repeat(6, 1, 1).requires_grad_()
    E = A @ M - W_EOI
    norm = torch.einsum("eoi,ij,eoj->", W_EOI, C_II, W_EOI)
    (torch.einsum("eoi,ij,eoj->", E, C_II, E) / norm).backward()
    assert M.grad is not None
    Q = (2 / norm) * (A.transpose(1, 2) @ A).mean(0)
    Q += 1e-3 * Q.diagonal().mean() * torch.eye(4)
    expected = H - torch.linalg.solve(Q, M.grad) @ torch.linalg.inv(C_II)
    found = mix(fit.start(objective, Sizes(6, 4), directions))
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), rtol=1e-4, atol=1e-6)


def test_one_basis_is_the_shared_row_space_at_once() -> None:
    V = torch.linalg.qr(torch.randn(16, 5, generator=torch.Generator().manual_seed(2)))[0].T
    W_EOI = torch.randn(12, 7, 5, generator=torch.Generator().manual_seed(3)) @ V
    made = fit.fitted(W_EOI, [Sizes(1, 5)], "identity", 300)
    assert relative(W_EOI, made.members(0, 12)) < 1e-3 and made.fit is not None and made.fit.stopped == "converged"


def test_the_fit_never_rises_and_says_what_it_reached(mini: Tensor) -> None:
    made = fit.fitted(mini, [Sizes(5, 80)], "tanh", 60)
    assert made.fit is not None and made.fit.stopped == "steps"
    errors = [error for _, _, error in made.fit.curve]
    assert errors == sorted(errors, reverse=True) and made.fit.curve[-1][0] <= 61
    assert errors[-1] == pytest.approx(relative(mini, made.members(0, 32)), rel=1e-3)
    assert made.fit.decrement is not None and 0 < made.fit.decrement < 0.1


def test_it_beats_the_published_training_at_equal_storage_with_a_tenth_of_the_steps(mini: Tensor) -> None:
    """Of the trained model, gate of layer 1, rho 0.4; sizes searched against sizes as published."""
    shape = (32, 80, 192)
    theirs = published.trained(mini, sizes.published(shape, 0.4, 1), "silu", 600)
    choices = sizes.ladder(shape, 0.4, 1)
    ours = fit.fitted(mini, choices, "tanh", 60)
    assert ours.ranks in {tuple(choice) for choice in choices} and 2 <= ours.ranks[0] <= 12
    assert relative(mini, ours.members(0, 32)) < relative(mini, theirs.members(0, 32)) < 0.32


def test_the_metric_lowers_what_it_weighs(mini: Tensor) -> None:
    C_II = second_moment(192)
    C_II += 1e-3 * C_II.diagonal().mean() * torch.eye(192, dtype=DOUBLE)

    def functional(found: Tensor) -> float:
        E = (found - mini).double()
        return float(
            torch.einsum("eoi,ij,eoj->", E, C_II, E) / torch.einsum("eoi,ij,eoj->", mini.double(), C_II, mini.double())
        )

    weighed, plain = (fit.fitted(mini, [Sizes(4, 88)], "tanh", 40, C) for C in (C_II, None))
    assert functional(weighed.members(0, 32)) < 0.7 * functional(plain.members(0, 32))
    assert weighed.fit is not None
    assert functional(weighed.members(0, 32)) ** 0.5 == pytest.approx(weighed.fit.curve[-1][2], rel=1e-2)
