"""Dense model and variants walked together: equal to the models' own forward passes, of every family."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny import single_thread
from torch import Tensor
from zoo import FAMILIES, build, experts_of

from diag.lockstep.walk import Stream, Walk
from tdmoe.problems import InputError


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def scaled(module: Any, factor: float) -> Any:
    """A copy with other weights."""
    found = copy.deepcopy(module)
    with torch.no_grad():
        found.down_proj *= factor
    return found


def logits_of(model: Any, ids_BT: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return out


CARRYING = ("glm_moe_dsa",)  # its layers pass on which tokens attention may look at, beside the stream


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in CARRYING])
def test_logits_of_dense_model_and_variants_are_those_of_their_own_forward_passes(name: str) -> None:
    model = build(FAMILIES[name]).eval()
    model.set_experts_implementation("eager")  # grouped products want sizes that are multiples of 8
    walk = Walk(model)
    layers = sorted(walk.experts)
    first, last = (
        {layer: scaled(walk.experts[layer], factor)} for layer, factor in ((layers[0], 3.0), (layers[-1], -2.0))
    )
    variants = [first, last, *([first | last] if len(layers) > 1 else [])]
    ids_BT = torch.randint(3, 30, (2, 9), generator=torch.Generator().manual_seed(1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ends = walk.run(ids_BT, variants)
    for end_BTH, variant in zip(ends, [{}, *variants], strict=True):
        with walk.replaced(variant):
            expected = logits_of(model, ids_BT)
        torch.testing.assert_close(walk.logits(ids_BT, end_BTH), expected, rtol=0, atol=0)
    found = [walk.logits(ids_BT, end_BTH) for end_BTH in ends]
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert experts_of(model) == walk.experts


def test_streams_are_shared_until_they_differ_and_hold_every_layers_output() -> None:
    model = build(FAMILIES["mixtral"]).eval()
    model.set_experts_implementation("eager")
    walk = Walk(model)
    middle = scaled(walk.experts[1], 2.0)
    variants = [{1: middle}, {1: middle, 2: scaled(walk.experts[2], 2.0)}, {}]
    ids_BT = torch.randint(3, 30, (1, 6), generator=torch.Generator().manual_seed(2))
    members: dict[int, list[list[int]]] = {}
    dense: dict[int, Tensor] = {}

    def on_layer(layer: int, streams: list[Stream]) -> None:
        members[layer] = [stream.members for stream in streams]
        dense[layer] = streams[0].h_BTH

    walk.run(ids_BT, variants, on_layer)
    assert members == {0: [[-1, 0, 1, 2]], 1: [[-1, 2], [0, 1]], 2: [[-1, 2], [0], [1]]}
    with torch.no_grad():
        hidden = model.model(input_ids=ids_BT, output_hidden_states=True).hidden_states
    for layer in (0, 1):  # transformers' last one is after the final norm
        torch.testing.assert_close(dense[layer], hidden[layer + 1], rtol=0, atol=0)


@pytest.mark.parametrize("name", CARRYING)
def test_layers_that_carry_more_than_the_stream_are_refused(name: str) -> None:
    model = build(FAMILIES[name]).eval()
    model.set_experts_implementation("eager")
    with pytest.raises(InputError, match="cannot be followed"):
        Walk(model).run(torch.tensor([[3, 4, 5]]), [])
    assert logits_of(model, torch.tensor([[3, 4, 5]])).isfinite().all()
