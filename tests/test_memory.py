"""Peak memory follows one stack or --memory, whichever is smaller, never the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planted import write_stack
from processes import command
from safetensors.torch import save_file

LAYERS, SHAPE = 4, (72, 320, 512)  # 12 stacks of 23.6 MB in bf16, 283 MB in all
STACK = SHAPE[0] * SHAPE[1] * SHAPE[2] * 2

MEASURE = """
import resource, sys
from pathlib import Path
from diag.models.model import resolve
from diag.probes.spectra.measure import Settings, run
import tdmoe.stacks.blocks
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import plan_blocks
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.families import PROJECTIONS
from tdmoe.stacks.locate import open_stack

tdmoe.stacks.blocks.BLOCK_WEIGHTS = 1 << 20

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


MOBE = """
import resource, sys
from pathlib import Path
import torch
import tdmoe.stacks.blocks
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockReader
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.locate import open_stack
from tdmoe.methods import Allotment, StackStatistics, parse

tdmoe.stacks.blocks.BLOCK_WEIGHTS = 1 << 17
folder, small, spec = sys.argv[1:]
method, options = parse(spec)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def compress(folder):
    with Checkpoint(Path(folder)) as checkpoint:
        reader = BlockReader(open_stack(checkpoint, architecture(checkpoint.config), 0, "gate"), 10**9)
        C_II = torch.eye(reader.stack.shape[2], dtype=torch.float64) + 0.1
        method.compress(reader, options, Allotment(0.4), StackStatistics(C_II), device="cpu")
        return reader.plan.peak_bytes + method.memory(reader.stack.shape, options, 0.4)

compress(small)
before = peak()
planned = compress(folder)
print(peak() - before, planned)
"""


@pytest.mark.parametrize(
    "spec",
    [
        "mobe:steps=20",
        "mobe:steps=20,groups=4",
        *(f"mobe:preset=published,whitening={w},steps=3" for w in ("none", "input")),
    ],
)
def test_memory_that_mobe_is_said_to_take(spec: str, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    generator = torch.Generator().manual_seed(0)
    shapes = {"model": (24, 128, 256), "small": (6, 10, 14)}
    folders = [
        write_stack(tmp_path / n, torch.randn(s, generator=generator), torch.bfloat16) for n, s in shapes.items()
    ]
    result = command(*map(str, folders), spec, code=MOBE)
    assert result.returncode == 0, result.stderr
    grown, planned = map(int, result.stdout.split())
    assert 0.7 < grown / planned < 1.3, (grown, planned)
