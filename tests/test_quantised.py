"""Quantised originals compressed: what is not factored becomes bf16, as transformers or plain arithmetic decodes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import Result
from test_encodings import spread
from tiny import read_json, read_tensors, single_thread, write_checkpoint
from torch import Tensor
from zoo import FAMILIES, build, experts_of, load, save

import tdmoe.hub  # noqa: F401

OPTIONS = ("--tokens", "0", "--whitening", "none", "--ratio", "0.3", "--dense")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def gpt_oss(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """A GPT-OSS whose experts are random MXFP4 blocks; and its bf16 tensors, decoded by transformers."""
    from transformers import GptOssConfig, GptOssForCausalLM
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_local_experts": 6, "num_experts_per_tok": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 12, "num_hidden_layers": 2}
    model = GptOssForCausalLM(GptOssConfig(vocab_size=64, **sizes, **heads)).bfloat16()
    model.save_pretrained(folder / "bf16")
    decoded, packed = read_tensors(folder / "bf16"), {}
    generator = torch.Generator().manual_seed(1)
    for name in [n for n in decoded if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = decoded[name].shape
        shape = (experts, outputs, inputs // 32, 16)
        blocks = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        scales = torch.randint(118, 124, shape[:3], dtype=torch.uint8, generator=generator)
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        decoded[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16)
    plain = {n: t for n, t in decoded.items() if not n.endswith(("gate_up_proj", "down_proj"))}
    config = read_json(folder / "bf16" / "config.json") | {"quantization_config": {"quant_method": "mxfp4"}}
    return write_checkpoint(folder / "quantised", config, plain | packed, shards=2), decoded


def deepseek(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """A DeepSeek-V3 whose every Linear but router and head is FP8 in uneven blocks; and its tensors in bf16."""
    tensors = read_tensors(save(build(FAMILIES["deepseek_v3"]), folder / "bf16", fused=False))
    block, stored, decoded = (7, 5), {}, {}
    generator = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        stored[name] = decoded[name] = tensor
        if "layers." in name and name.endswith("proj.weight"):
            rows, columns = tensor.shape
            scale = 0.01 + torch.rand(-(-rows // block[0]), -(-columns // block[1]), generator=generator)
            stored[name] = (tensor.float() / spread(scale, block, rows, columns)).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = scale
            decoded[name] = (stored[name].float() * spread(scale, block, rows, columns)).bfloat16()
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(block)}
    config = read_json(folder / "bf16" / "config.json") | {"quantization_config": quantization}
    return write_checkpoint(folder / "quantised", config, stored, shards=3), decoded


@pytest.mark.parametrize("made", [gpt_oss, deepseek], ids=["mxfp4", "fp8"])
def test_what_is_not_factored_becomes_bf16(made: Any, tool: Callable[..., Result], tmp_path: Path) -> None:
    model, decoded = made(tmp_path)
    family = FAMILIES["gpt_oss" if made is gpt_oss else "deepseek_v3"]
    layer = 1 if made is gpt_oss else family.moe_layers[-1]
    to = tmp_path / "to"
    options = (*OPTIONS, "--layers", str(layer), "--projections", "gate,down", "--out", tmp_path / "o")
    result = tool("compress", "--model", model, "--to", to, *options)
    assert result.code == 0, result
    assert "of the bits of the model in bf16 saved" in result.out and "MORE bits than it takes as it is" in result.out
    factored, dense = read_tensors(to), read_tensors(to / "dense")
    assert {n: t.shape for n, t in dense.items()} == {n: t.shape for n, t in decoded.items()}
    for name, tensor in dense.items():
        touched = f"layers.{layer}." in name and "experts" in name and "bias" not in name and "shared" not in name
        if not touched or "up_proj" in name.replace("gate_up_proj", ""):
            assert torch.equal(tensor, decoded[name]), name
            assert touched or torch.equal(factored[name], decoded[name]), name
        elif "down" in name:
            assert 0 < float((tensor - decoded[name]).float().norm() / decoded[name].float().norm()) < 0.9, name
    assert "quantization_config" not in read_json(to / "dense" / "config.json")
    about = read_json(to / "tdmoe.json")
    assert about["bits_saved"] < 0 < about["bits_saved_bf16"]
    assert not any(t.dtype == torch.float8_e4m3fn or t.dtype == torch.uint8 for t in factored.values())
    small, exported = load(family, to).eval(), load(family, to / "dense").eval()
    assert type(experts_of(small)[layer]).__name__ == "FactoredExperts"
    ids = torch.randint(3, 60, (1, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = (m(ids, use_cache=False).logits.float() for m in (exported, small))
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.03 * float(expected.abs().max()))
