"""Models walked layer by layer, their experts never in memory together: the same numbers as from the whole model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_quantised import deepseek, gpt_oss
from tiny import read_json, single_thread, write_checkpoint
from torch import Tensor
from zoo import FAMILIES, build, experts_of, save, transpose_experts

import tdmoe.hub  # noqa: F401
from diag.lockstep.layer_experts import LayerExperts
from diag.lockstep.walk import Walk
from diag.models.model import resolve
from diag.models.transformer import load_model
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import architecture

# one a layout, and families that name, transpose or tie something of their own
CASES = [
    *(("qwen3_moe", "original"), ("qwen3_moe", "fused"), ("mixtral", "original"), ("gpt_oss", "fused")),
    *(("deepseek_v3", "original"), ("granitemoe", "original"), ("llama4", "fused"), ("qwen3_vl_moe", "original")),
    *(("jamba", "original"), ("qwen4_exp", "original"), ("glm4v_moe", "fused"), ("minimax", "original")),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def ends(folder: Path, ids_BT: Tensor, *, hollow: bool, memory: int = 5_000) -> tuple[Tensor, Any]:
    """The last layer's output, and the model."""
    model = resolve(str(folder))
    files = model.files()
    loaded = load_model(model, files, "cpu", "float32", hollow=hollow)
    loaded.set_experts_implementation("eager")
    walk = Walk(loaded)
    with Checkpoint(files) as checkpoint:
        if hollow:
            walk.resident = LayerExperts(walk, checkpoint, architecture(checkpoint.config), memory).resident
        return walk.run(ids_BT, [])[0], loaded


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_every_familys_stream_is_that_of_the_whole_model(name: str, layout: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    folder = save(build(family), tmp_path / "model", fused=layout == "fused")
    if family.input_major == layout == "original":
        transpose_experts(folder)
    ids_BT = torch.randint(3, 30, (2, 9), generator=torch.Generator().manual_seed(1))
    (expected, whole), (found, hollow) = (ends(folder, ids_BT, hollow=hollow) for hollow in (False, True))
    assert torch.equal(found, expected)
    for module in experts_of(hollow).values():
        for weight in (module.gate_up_proj, module.down_proj):
            assert weight.untyped_storage().nbytes() == weight.itemsize  # of one number
    parameters = dict(whole.named_parameters())
    ours = dict(hollow.named_parameters())
    missing = set(parameters) - set(ours)
    assert missing and all(name.endswith(("experts.gate_up_proj", "experts.down_proj")) for name in missing)
    assert all(torch.equal(parameters[name], tensor) for name, tensor in ours.items())


def test_experts_packed_in_four_bits_are_decoded_layer_by_layer(tmp_path: Path) -> None:
    folder, decoded = gpt_oss(tmp_path)
    config = {key: value for key, value in read_json(folder / "config.json").items() if key != "quantization_config"}
    plain = write_checkpoint(tmp_path / "plain", config, decoded)
    ids_BT = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    expected, found = (ends(path, ids_BT, hollow=path == folder)[0] for path in (plain, folder))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_other_weights_in_eight_bits_are_refused(tmp_path: Path) -> None:
    folder, _ = deepseek(tmp_path)
    with pytest.raises(InputError, match=r"quant_method is fp8; such a model is not walked layer by layer, give"):
        ends(folder, torch.tensor([[3, 4]]), hollow=True)
