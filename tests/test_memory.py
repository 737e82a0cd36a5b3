"""Peak memory follows one stack or --memory, whichever is smaller, never the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

LAYERS, SHAPE = 4, (72, 320, 512)  # 12 stacks of 23.6 MB in bf16, 283 MB in all
STACK = SHAPE[0] * SHAPE[1] * SHAPE[2] * 2

MEASURE = """
import resource, sys
from pathlib import Path
from diag.models import resolve
from diag.probes.spectra import Settings, run
import tdmoe.blocks
from tdmoe.architecture import architecture
from tdmoe.blocks import plan_blocks
from tdmoe.checkpoint import Checkpoint
from tdmoe.families import PROJECTIONS
from tdmoe.locate import open_stack

tdmoe.blocks.BLOCK_WEIGHTS = 1 << 20

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def every(folder, memory):
    planned = 0
    with Checkpoint(folder) as checkpoint:
        arch = architecture(checkpoint.config)
        for layer in arch.layers:
            for projection in PROJECTIONS:
                stack = open_stack(checkpoint, arch, layer, projection)
                planned = max(planned, plan_blocks(stack, memory).peak_bytes)
                run(stack, Settings(memory=memory), device="cpu", seed=0, model="x")
    return planned

every(resolve("mini").folder, 10**9)  # libraries loaded, threads started
before = peak()
planned = every(Path(sys.argv[1]), int(sys.argv[2]))
print(peak() - before, planned)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    experts, outputs, inputs = SHAPE
    config = {"model_type": "qwen3_moe", "num_hidden_layers": LAYERS, "num_experts": experts}
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": inputs, "moe_intermediate_size": outputs}))
    weight_map = {}
    for layer in range(LAYERS):
        tensors = {}
        for e in range(experts):
            prefix = f"model.layers.{layer}.mlp.experts.{e}."
            W_OI = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(e)).bfloat16()
            tensors |= {f"{prefix}gate_proj.weight": W_OI, f"{prefix}up_proj.weight": W_OI.flip(0)}
            tensors[f"{prefix}down_proj.weight"] = W_OI.T.contiguous()
        shard = f"model-{layer + 1:05d}-of-{LAYERS:05d}.safetensors"
        save_file(tensors, folder / shard)
        weight_map |= dict.fromkeys(tensors, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("memory", [10**9, STACK // 8])
def test_peak_memory(model: Path, memory: int) -> None:
    pytest.importorskip("resource")
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(model), str(memory)], capture_output=True, text=True, check=True
    )
    grown, planned = map(int, result.stdout.split())
    assert grown <= 1.1 * planned + 20e6  # 20 MB for the allocator's own
    assert planned <= min(STACK, memory) + 32e6  # the Grams, and two blocks of 2^20 weights in float64
    assert grown < LAYERS * 3 * STACK / 3
