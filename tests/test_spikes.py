"""Discovery of super weights by their activation spikes, on transformers models with planted ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from tdmoe.problems import InputError, WeightError
from tdmoe.runtime.down_projections import DownProjections, Entry, Site
from tdmoe.runtime.spikes import Watched, discover, watch

pytestmark = pytest.mark.usefixtures("one_thread")
COLUMN, ROWS = 11, (6, 17)  # where super weights are planted: two in one column, as published for Llama-30B
PLANTED = (9.0, -4.0)


def model_of(name: str) -> Any:
    return zoo.build(zoo.FAMILIES[name], torch.float32).eval()


def prompt(tokens: int = 9, seed: int = 0) -> list[Tensor]:
    return [torch.randint(3, 64, (tokens,), generator=torch.Generator().manual_seed(seed))]


def plant(model: Any, site: Site, rows: tuple[int, ...] = ROWS) -> list[Entry]:
    """One very large hidden channel, and weights that pass it on to `rows` alone."""
    W_OI = DownProjections(model).matrix(site)
    W_OI[:, COLUMN] = 1e-4
    for row, value in zip(rows, PLANTED, strict=False):
        W_OI[row, COLUMN] = value
    for gate_up in feeding(model, site):
        gate_up.mul_(300.0)
    return [Entry(site, row, COLUMN) for row in rows]


def feeding(model: Any, site: Site) -> Iterator[Tensor]:
    """The weights that make channel COLUMN of the hidden layer, by the module's own conventions."""
    if site.expert is None:
        mlp = model.model.layers[site.layer].mlp
        mlp = getattr(mlp, "shared_experts", mlp)
        yield from (mlp.gate_proj.weight.data[COLUMN], mlp.up_proj.weight.data[COLUMN])
        return
    experts = zoo.experts_of(model)[site.layer]
    W, width = experts.gate_up_proj.data[site.expert], zoo.WIDTH
    if type(experts).__name__ == "GptOssExperts":
        yield from (W[:, 2 * COLUMN], W[:, 2 * COLUMN + 1])
    elif type(experts).__name__ == "Llama4TextExperts":
        yield from (W[:, COLUMN], W[:, width + COLUMN])
    else:
        yield from (W[COLUMN], W[width + COLUMN])


def routed_expert(model: Any, layer: int, windows: list[Tensor]) -> int:
    """The one that sees most tokens."""
    tokens = watch(DownProjections(model), windows).tokens
    return max((s for s in tokens if s.layer == layer and s.expert is not None), key=lambda s: tokens[s]).expert or 0


def state(model: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged(model: Any, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("family", "layer", "threshold"),
    [("qwen3_moe", 2, 50), ("deepseek_v2", 1, 50), ("gpt_oss", 1, 20), ("llama4", 1, 50), ("mixtral", 0, 50)],
)  # the hidden channels of GPT-OSS end at 56, by its clamps
def test_finds_exactly_the_planted_ones_of_an_expert(family: str, layer: int, threshold: float) -> None:
    model, windows = model_of(family), prompt(tokens=24)
    planted = plant(model, Site(layer, "down", routed_expert(model, layer, windows)))
    before = state(model)
    projections = DownProjections(model)
    first = watch(projections, windows)
    found = discover(projections, windows, threshold)
    assert found == discover(projections, windows, threshold, first=first)
    assert [spike.entry for spike in found] == planted  # one after the other: the second hides behind the first
    assert [round(spike.value, 5) for spike in found] == list(PLANTED)
    assert all(min(abs(spike.input), abs(spike.output)) > threshold for spike in found)
    assert all(abs((spike.share or 0) - 1) < 0.05 for spike in found)  # that weight makes that output
    assert first.strongest()[layer] == found[0]
    assert unchanged(model, before)


@pytest.mark.parametrize(("layer", "projection"), [(0, "down"), (2, "shared_down")])
def test_finds_those_of_dense_layers_and_of_shared_experts(layer: int, projection: str) -> None:
    model, windows = model_of("deepseek_v2" if projection == "down" else "deepseek_v3"), prompt()
    planted = plant(model, Site(layer, projection))
    before = state(model)
    found = discover(DownProjections(model), windows, threshold=50.0)
    assert [spike.entry for spike in found] == planted
    assert unchanged(model, before)


def test_upstream_first_and_no_more_than_asked() -> None:
    model, windows = model_of("deepseek_v2"), prompt()
    dense = plant(model, Site(0))
    routed = plant(model, Site(1, "down", routed_expert(model, 1, windows)))
    found = discover(DownProjections(model), windows, threshold=50.0)
    assert [spike.entry for spike in found][:2] == dense
    assert set(routed) <= {spike.entry for spike in found}
    before = state(model)
    fewer = discover(DownProjections(model), windows, threshold=50.0, most=1)
    assert [spike.entry for spike in fewer] == dense[:1]
    assert unchanged(model, before)


def test_none_where_none_is_planted() -> None:
    model = model_of("qwen3_moe")
    projections = DownProjections(model)
    assert discover(projections, prompt(), threshold=50.0) == []
    assert sorted(watch(projections, prompt()).strongest()) == [0, 1, 2]  # every layer has its strongest all the same


def by_hand(model: Any, layer: int, windows: list[Tensor]) -> dict[int, tuple[Tensor, Tensor]]:
    """{expert: (inputs, outputs) of its down projection}, by the module's own forward pass, one token at a time."""
    experts, seen = zoo.experts_of(model)[layer], []
    handle = experts.register_forward_hook(lambda module, arguments, output: seen.append(arguments))
    with torch.no_grad():
        model(input_ids=windows[0][None])
    handle.remove()
    x_TI, index_TK, _ = seen[0]
    collected: dict[int, list[tuple[Tensor, Tensor]]] = {}
    width = experts.down_proj.shape[2]
    with torch.no_grad():
        for x_I, experts_K in zip(x_TI, index_TK.tolist(), strict=True):
            for e in experts_K:
                y_O = experts(x_I[None], torch.tensor([[e]]), torch.ones(1, 1))[0]
                gate, up = (experts.gate_up_proj[e] @ x_I).split(width)
                collected.setdefault(e, []).append((torch.nn.functional.silu(gate) * up, y_O))
    return {e: (torch.stack([a for a, _ in both]), torch.stack([b for _, b in both])) for e, both in collected.items()}


def test_what_is_watched_is_what_the_experts_compute() -> None:
    model, windows = model_of("mixtral"), prompt(tokens=12)
    watched = watch(DownProjections(model), windows)
    truth = by_hand(model, 1, windows)
    assert {site.expert for site in watched.spikes if site.layer == 1} == set(truth)
    for expert, (h_SI, y_SO) in truth.items():
        site = Site(1, "down", expert)
        spike, mean_square = watched.spikes[site], watched.mean_square(site)
        assert mean_square is not None
        assert torch.allclose(mean_square, h_SI.double().square().mean(0), rtol=1e-4)
        assert abs(spike.input) == pytest.approx(float(h_SI.abs().max()), rel=1e-5)
        assert abs(spike.output) == pytest.approx(float(y_SO.abs().max()), rel=1e-4)
        assert spike.input_ratio == pytest.approx(float(h_SI.abs().max() / h_SI.abs().median()), rel=1e-4)
        assert spike.column == int(h_SI.abs().max(0).values.argmax())
        assert spike.row == int(y_SO.abs().max(0).values.argmax())
    assert watched.mean_square(Site(1, "down", 6 if 6 not in truth else 99)) is None


def test_windows_are_searched_each_by_itself() -> None:
    """The two largest of different windows make no spike."""
    model, (a, b) = model_of("qwen3_moe"), [prompt(seed=s)[0] for s in (1, 2)]
    projections = DownProjections(model)
    both, alone = watch(projections, [a, b]), [watch(projections, [w]) for w in (a, b)]
    for site, spike in both.spikes.items():
        assert spike in [w.spikes[site] for w in alone if site in w.spikes]
        assert both.tokens[site] == sum(w.tokens.get(site, 0) for w in alone)


def test_restored_after_an_error() -> None:
    model = model_of("qwen3_moe")
    before, entry = state(model), Entry(Site(0, "down", 2), 3, 4)
    projections = DownProjections(model)
    with pytest.raises(RuntimeError, match="stop"), projections.zeroed([entry, entry]):
        assert zoo.experts_of(model)[0].down_proj[2, 3, 4].item() == 0.0
        raise RuntimeError("stop")
    assert unchanged(model, before)


def test_wrong_sites_and_models_are_refused() -> None:
    model = model_of("qwen3_moe")
    projections = DownProjections(model)
    for site, said in (
        (Site(0, "down", 7), "expert 7: is no down"),
        (Site(1, "down", 0), "no down"),
        (Site(9), "layer 9"),
    ):
        with pytest.raises(InputError, match=said):
            projections.matrix(site)
    with pytest.raises(InputError, match="no down projections"):
        DownProjections(torch.nn.Sequential(torch.nn.Linear(3, 4)))
    with pytest.raises(InputError, match="float8"):
        DownProjections(model.to(torch.float8_e4m3fn))


def test_activations_that_are_not_finite_are_refused() -> None:
    model = model_of("mixtral")
    zoo.experts_of(model)[0].down_proj.data.fill_(float("inf"))
    with pytest.raises(WeightError, match="layer 0 down, expert"):
        watch(DownProjections(model), prompt())


def test_nothing_watched_is_no_spike() -> None:
    assert Watched().above(50.0, []) is None
