"""Residuals of prescribed norms, against torch's own norms, and what they do to models whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny import single_thread
from torch import Tensor
from zoo import FAMILIES as MODELS
from zoo import build, experts_of, routed

from tdmoe.problems import InputError, WeightError
from tdmoe.runtime.injection import DESIGNS, FAMILIES, Injector, Norms, directions, draw, errors, subspace

SHAPES = [(4, 6, 10), (3, 11, 8)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moment(inputs: int, seed: int = 3) -> Tensor:
    """Of inputs whose features differ in size a hundredfold."""
    x_TI = gaussian(50, inputs, seed=seed).double() * torch.logspace(0, -2, inputs, dtype=torch.float64)
    return x_TI.T @ x_TI / 50


def drawn(family: str, shape: tuple[int, int, int], C_II: Tensor, seed: int = 5) -> Tensor:
    return draw(family, shape, directions(C_II), torch.Generator().manual_seed(seed))


def norm_of(X_EOI: Tensor, C_II: Tensor, design: str) -> Tensor:
    """(E,), by torch."""
    X = X_EOI.double()
    if design == "operator":
        return torch.linalg.matrix_norm(X, 2)
    root_II = torch.linalg.cholesky(C_II) if design == "functional" else torch.eye(X.shape[2], dtype=torch.float64)
    return torch.linalg.matrix_norm(X @ root_II)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_injected_residual_is_as_large_as_asked_in_the_norm_of_its_design(
    shape: tuple[int, int, int], design: str, family: str
) -> None:
    W, C_II = gaussian(*shape, seed=1), moment(shape[2])
    X = drawn(family, shape, C_II)
    scale_E = Norms.of(X, C_II).scale(Norms.of(W, C_II), design)
    found = norm_of(scale_E[:, None, None] * X, C_II, design)
    torch.testing.assert_close(found, norm_of(W, C_II, design), rtol=2e-6, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_families_have_the_singular_values_and_directions_that_they_are_named_for(shape: tuple[int, int, int]) -> None:
    experts, outputs, inputs = shape
    C_II = moment(inputs)
    V_II, least = directions(C_II), min(outputs, inputs)
    rank = subspace(outputs, inputs)
    ranks = {"isotropic": least, "flat": least, "rank_one": 1, "along": rank, "against": rank}
    found = {family: drawn(family, shape, C_II) for family in FAMILIES}
    for family, X in found.items():
        sigma = torch.linalg.svdvals(X.double())
        assert X.shape == shape and int((sigma[0] > 1e-5 * sigma[0, 0]).sum()) == ranks[family]
        if family != "isotropic":
            torch.testing.assert_close(
                sigma[:, : ranks[family]], sigma[:, :1].expand(-1, ranks[family]), rtol=1e-5, atol=0
            )
        assert len({round(float(x), 6) for x in X[:, 0, 0]}) == experts, "experts are drawn apart"
        assert torch.equal(X, drawn(family, shape, C_II)) and not torch.equal(X, drawn(family, shape, C_II, seed=6))
    along, against = (found[family] @ V_II for family in ("along", "against"))
    assert float(along[..., rank:].abs().max()) < 1e-5 and float(against[..., :-rank].abs().max()) < 1e-5


@pytest.mark.parametrize(("outputs", "inputs", "expected"), [(80, 192, 24), (192, 80, 10), (3, 192, 3), (9, 3, 1)])
def test_size_of_a_subspace(outputs: int, inputs: int, expected: int) -> None:
    assert subspace(outputs, inputs) == expected


def test_errors_are_those_of_the_dense_formulas() -> None:
    places = {(0, "gate"): SHAPES[0], (0, "down"): SHAPES[1]}
    W = {place: gaussian(*shape, seed=i) for i, (place, shape) in enumerate(places.items())}
    C = {place: moment(shape[2]) for place, shape in places.items()}
    own = {place: (lambda e, n=shape[2]: moment(n, seed=20 + e)) for place, shape in places.items()}
    X = {place: drawn("isotropic", shape, C[place]) for place, shape in places.items()}
    whole, lost = ({p: Norms.of(T[p], C[p], own[p]) for p in places} for T in (W, X))
    scales = {place: lost[place].scale(whole[place], "operator") for place in places}
    found = errors(scales, lost, whole).times(0.3)
    squares: dict[str, list[float]] = {"weight": [], "functional": [], "functional_expert": [], "operator": []}
    for place in places:
        E, D = 0.3 * scales[place][:, None, None] * X[place].double(), W[place].double()
        squares["weight"].append(float(E.square().sum() / D.square().sum()))
        pooled = [torch.einsum("eoi,ij,eoj->", M, C[place], M) for M in (E, D)]
        squares["functional"].append(float(pooled[0] / pooled[1]))
        C_EII = torch.stack([own[place](e) for e in range(len(E))])
        each = [torch.einsum("eoi,eij,eoj->", M, C_EII, M) for M in (E, D)]
        squares["functional_expert"].append(float(each[0] / each[1]))
        ratio = torch.linalg.matrix_norm(E, 2) / torch.linalg.matrix_norm(D, 2)
        squares["operator"].append(float(ratio.mean()))
    assert found.operator == pytest.approx(sum(squares["operator"]) / 2, rel=1e-9)
    for name in ("weight", "functional", "functional_expert"):
        assert getattr(found, name) == pytest.approx((sum(squares[name]) / 2) ** 0.5, rel=1e-9)
    without = {p: Norms.of(X[p], C[p]) for p in places}
    assert errors(scales, without, whole).functional_expert is None


def test_experts_of_zeros_get_nothing_and_residuals_that_inputs_never_meet_are_refused() -> None:
    W, C_II = gaussian(*SHAPES[0], seed=1), moment(10)
    W[2] = 0.0
    X = drawn("flat", SHAPES[0], C_II)
    scale_E = Norms.of(X, C_II).scale(Norms.of(W, C_II), "frobenius")
    assert scale_E[2] == 0 and bool((scale_E[[0, 1, 3]] > 0).all())
    C_II[:, 7:] = C_II[7:] = 0.0
    X[:, :, :7] = 0.0
    with pytest.raises(WeightError, match="no size of it has the asked functional norm; leave design functional"):
        Norms.of(X, C_II).scale(Norms.of(W, C_II), "functional")


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_weights_are_changed_by_the_residual_alone_and_restored_bit_for_bit(name: str) -> None:
    model = build(MODELS[name], torch.float32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    places = [(layer, projection) for layer in (0, 2) for projection in ("gate", "down")]
    injector = Injector(model, places)
    X = {place: gaussian(*injector.weights[place].shape, seed=9) for place in places}
    scales = {place: torch.arange(1.0, 8.0, dtype=torch.float64) for place in places}
    E = {place: 0.2 * scales[place].float()[:, None, None] * X[place] for place in places}
    changed: dict[str, Tensor] = {}
    for layer in (0, 2):
        gate_up, down = (f"model.layers.{layer}.mlp.experts.{part}_proj" for part in ("gate_up", "down"))
        changed[gate_up], changed[down] = before[gate_up].clone(), before[down].clone()
        if name == "gpt_oss":  # input-major, gate and up interleaved
            changed[gate_up][:, :, 0::2] += E[layer, "gate"].transpose(1, 2)
            changed[down] += E[layer, "down"].transpose(1, 2)
        else:
            changed[gate_up][:, : E[layer, "gate"].shape[1]] += E[layer, "gate"]
            changed[down] += E[layer, "down"]
    with injector.injected(X, scales, 0.2):
        for key, value in model.state_dict().items():
            torch.testing.assert_close(value, changed.get(key, before[key]), rtol=1e-6, atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="stopped"), injector.injected(X, scales, 0.2):
        raise RuntimeError("stopped")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with injector.injected(X, scales, 0.0):
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(InputError, match="layer 9: has no experts in this model"):
        Injector(model, [(9, "gate")])


def test_only_what_inputs_meet_changes_outputs_whatever_the_norms() -> None:
    """Inputs confined to 9 of 24 features: `against` changes nothing, `along` everything, at equal singular values."""
    experts = experts_of(build(MODELS["mixtral"], torch.float32))[0]
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.ModuleDict({"experts": experts})])})
    x_TI = torch.cat([gaussian(200, 9, seed=1), torch.zeros(200, 15)], 1)
    index = torch.stack([torch.randperm(7, generator=torch.Generator().manual_seed(t))[:2] for t in range(200)])
    weight = torch.rand(200, 2, generator=torch.Generator().manual_seed(2))
    C_II = x_TI.double().T @ x_TI.double() / 200
    places = [(0, "gate"), (0, "up")]
    injector = Injector(model, places)
    whole = {place: Norms.of(injector.weights[place], C_II) for place in places}
    change: dict[tuple[str, float], float] = {}
    with torch.no_grad():
        expected = routed(experts, x_TI, index, weight)
        for family in ("along", "against"):
            X = {place: drawn(family, tuple(injector.weights[place].shape), C_II) for place in places}
            norms = {place: Norms.of(X[place], C_II) for place in places}
            scales = {place: norms[place].scale(whole[place], "operator") for place in places}
            assert errors(scales, norms, whole).operator == pytest.approx(1.0)
            assert errors(scales, norms, whole).functional == pytest.approx(0.0, abs=1e-6) or family == "along"
            for size in (1.0, 30.0):
                with injector.injected(X, scales, size):
                    found = routed(experts, x_TI, index, weight)
                change[family, size] = float((found - expected).norm() / expected.norm())
    assert change["along", 1.0] > 0.3 and change["along", 30.0] > 3.0
    assert change["against", 1.0] < 1e-5 and change["against", 30.0] < 1e-4


def test_a_linear_model_loses_the_functional_error_squared_and_nothing_else() -> None:
    """Mean ||W x - W^ x||^2 over the inputs that C is of, for every family at equal Frobenius norm."""
    W, x_TI = gaussian(*SHAPES[0], seed=1), gaussian(60, 10, seed=2) * torch.logspace(0, -2, 10)
    C_II = x_TI.double().T @ x_TI.double() / 60
    whole = Norms.of(W, C_II)
    seen = []
    for family in FAMILIES:
        X = drawn(family, SHAPES[0], C_II)
        norms = Norms.of(X, C_II)
        scale_E = norms.scale(whole, "frobenius")
        lost = (
            torch.einsum("eoi,ti->eto", (scale_E[:, None, None] * X.double()), x_TI.double()).square().sum((1, 2)) / 60
        )
        torch.testing.assert_close(lost, (scale_E * norms.functional_E) ** 2, rtol=1e-5, atol=0)
        seen.append(float(lost.sum() / whole.functional_E.square().sum()))
    assert max(seen) / min(seen) > 100
