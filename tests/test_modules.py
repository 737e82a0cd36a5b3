"""Expert layers in factor form, of every family, against the family's own module with the rebuilt dense weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import single_thread
from torch import Tensor
from zoo import EXPERTS, FAMILIES, HIDDEN, build, experts_of, routed

from tdmoe.forms.grouped import grouped
from tdmoe.problems import InputError
from tdmoe.runtime.modules import factorise
from tdmoe.stacks.families import PROJECTIONS

RANKS = {"gate": (3, 7, 11), "up": (EXPERTS, 9, 10), "down": (4, HIDDEN, 8)}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def dense_of(module: Any, projection: str) -> Tensor:
    """(E, O, I) of a factored projection, plainly."""
    linear = getattr(module, projection)
    if hasattr(linear, "weight"):
        return linear.weight
    W = linear.core
    for axis, factor in enumerate((linear.expert, linear.output, linear.input)):
        if factor is not None:
            W = torch.movedim(torch.tensordot(factor, W, dims=([1], [axis])), 0, axis)
    return W


def pair(name: str, specs: dict[str, Any]) -> tuple[Any, Any]:
    """The same experts module twice: factored with random factors, and dense with what these rebuild to."""
    family = FAMILIES[name]
    dense = experts_of(build(family, torch.float32))[family.moe_layers[0]]
    factored = copy.deepcopy(dense)
    factorise(factored, specs)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in PROJECTIONS:
            for parameter in getattr(factored, part).parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        gate, up, down = (dense_of(factored, p) for p in PROJECTIONS)
        gate_up = torch.cat([gate, up], 1) if dense.is_concatenated else torch.stack([gate, up], 2).flatten(1, 2)
        dense.gate_up_proj.copy_(gate_up.transpose(1, 2) if dense.is_transposed else gate_up)
        dense.down_proj.copy_(down.transpose(1, 2) if dense.is_transposed else down)
    return factored, dense


def specs_of(*projections: str) -> dict[str, Any]:
    return {p: {"kind": "tucker", "ranks": list(RANKS[p])} for p in projections}


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("llama4", "gpt_oss_square")])
@pytest.mark.parametrize("projections", [("gate", "up", "down"), ("gate", "up"), ("down",)], ids=",".join)
def test_factor_form_computes_what_the_dense_module_computes(name: str, projections: tuple[str, ...]) -> None:
    factored, dense = pair(name, specs_of(*projections))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(30, HIDDEN, generator=generator)
    index = torch.stack([torch.randperm(EXPERTS - 1, generator=generator)[:2] for _ in range(30)])  # one expert idles
    weight = torch.rand(30, 2, generator=generator)
    with torch.no_grad():
        expected, found = routed(dense, x, index, weight), factored(x, index, weight)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_only_the_factors_are_held_and_named_by_projection() -> None:
    factored, _ = pair("gpt_oss", specs_of("gate", "up", "down"))
    names = {name: tuple(p.shape) for name, p in factored.named_parameters()}
    assert names == {
        **{"gate_up_proj_bias": (EXPERTS, 40), "down_proj_bias": (EXPERTS, HIDDEN)},
        **{"gate.core": (3, 7, 11), "gate.expert": (7, 3), "gate.output": (20, 7), "gate.input": (24, 11)},
        **{"up.core": (7, 9, 10), "up.output": (20, 9), "up.input": (24, 10)},
        **{"down.core": (4, 24, 8), "down.expert": (7, 4), "down.input": (20, 8)},
    }
    assert repr(factored).startswith("FactoredExperts(\n  in place of GptOssExperts")


def test_gradients_flow_into_the_factors() -> None:
    factored, _ = pair("mixtral", specs_of("gate", "up", "down"))
    x = torch.randn(5, HIDDEN)
    factored(x, torch.tensor([[0, 1]] * 5), torch.ones(5, 2)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in factored.parameters())


def test_no_tokens_are_no_output() -> None:
    factored, _ = pair("mixtral", specs_of("gate", "up", "down"))
    assert factored(torch.empty(0, HIDDEN), torch.empty(0, 2, dtype=torch.long), torch.empty(0, 2)).shape == (0, HIDDEN)
    assert grouped(torch.empty(0, 3), torch.ones(2, 5, 3), [0, 0]).shape == (0, 5)


def test_experts_that_run_in_a_way_of_their_own_are_refused() -> None:
    model = build(FAMILIES["llama4"], torch.float32)
    with pytest.raises(InputError, match="Llama4TextExperts: runs its experts in a way of its own, .* not supported"):
        factorise(experts_of(model)[1], specs_of("gate"))
