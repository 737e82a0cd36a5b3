"""`tdmoe-diag models`: what it lists, what it tells of a checkpoint, and the reason for a refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import GATE, Result, drop, put
from tiny import plain_checkpoint, read_json, read_tensors, write_checkpoint, write_json

from diag.models.describe import describe
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.families import FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_family_is_listed(tool: Callable[..., Result]) -> None:
    result = tool("models")
    assert result.code == 0 and result.err == ""
    words = set(re.findall(r"[\w.-]+", result.out))
    assert {t for family in FAMILIES for t in family.model_types} <= words


def test_a_checkpoint_is_described_from_its_headers(tool: Callable[..., Result], model: Path) -> None:
    result = tool("models", "--model", model)
    assert result.code == 0
    text = re.sub(r"[ │]+", " ", result.out)
    for line in (
        *("family Qwen3-MoE (qwen3_moe)", "MoE layers 1-2 (2 of 3)", "experts a layer 3", "hidden size 8"),
        *("expert width 6", "supported yes", "gate 1-2 3 x 6 x 8 bfloat16 288 B", "down 1-2 3 x 8 x 6 bfloat16 288 B"),
    ):
        assert line in text
    whole = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    assert f"experts 1.7 kB of {whole / 1000:.1f} kB in all" in text


def test_sizes_count_scales_and_one_projection_of_a_shared_tensor_only(tmp_path: Path) -> None:
    """GPT-OSS in MXFP4: gate and up share blocks (E, 2 O, I / 32, 16) and scales (E, 2 O, I / 32)."""
    experts, hidden, width = 3, 64, 32
    config = {"model_type": "gpt_oss", "num_hidden_layers": 1, "hidden_size": hidden, "intermediate_size": width}
    table = {}
    for name, rows, columns in (("gate_up", 2 * width, hidden), ("down", hidden, width)):
        prefix = f"model.layers.0.mlp.experts.{name}_proj"
        table[f"{prefix}_blocks"] = torch.zeros(experts, rows, columns // 32, 16, dtype=torch.uint8)
        table[f"{prefix}_scales"] = torch.zeros(experts, rows, columns // 32, dtype=torch.uint8)
        table[f"{prefix}_bias"] = torch.zeros(experts, rows, dtype=torch.bfloat16)
    write_checkpoint(tmp_path / "m", config | {"num_local_experts": experts}, table)
    with Checkpoint(tmp_path / "m") as checkpoint:
        groups = {group.projection: group for group in describe(checkpoint).groups}
    each = experts * width * hidden * 17 // 32  # half a byte a weight, a byte for 32
    assert {name: group.nbytes for name, group in groups.items()} == {"gate": each, "up": each, "down": each}
    assert groups["down"].shape == (experts, hidden, width) and groups["gate"].encoding == "mxfp4"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (put(GATE, lambda t: t[:5]), r"shape is \[5, 8\]"),
        (put(GATE, lambda t: t.to(torch.int8)), "stored as I8; readable"),
        (drop(r"layers\.2\.mlp\.experts"), "layer 2: no expert weights"),
    ],
)
def test_a_refusal_has_its_reason(
    tool: Callable[..., Result], model: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(model)
    result = tool("models", "--model", model)
    assert result.code == 2
    assert re.search(rf"supported +no: .*{reason}", result.out)
    assert "family           Qwen3-MoE (qwen3_moe)" in result.out


def test_an_unknown_architecture_is_refused_with_what_is_known(tool: Callable[..., Result], model: Path) -> None:
    write_json(model / "config.json", read_json(model / "config.json") | {"model_type": "dbrx"})
    result = tool("models", "--model", model)
    assert result.code == 2 and "dbrx" in result.err and "flattened into one matrix" in result.err


def test_layers_that_differ_are_told_apart(tmp_path: Path) -> None:
    config, tensors = plain_checkpoint()
    tensors = {k: t.half() if "layers.2" in k and "experts" in k else t for k, t in tensors.items()}
    with Checkpoint(write_checkpoint(tmp_path / "m", config, tensors)) as checkpoint:
        groups = [(g.projection, g.layers, g.encoding) for g in describe(checkpoint).groups]
    assert groups[:2] == [("gate", (1,), "bfloat16"), ("gate", (2,), "float16")]
    assert len(read_tensors(tmp_path / "m")) == len(tensors)
