"""Zeroing weights of a loaded model: losses against the model's own, pairs, random ones of the same matrices."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
import zoo
from torch import Tensor

from diag.probes.superweights.zeroing import Removal, ablation_rows, beside_random
from diag.statistics.evaluation import model_losses
from tdmoe.runtime.down_projections import DownProjections, Entry, Site

pytestmark = pytest.mark.usefixtures("one_thread")
EXPERT = Site(1, "down", 3)


@pytest.fixture
def model() -> Any:
    return zoo.build(zoo.FAMILIES["deepseek_v2"], torch.float32).eval().requires_grad_(False)


@pytest.fixture
def windows_WT() -> Tensor:
    return torch.randint(3, 64, (5, 16), generator=torch.Generator().manual_seed(0))


def own_losses(model: Any, windows_WT: Tensor) -> Tensor:
    """By transformers' own loss, a window at a time."""
    return torch.tensor([float(model(input_ids=w[None], labels=w[None]).loss) for w in windows_WT]).double()


def test_changes_are_those_of_the_model_with_the_weights_zeroed_by_hand(model: Any, windows_WT: Tensor) -> None:
    entries = [Entry(Site(0), o, i) for o in range(20) for i in range(30)] + [Entry(EXPERT, 5, 7)]
    rows = ablation_rows(DownProjections(model), [Removal("superweight", entries)], windows_WT, "enwik8")
    dense_W = own_losses(model, windows_WT)
    model.model.layers[0].mlp.down_proj.weight[:20, :30] = 0.0
    zoo.experts_of(model)[1].down_proj[3, 5, 7] = 0.0
    change_W = own_losses(model, windows_WT) - dense_W
    dense, zeroed = rows
    assert (dense["group"], dense["zeroed"], zeroed["zeroed"], zeroed["windows"]) == ("dense", 0, 601, 5)
    assert dense["perplexity"] == pytest.approx(math.exp(dense_W.mean()), rel=1e-5)
    assert dense["loss_stderr"] == pytest.approx(float(dense_W.std()) / math.sqrt(5), rel=1e-4)
    assert zeroed["loss_change"] == pytest.approx(float(change_W.mean()), rel=1e-3)
    assert zeroed["loss_change_stderr"] == pytest.approx(float(change_W.std()) / math.sqrt(5), rel=1e-3)
    assert abs(zeroed["loss_change"]) > 1e-4


def test_random_ones_are_as_many_of_the_same_matrices(model: Any) -> None:
    projections = DownProjections(model)
    entries = [Entry(Site(0), 1, 2), Entry(Site(0), 3, 4), Entry(EXPERT, 5, 7)]
    draws = list(beside_random(Removal("superweight", entries), projections, 4, torch.Generator().manual_seed(1)))
    assert draws[0].entries == entries
    assert [draw.draw for draw in draws[1:]] == [0, 1, 2, 3]
    for draw in draws[1:]:
        assert Counter(entry.site for entry in draw.entries) == {Site(0): 2, EXPERT: 1}
        assert draw.group == "random"
        for entry in draw.entries:
            assert projections.matrix(entry.site)[entry.row, entry.column] != 0
    assert len({tuple(draw.entries) for draw in draws[1:]}) == 4


def test_nothing_to_zero_is_a_row_that_says_so(model: Any, windows_WT: Tensor) -> None:
    rows = ablation_rows(DownProjections(model), [Removal("superweight", [])], windows_WT, "enwik8")
    assert rows[1]["status"] == "none_found"
    assert "loss" not in rows[1]


def test_one_window_has_no_standard_error(model: Any, windows_WT: Tensor) -> None:
    (dense,) = ablation_rows(DownProjections(model), [], windows_WT[:1], "enwik8")
    assert dense["loss_stderr"] is None
    assert dense["loss"] == pytest.approx(float(model_losses(model, windows_WT[:1])[0]))


def test_draws_are_averaged_window_by_window(model: Any, windows_WT: Tensor) -> None:
    """The standard error of their mean is over windows, as that of what they stand beside."""
    projections = DownProjections(model)
    removal = Removal("top_magnitude", [Entry(Site(0), o, i) for o in range(20) for i in range(30)], None, 0, "down")
    removals = list(beside_random(removal, projections, 3, torch.Generator().manual_seed(1)))
    *others, mean = ablation_rows(projections, removals, windows_WT, "enwik8")
    assert [row["group"] for row in others] == ["dense", "top_magnitude", "random", "random", "random"]
    change_DW = []
    for draw in removals[1:]:
        with projections.zeroed(draw.entries):
            change_DW.append(own_losses(model, windows_WT))
    change_W = torch.stack(change_DW).mean(0) - own_losses(model, windows_WT)
    assert (mean["group"], mean["layer"], mean["projection"], mean["zeroed"]) == ("random_mean", 0, "down", 600)
    assert mean["loss_change"] == pytest.approx(float(change_W.mean()), rel=1e-3)
    assert mean["loss_change_stderr"] == pytest.approx(float(change_W.std()) / math.sqrt(5), rel=1e-3)
    assert mean["loss_change"] == pytest.approx(sum(row["loss_change"] for row in others[2:]) / 3)
