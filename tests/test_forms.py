"""Every form a stack is stored in: its module against the family's own, with plainly rebuilt weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import single_thread
from torch import Tensor
from zoo import EXPERTS, FAMILIES, HIDDEN, build, experts_of, routed

from tdmoe.forms import restore, stored_bits
from tdmoe.forms.integers import packed, unpacked
from tdmoe.problems import InputError
from tdmoe.runtime.modules import factorise
from tdmoe.stacks.families import PROJECTIONS

SPECS: dict[str, dict[str, Any]] = {
    "low_rank": {"kind": "low_rank", "rank": 5, "base": False},
    "low_rank with base": {"kind": "low_rank", "rank": 3, "base": True},
    "bases": {"kind": "bases", "bases": 3, "rank": 6, "activation": "tanh", "groups": 1},
    "bases of two groups": {"kind": "bases", "bases": 2, "rank": 30, "activation": "silu", "groups": 2},
    "integers": {"kind": "integers", "bits": 3, "group": 9, "rows": None, "inputs": None},
    "integers of one scale": {"kind": "integers", "bits": 8, "group": 99, "rows": 1, "inputs": None},
    "nothing at all": {"kind": "tucker", "ranks": [0, 0, 0]},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def spec_of(name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    spec = dict(SPECS[name])
    if spec["kind"] == "integers":
        group = min(spec["group"], shape[2])
        spec |= {"rows": spec["rows"] or shape[1], "inputs": shape[2], "group": group}
    return spec


def plain(spec: dict[str, Any], tensors: dict[str, Tensor], shape: tuple[int, int, int]) -> Tensor:
    """W_EOI, an entry or a matrix at a time."""
    experts, outputs, inputs = shape
    W = torch.zeros(shape)
    for e in range(experts):
        if spec["kind"] == "low_rank":
            W[e] = tensors["left"][e] @ tensors["right"][e] + tensors.get("base", torch.zeros(1))
        elif spec["kind"] == "bases":
            group = next(g for g in range(spec["groups"]) if e * spec["groups"] < (g + 1) * experts)
            bases = tensors["basis"][group * spec["bases"] :]
            M = sum(tensors["mixing"][e, j] * bases[j] for j in range(spec["bases"]))
            phi = torch.tanh if spec["activation"] == "tanh" else lambda x: x * torch.sigmoid(x)
            W[e] = tensors["left"][e] @ phi(M)
        elif spec["kind"] == "integers":
            for o in range(outputs):
                for i in range(inputs):
                    byte = tensors["planes"][e, o, :, i // 8].tolist()
                    code = sum((b >> (i % 8) & 1) << plane for plane, b in enumerate(byte)) - 2 ** (spec["bits"] - 1)
                    W[e, o, i] = code * tensors["scale"][e, o if spec["rows"] > 1 else 0, i // spec["group"]]
    return W


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "qwen3_moe"])
@pytest.mark.parametrize("form", SPECS)
def test_a_form_computes_what_the_dense_module_computes(name: str, form: str) -> None:
    family = FAMILIES[name]
    dense = experts_of(build(family, torch.float32))[family.moe_layers[0]]
    factored = copy.deepcopy(dense)
    specs = {p: spec_of(form, family.shape(p)) for p in PROJECTIONS}
    factorise(factored, specs)
    generator = torch.Generator().manual_seed(1)
    W = {}
    with torch.no_grad():
        for part in PROJECTIONS:
            for p in getattr(factored, part).parameters():
                drawn = torch.randint(0, 256, p.shape, generator=generator, dtype=torch.uint8)
                p.copy_(drawn if p.dtype == torch.uint8 else 0.3 * torch.randn(p.shape, generator=generator))
            tensors = {n: p.detach() for n, p in getattr(factored, part).named_parameters()}
            W[part] = plain(specs[part], tensors, family.shape(part))
            made = restore(specs[part], tensors)
            assert made.shape == family.shape(part) and made.spec() == specs[part]
            torch.testing.assert_close(made.members(1, 4), W[part][1:4], rtol=1e-5, atol=1e-5)
            assert {n: t.shape for n, t in made.tensors().items()} == {n: t.shape for n, t in tensors.items()}
        gate, up, down = (W[p] for p in PROJECTIONS)
        gate_up = torch.cat([gate, up], 1) if dense.is_concatenated else torch.stack([gate, up], 2).flatten(1, 2)
        dense.gate_up_proj.copy_(gate_up.transpose(1, 2) if dense.is_transposed else gate_up)
        dense.down_proj.copy_(down.transpose(1, 2) if dense.is_transposed else down)
        x = torch.randn(30, HIDDEN, generator=generator)
        index = torch.stack([torch.randperm(EXPERTS - 1, generator=generator)[:2] for _ in range(30)])  # one idles
        weight = torch.rand(30, 2, generator=generator)
        expected, found, again = routed(dense, x, index, weight), factored(x, index, weight), factored(x, index, weight)
    assert form == "nothing at all" or expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()) + 1e-9)
    assert torch.equal(found, again), "also from mixtures that were kept"
    nobody = factored(torch.empty(0, HIDDEN), torch.empty(0, 2, dtype=torch.long), torch.empty(0, 2))
    assert nobody.shape == (0, HIDDEN)


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_survive_their_packing(bits: int) -> None:
    most = 2 ** (bits - 1) - 1
    codes = torch.randint(-most, most + 1, (3, 5, 13), generator=torch.Generator().manual_seed(bits))
    planes = packed(codes, bits)
    assert planes.shape == (3, 5, bits, 2) and planes.dtype == torch.uint8
    assert torch.equal(unpacked(planes, 13), codes.short())


def test_mixtures_are_kept_within_bounds_and_never_stale() -> None:
    family = FAMILIES["mixtral"]
    module = experts_of(build(family, torch.float32))[0]
    factorise(module, {p: spec_of("bases", family.shape(p)) for p in PROJECTIONS})
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
        linear, x = module.gate, torch.ones(EXPERTS, HIDDEN)
        first = linear.mix(x, [1] * EXPERTS)
        assert len(linear._kept) == 3, "as many as there are bases"
        linear.basis.mul_(2.0)
        assert not torch.allclose(linear.mix(x, [1] * EXPERTS), first)
        linear.mixing.mul_(0.5)
        torch.testing.assert_close(linear.mix(x, [1] * EXPERTS), first)
        linear.basis.data.mul_(2.0)
        linear.forget()
        assert not torch.allclose(linear.mix(x, [1] * EXPERTS), first)
    linear.mix(x, [1] * EXPERTS).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in linear.parameters())


def test_bits_are_those_of_what_is_stored() -> None:
    shape = (EXPERTS, 20, 24)
    spec = spec_of("integers", shape)
    tensors = {"planes": torch.zeros(7, 20, 3, 3, dtype=torch.uint8), "scale": torch.ones(7, 20, 3).bfloat16()}
    made = restore(spec, tensors)
    assert stored_bits(made) == 7 * 20 * 24 * 3 + 7 * 20 * 3 * 16 and made.parameters == 7 * 20 * 24 + 7 * 20 * 3
    assert made.to(torch.float32) is made, "whatever the checkpoint's dtype"
    with pytest.raises(InputError, match="kind is 'later', this tdmoe knows tucker, low_rank, .*; install a newer"):
        restore({"kind": "later"}, {})
