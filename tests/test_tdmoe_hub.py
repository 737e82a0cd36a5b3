"""A checkpoint in our format, written by hand, through plain from_pretrained of every family."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_modules import dense_of, specs_of
from tiny import read_json, single_thread, write_json
from zoo import FAMILIES, build, experts_of, load, save

import tdmoe.hub
from tdmoe.runtime.modules import factorise


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def compressed(name: str, folder: Path, layout: str = "original") -> tuple[Any, Path]:
    """(model with the first MoE layer factored, folder it was written to by hand)."""
    family = FAMILIES[name]
    model = build(family)
    save(model, folder, fused=layout == "fused", shard_size=10**9)
    layer = family.moe_layers[0]
    (path,) = [n for n, m in model.named_modules() if m is experts_of(model)[layer]]
    factorise(experts_of(model)[layer], specs_of("gate", "up", "down"))
    generator = torch.Generator().manual_seed(3)
    tensors = load_file(folder / "model.safetensors")
    expert_weight = re.compile(
        rf"layers\.{layer}\..*(\.experts\..*proj|\.w[123]|block_sparse_moe\.\w+_linear)(\.weight)?$"
    )
    dense = [n for n in tensors if expert_weight.search(n) and "shared" not in n]
    assert dense
    for n in dense:
        del tensors[n]
    with torch.no_grad():
        for n, p in experts_of(model)[layer].named_parameters():
            if "bias" not in n:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
                tensors[f"{path}.{n}"] = p.detach().clone()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = read_json(folder / "config.json")
    experts = {str(layer): specs_of("gate", "up", "down")}
    config["quantization_config"] = {"quant_method": "tdmoe", "version": 1, "experts": experts}
    write_json(folder / "config.json", config)
    return model, folder


# Not those whose own loading needs more than a name: see FAMILIES
@pytest.mark.parametrize(
    "name", [n for n, f in FAMILIES.items() if n not in ("llama4", "gpt_oss_square") and not f.vision]
)
def test_from_pretrained_loads_the_factors(name: str, tmp_path: Path) -> None:
    model, folder = compressed(name, tmp_path, FAMILIES[name].layouts[0])
    loaded = load(FAMILIES[name], folder).eval()
    layer = FAMILIES[name].moe_layers[0]
    for part in ("gate", "up", "down"):
        assert torch.equal(dense_of(experts_of(loaded)[layer], part), dense_of(experts_of(model)[layer].float(), part))
    ids = torch.randint(3, 60, (1, 9), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        expected = model.float().eval()(input_ids=ids, use_cache=False).logits
        found = loaded(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_it_saves_what_it_loaded_and_generates(tmp_path: Path) -> None:
    _, folder = compressed("qwen3_moe", tmp_path / "a")
    first = load(FAMILIES["qwen3_moe"], folder)
    first.save_pretrained(tmp_path / "b")
    again = load(FAMILIES["qwen3_moe"], tmp_path / "b")
    tokens = [m.generate(torch.tensor([[5, 9, 3]]), max_new_tokens=4, do_sample=False) for m in (first, again)]
    assert tokens[0].shape == (1, 7) and torch.equal(*tokens)
    config = json.loads((tmp_path / "b" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "tdmoe" and config["experts"]["0"]["gate"]["kind"] == "tucker"


def test_a_fresh_process_needs_the_import_and_nothing_else(tmp_path: Path) -> None:
    _, folder = compressed("mixtral", tmp_path)
    code = (
        "import tdmoe.hub; from transformers import AutoModelForCausalLM; import sys; "
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); print(type(m.model.layers[0].mlp.experts).__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "FactoredExperts", result.stderr


def test_another_version_is_refused() -> None:
    with pytest.raises(tdmoe.hub.InputError, match="version is 2, this tdmoe reads 1; install"):
        tdmoe.hub.TdmoeConfig({}, version=2)
