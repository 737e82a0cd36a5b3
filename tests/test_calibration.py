"""Second moments of routed inputs, of every family, against plain sums over recorded inputs and our own stacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import single_thread
from torch import Tensor
from zoo import EXPERTS, FAMILIES, HIDDEN, build, experts_of, load, save

import tdmoe.runtime.calibration
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.problems import InputError
from tdmoe.runtime.calibration import LayerMoments, Moments, calibrate, collecting
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.families import PROJECTIONS
from tdmoe.stacks.locate import open_stack

WINDOWS = [torch.randint(3, 60, (2, 16), generator=torch.Generator().manual_seed(s)) for s in range(3)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """family -> (its pico model in float32, its folder), each made once."""
    models: dict[str, tuple[Any, Path]] = {}

    def get(name: str) -> tuple[Any, Path]:
        if name not in models:
            folder = save(build(FAMILIES[name]), tmp_path_factory.mktemp(name), fused=True)
            models[name] = load(FAMILIES[name], folder).eval(), folder
        return models[name]

    return get


def record(model: Any) -> dict[int, list[tuple[Tensor, ...]]]:
    """Every call of every experts module, as positional tensors, while the windows run."""
    calls: dict[int, list[tuple[Tensor, ...]]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, a, k, layer=layer: calls.setdefault(layer, []).append((*a, *k.values())), with_kwargs=True
        )
        for layer, module in experts_of(model).items()
    ]
    with torch.no_grad():
        for window in WINDOWS:
            model(input_ids=window, use_cache=False)
    for handle in handles:
        handle.remove()
    return calls


def routed_rows(call: tuple[Tensor, ...]) -> Iterator[tuple[int, Tensor, float]]:
    """(expert, its input, routing weight) of every routed token, one by one."""
    if len(call) == 1:  # Llama-4: all tokens for each expert, zeros where not routed
        for expert, x_TI in enumerate(call[0].view(EXPERTS, -1, HIDDEN)):
            yield from ((expert, x, 1.0) for x in x_TI if x.any())
        return
    x_TI, index_TK, weight_TK = call
    for x, experts, weights in zip(x_TI.reshape(-1, HIDDEN), index_TK.tolist(), weight_TK.tolist(), strict=True):
        yield from ((e, x, w) for e, w in zip(experts, weights, strict=True))


@pytest.mark.parametrize("weighting", ["count", "gate_squared"])
@pytest.mark.parametrize("name", FAMILIES)
def test_moments_are_plain_sums_over_routed_tokens(
    name: str, weighting: str, made: Callable[[str], tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tdmoe.runtime.calibration, "ROWS", 7)  # chunks that do not divide the tokens
    family, (model, folder) = FAMILIES[name], made(name)
    calls = record(model)
    moments = calibrate(model, WINDOWS, weighting=weighting, per_expert="all")
    assert moments.tokens == 96 and sorted(moments.layers) == list(family.moe_layers)
    with Checkpoint(folder) as checkpoint:
        arch = architecture(checkpoint.config)
        for layer in family.moe_layers:
            stacks = {p: open_stack(checkpoint, arch, layer, p) for p in ("gate", "up")}
            W = {p: s.weights(0, EXPERTS).double() for p, s in stacks.items()}
            b = {p: torch.zeros(1) if s.bias() is None else s.bias().double() for p, s in stacks.items()}
            inputs = torch.zeros(EXPERTS, HIDDEN, HIDDEN, dtype=torch.float64)
            down = torch.zeros(EXPERTS, family.width, family.width, dtype=torch.float64)
            tokens, (weight, gates) = torch.zeros(EXPERTS), torch.zeros(2, EXPERTS, dtype=torch.float64)
            for call in calls[layer]:
                for e, x, g in routed_rows(call):
                    a, x = g**2 if weighting == "gate_squared" else 1.0, x.double()
                    gate, up = (W[p][e] @ x + (b[p][e] if len(b[p]) > 1 else 0.0) for p in ("gate", "up"))
                    h = family.activation(gate, up)
                    inputs[e] += a * torch.outer(x, x)
                    down[e] += a * torch.outer(h, h)
                    tokens[e] += 1
                    weight[e] += a
                    gates[e] += g
            found = moments.layers[layer]
            assert tokens.sum() > 0 and found.tokens_E.tolist() == tokens.tolist()
            torch.testing.assert_close(found.weight_E, weight, rtol=1e-6, atol=0)
            torch.testing.assert_close(found.gate_E, gates, rtol=1e-6, atol=0)
            close(found.moment("gate"), inputs.sum(0) / weight.sum())
            close(found.input_II, inputs)
            close(found.moment("down"), down.sum(0) / weight.sum())
            close(found.down_II, down)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "deepseek_v3", "mixtral"])
def test_output_moments_are_those_of_the_gradients_of_a_plain_forward_pass(
    name: str, made: Callable[[str], tuple[Any, Path]]
) -> None:
    """Experts replaced by a loop over routed tokens that keeps the gradient of every gate, up and down output."""
    family, (model, folder) = FAMILIES[name], made(name)
    for window in WINDOWS[:1]:
        found = calibrate(model, [window], outputs=True)
        pooled = calibrate(model, [window])
    assert all(p.requires_grad and p.grad is None for p in model.parameters()), "as it was, and no weight gradients"
    kept: dict[tuple[int, str], list[tuple[int, Tensor, Tensor]]] = {}
    originals = {layer: module.forward for layer, module in experts_of(model).items()}
    with Checkpoint(folder) as checkpoint:
        arch = architecture(checkpoint.config)
        for layer, module in experts_of(model).items():
            stacks = {p: open_stack(checkpoint, arch, layer, p) for p in PROJECTIONS}
            W = {p: stack.weights(0, EXPERTS).float() for p, stack in stacks.items()}
            b = {p: torch.zeros(EXPERTS, 1) if stack.bias() is None else stack.bias() for p, stack in stacks.items()}
            module.forward = plain_forward(layer, W, b, family.activation, kept)
    window = WINDOWS[0]
    logits = model(input_ids=window, use_cache=False).logits[:, :-1]
    (-logits.log_softmax(-1).gather(-1, window[:, 1:, None]).sum()).backward()
    for layer, module in experts_of(model).items():
        module.forward = originals[layer]
    model.zero_grad()
    for (layer, projection), outputs in kept.items():
        d = torch.stack([y.grad for _, _, y in outputs]).double()
        fisher = torch.zeros(EXPERTS, dtype=torch.float64)  # of every token ||dL/dW||_F^2, dL/dW = d x^T
        for e, x, y in outputs:
            fisher[e] += torch.outer(y.grad, x).double().square().sum()
        close(found.layers[layer].fisher([projection]), fisher)
        close(found.layers[layer].output_moment(projection), d.T @ d / len(d))
        close(found.layers[layer].moment(projection), pooled.layers[layer].moment(projection))
        assert pooled.layers[layer].output_moment(projection) is None
    assert {projection for _, projection in kept} == set(PROJECTIONS)


def plain_forward(
    layer: int,
    W: dict[str, Tensor],
    b: dict[str, Tensor],
    activation: Callable[[Tensor, Tensor], Tensor],
    kept: dict[tuple[int, str], list[tuple[int, Tensor, Tensor]]],
) -> Callable[..., Tensor]:
    def project(projection: str, e: int, x: Tensor) -> Tensor:
        y = W[projection][e] @ x + b[projection][e]
        y.retain_grad()
        kept.setdefault((layer, projection), []).append((e, x.detach(), y))
        return y

    def forward(x: Tensor, *routing: Tensor, **named: Tensor) -> Tensor:
        index_TK, weight_TK = [*routing, *named.values()]
        out = []
        for x_I, experts, weights in zip(x.reshape(-1, HIDDEN), index_TK.tolist(), weight_TK, strict=True):
            h = [activation(project("gate", e, x_I), project("up", e, x_I)) for e in experts]
            out.append(sum(g * project("down", e, h_W) for e, g, h_W in zip(experts, weights, h, strict=True)))
        return torch.stack(out).view_as(x)

    return forward


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "deepseek_v3"])
def test_every_experts_implementation_gives_the_same(name: str, made: Callable[[str], tuple[Any, Path]]) -> None:
    model, _ = made(name)
    found = {}
    for implementation in ("eager", "grouped_mm", "batched_mm"):
        model.set_experts_implementation(implementation)
        found[implementation] = calibrate(model, WINDOWS)
    for layer, expected in found["eager"].layers.items():
        for other in ("grouped_mm", "batched_mm"):
            close(found[other].layers[layer].moment("gate"), expected.moment("gate"))
            close(found[other].layers[layer].moment("down"), expected.moment("down"))


def test_counting_tokens_makes_gate_and_up_blind_to_the_routing(made: Callable[[str], tuple[Any, Path]]) -> None:
    """k sum x x^T over k T tokens is the plain mean of x x^T; weighting by the routing is not."""
    model, _ = made("qwen3_moe")
    calls = record(model)[0]
    x = torch.cat([call[0].reshape(-1, HIDDEN) for call in calls]).double()
    plain = x.T @ x / len(x)
    close(calibrate(model, WINDOWS).layers[0].moment("gate"), plain)
    weighted = calibrate(model, WINDOWS, weighting="gate_squared").layers[0].moment("gate")
    assert not torch.allclose(weighted, plain, rtol=1e-3)


def test_pooled_and_per_expert_sums_agree_and_go_on_where_they_stopped(made: Callable[[str], tuple[Any, Path]]) -> None:
    model, _ = made("mixtral")
    whole = calibrate(model, WINDOWS)
    first = calibrate(model, WINDOWS[:1], per_expert="down")
    again = calibrate(model, WINDOWS[1:], first, per_expert="down")
    assert again is first and again.tokens == whole.tokens
    for layer, sums in whole.layers.items():
        assert sums.down_II.ndim == 2 and again.layers[layer].down_II.ndim == 3
        torch.testing.assert_close(again.layers[layer].moment("down"), sums.moment("down"))
        torch.testing.assert_close(again.layers[layer].input_II, sums.input_II)


def test_hooks_are_gone_afterwards_also_after_an_error(made: Callable[[str], tuple[Any, Path]]) -> None:
    model, _ = made("mixtral")
    with pytest.raises(RuntimeError), collecting(model, Moments()):
        raise RuntimeError
    assert not any(module._forward_hooks for module in experts_of(model).values())


def test_only_the_asked_layers_are_collected(made: Callable[[str], tuple[Any, Path]]) -> None:
    model, _ = made("mixtral")
    assert sorted(calibrate(model, WINDOWS, layers=[2]).layers) == [2]
    with pytest.raises(InputError, match=r"layer 9: has no experts in this model; it has \[0, 1, 2\]"):
        calibrate(model, WINDOWS, layers=[9])
    with pytest.raises(
        InputError, match="Llama4TextExperts: runs its experts in a way of its own; gradients .* not supp"
    ):
        calibrate(made("llama4")[0], WINDOWS, outputs=True)
    with pytest.raises(InputError, match="Linear: has no fused experts modules; transformers 5 is needed"):
        calibrate(torch.nn.Linear(2, 2), WINDOWS)


def test_shrinkage_follows_the_tokens_an_expert_saw() -> None:
    """100 tokens of 4 features, 12 tokens, and none."""
    generator = torch.Generator().manual_seed(0)
    counts = (100, 12, 0)
    rows = [torch.randn(n, 4, generator=generator, dtype=torch.float64) * (e + 1) for e, n in enumerate(counts)]
    sums = torch.stack([x.T @ x for x in rows])
    tokens = torch.tensor(counts, dtype=torch.float64)
    layer = LayerMoments(sums.sum(0), sums, *(tokens.clone() for _ in range(4)))
    pool = sums.sum(0) / 112
    for e, n in enumerate(counts):
        share = 8 / (n + 8)
        assert layer.shrinkage("down", e, prior=2.0) == pytest.approx(share)
        own = sums[e] / n if n else torch.zeros(4, 4, dtype=torch.float64)
        torch.testing.assert_close(layer.own_moments("down", prior=2.0)(e), (1 - share) * own + share * pool)
    torch.testing.assert_close(layer.own_moments("down")(2), pool)
    with pytest.raises(InputError, match="no token was routed"):
        LayerMoments(sums[2], sums[2:], *[tokens[2:]] * 4).moment("gate")
