"""Angle, norm, routing: against planted rotations, scipy, numpy; and of models whose streams are turned on purpose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from tiny import single_thread
from torch import Tensor, nn
from zoo import EXPERTS, FAMILIES, HIDDEN, build

from diag.lockstep.runner import Lockstep
from diag.lockstep.walk import Walk
from diag.probes.drift.routing import Routing, watching
from diag.probes.drift.statistics import QUANTITIES, Sums, agreement, compared, js_distance
from diag.statistics.streams import angles, norm_ratios


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def turned(x_BTH: Tensor, degrees: float) -> Tensor:
    """Every vector turned by that angle: pairs of coordinates as planes."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    a, b = x_BTH[..., ::2], x_BTH[..., 1::2]
    return torch.stack([angle.cos() * a - angle.sin() * b, angle.sin() * a + angle.cos() * b], -1).flatten(-2)


@pytest.mark.parametrize("degrees", [0.0, 1e-9, 1e-5, 0.3, 33.0, 90.0, 135.0, 179.99999, 180.0])
def test_angles_are_exact_however_small(degrees: float) -> None:
    x_BTH = torch.randn(2, 5, 14, generator=generator(), dtype=torch.float64) * torch.logspace(-3, 6, 5)[:, None]
    found = angles(x_BTH, 7.5 * turned(x_BTH, degrees))
    torch.testing.assert_close(found, torch.full_like(found, degrees), rtol=1e-6, atol=3e-14)


def test_norm_ratios_and_vectors_without_direction() -> None:
    x_BTH = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]])
    y_BTH = torch.tensor([[[0.0, 2.5], [1.0, 0.0], [torch.inf, 0.0], [0.0, 0.0]]])
    assert norm_ratios(x_BTH, y_BTH)[0].nan_to_num(-1).tolist() == [0.5, -1, -1, 0]
    assert angles(x_BTH, y_BTH).isnan()[0].tolist() == [False, True, True, True]


def test_router_distance_is_scipys_and_zero_only_for_the_same() -> None:
    p_NE, q_NE = (4 * torch.randn(50, 9, generator=generator(seed), dtype=torch.float64) for seed in (1, 2))
    p_NE[0], q_NE[0] = torch.tensor([900.0] + [0.0] * 8), torch.tensor([0.0] * 8 + [900.0])
    found = js_distance(p_NE, q_NE)
    expected = jensenshannon(p_NE.softmax(1).numpy(), q_NE.softmax(1).numpy(), axis=1, base=2)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    assert found[0] == 1
    assert js_distance(p_NE, p_NE.clone()).eq(0).all()
    assert js_distance(p_NE, p_NE + torch.nan).isnan().all()


def test_agreement_is_the_share_of_the_first_ones_experts() -> None:
    a = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]], dtype=torch.bool)
    b = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    assert agreement(a, b).tolist() == [1.0, 0.5, 0.0]


def test_running_sums_are_the_mean_and_its_standard_error_over_windows() -> None:
    draws = np.random.default_rng(3)
    windows_WQ = 1e6 + draws.normal(size=(11, len(QUANTITIES)))
    windows_WQ[:, 2] = np.nan
    sums = Sums.empty(3, 2)
    for batch in np.split(windows_WQ, [4, 5]):
        sums.add([0, 2], 1, batch)
    sums.add([1], 1, windows_WQ[:1])
    for variant in (0, 2):
        for q, (mean, stderr) in enumerate(sums.means(variant, 1)):
            if q == 2:
                assert (mean, stderr) == (None, None)
            else:
                assert mean == pytest.approx(windows_WQ[:, q].mean(), rel=1e-14)
                assert stderr == pytest.approx(windows_WQ[:, q].std(ddof=1) / np.sqrt(11), rel=1e-8)
    assert sums.means(1, 1)[0] == (windows_WQ[0, 0], None)
    assert sums.means(0, 0)[0] == (None, None)


def test_routing_that_cannot_be_compared_is_not_a_number() -> None:
    x_BTH = torch.randn(2, 3, 4, generator=generator())
    chosen, logits = torch.ones(6, 5, dtype=torch.bool), torch.zeros(6, 5)
    found = compared(x_BTH, x_BTH, Routing(chosen, logits), Routing(chosen[:, :4], None))
    assert np.isnan(found).tolist() == [[False, False, True, True]] * 2
    assert np.isnan(compared(x_BTH, x_BTH, Routing(chosen, logits), Routing(chosen, logits))).sum() == 0


def measured(dense: Any, others: list[Any], variants: list[Any], ids_BT: Tensor) -> Sums:
    """Variants, then other models, in lockstep with the dense one."""
    own, *walks = [Walk(model, watch=watching(model)) for model in (dense, *others)]
    sums = Sums.empty(len(variants) + len(others), len(own.layers))
    Lockstep(own, [*variants, *walks], 2).observe(ids_BT, 0, sums, lambda step: None)
    return sums


@pytest.fixture(scope="module")
def mixtral() -> Any:
    model = build(FAMILIES["mixtral"], torch.float64).eval()
    model.set_experts_implementation("eager")
    return model


@pytest.mark.parametrize("degrees", [1e-4, 12.345, 120.0])
def test_a_rotation_and_a_stretch_after_a_layer_are_measured_there(mixtral: Any, degrees: float) -> None:
    other = copy.deepcopy(mixtral)
    handle = other.model.layers[1].register_forward_hook(lambda m, i, out: 1.75 * turned(out, degrees))
    ids_BT = torch.randint(3, 60, (3, 9), generator=generator())
    sums = measured(mixtral, [other], [], ids_BT)
    handle.remove()
    assert [sums.means(0, 0)[q][0] for q in range(4)] == [0.0, 1.0, 1.0, 0.0]
    (angle, angle_error), (ratio, _), (same, _), (distance, _) = sums.means(0, 1)
    assert angle == pytest.approx(degrees, abs=1e-9) and angle_error == pytest.approx(0, abs=1e-9)
    assert ratio == pytest.approx(1.75, rel=1e-12)
    assert (same, distance) == (1.0, 0.0)  # the router reads the stream before it is turned
    after = sums.means(0, 2)
    assert after[0][0] is not None and after[0][0] > 0 and after[3][0] is not None and after[3][0] > 0


class Weighted(nn.Module):
    """Experts whose output is stretched."""

    def __init__(self, experts: nn.Module, factor: float) -> None:
        super().__init__()
        self.experts, self.factor = experts, factor
        self.down_proj = experts.down_proj

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self.factor * self.experts(*arguments, **named)


def test_identity_is_no_drift_and_other_experts_are(mixtral: Any) -> None:
    experts = Walk(mixtral).experts
    variants = [{1: Weighted(experts[1], 1.0)}, {}, {1: Weighted(experts[1], 3.0)}]
    sums = measured(mixtral, [copy.deepcopy(mixtral)], variants, torch.randint(3, 60, (5, 9), generator=generator()))
    for variant in (0, 1, 3):
        for layer in range(3):
            assert sums.means(variant, layer) == [(0.0, 0.0), (1.0, 0.0), (1.0, 0.0), (0.0, 0.0)]
    assert sums.means(2, 0)[0] == (0.0, 0.0)
    assert all(sums.means(2, layer)[0][0] > 0 for layer in (1, 2))  # type: ignore[operator]


CASES = ("qwen2_moe", "gpt_oss", "deepseek_v3", "llama4", "minimax", "hunyuan_v1_moe", "afmoe", "granitemoe", "jamba")


@pytest.mark.parametrize("name", CASES)
def test_routers_show_their_logits_and_choices(name: str) -> None:
    """Choices of top-k; logits that are no probabilities, and whose order agrees where the choice is a plain top-k."""
    family = FAMILIES[name]
    model = build(family, torch.float32).eval()
    model.set_experts_implementation("eager")
    walk = Walk(model, watch=watching(model))
    for layer, _, streams in walk.steps([torch.randint(3, 60, (2, 7), generator=generator())]):
        seen: Routing = streams[0].seen
        if layer not in family.moe_layers:
            assert seen == Routing(None, None)
            continue
        assert seen.chosen_TE is not None and seen.logits_TE is not None
        assert seen.chosen_TE.shape == seen.logits_TE.shape == (14, EXPERTS)
        assert (seen.chosen_TE.sum(1) == 2).all()
        assert float(seen.logits_TE.min()) < 0
        if name not in ("deepseek_v3", "afmoe"):  # these correct the choice by a bias
            best = torch.zeros_like(seen.chosen_TE).scatter_(1, seen.logits_TE.topk(2).indices, True)
            assert torch.equal(seen.chosen_TE, best)


def plain_loop(dense: Any, other: Any, ids_WT: Tensor, collect: Callable[[Any, Tensor], list[Tensor]]) -> np.ndarray:
    """Mean angle by layer, from all hidden states at once."""
    pairs = zip(collect(dense, ids_WT), collect(other, ids_WT), strict=True)
    cosines = [torch.cosine_similarity(x.double(), y.double(), dim=-1).clamp(-1, 1) for x, y in pairs]
    return np.array([float(c.arccos().rad2deg().mean()) for c in cosines])


def test_two_models_measured_as_by_a_plain_loop_over_their_hidden_states(mixtral: Any) -> None:
    other = copy.deepcopy(mixtral)
    with torch.no_grad():
        for layer in other.model.layers:
            layer.self_attn.q_proj.weight *= 1.5
            layer.mlp.experts.down_proj *= 0.8
    ids_WT = torch.randint(3, 60, (5, 9), generator=generator())

    def collect(model: Any, ids: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return list(model.model(input_ids=ids, output_hidden_states=True).hidden_states)[1:-1]

    expected = plain_loop(mixtral, other, ids_WT, collect)
    sums = measured(mixtral, [other], [], ids_WT)
    assert [sums.means(0, layer)[0][0] for layer in (0, 1)] == pytest.approx(expected, rel=1e-10)
    assert expected.min() > 0.5 and mixtral.config.hidden_size == HIDDEN
