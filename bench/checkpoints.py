"""Synthetic checkpoints of published shapes, sharded and ordered as on the hub: gate, up, down of expert 0, 1, ..."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

INDEX = "model.safetensors.index.json"
CHUNK = 16 << 20
MINI = Path(__file__).parents[1] / "diag" / "assets" / "mini"


@dataclass(frozen=True)
class Shape:
    """Experts, expert width and hidden size of a model, and how it is stored: bf16, fp8 or mxfp4 (GPT-OSS)."""

    model_type: str
    experts: int
    width: int
    hidden: int
    encoding: str = "bf16"

    @property
    def config(self) -> dict[str, object]:
        width = "intermediate_size" if self.encoding == "mxfp4" else "moe_intermediate_size"
        counts = {"num_local_experts": self.experts, width: self.width, "hidden_size": self.hidden}
        return {"model_type": self.model_type, **counts}

    @property
    def weights(self) -> int:
        """Of one stack."""
        return self.experts * self.width * self.hidden


QWEN3_30B = Shape("qwen3_moe", 128, 768, 2048)
QWEN3_QUARTER = Shape("qwen3_moe", 32, 768, 2048)
DEEPSEEK_V3 = Shape("deepseek_v3", 256, 2048, 7168, "fp8")
TINY = Shape("qwen3_moe", 8, 24, 32)


def write(folder: Path, shape: Shape, layers: int = 1, projections: tuple[str, ...] = ("gate", "up", "down")) -> Path:
    """One shard a layer. Weights are Gaussian under a power-law column scale, so that spectra have something to fit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**shape.config, "num_hidden_layers": layers}))
    weight_map: dict[str, str] = {}
    for layer in range(layers):
        shard = f"model-{layer + 1:05d}-of-{layers:05d}.safetensors"
        prefix = f"model.layers.{layer}.mlp.experts."
        tensors = {
            f"{prefix}{e}.{p}_proj.weight{suffix}": tensor
            for e in range(0 if shape.encoding == "mxfp4" else shape.experts)
            for p in projections
            for suffix, tensor in _expert(shape, p, seed=(layer * shape.experts + e) * 3 + len(p))
        }
        if shape.encoding == "mxfp4":
            tensors |= {prefix + name: tensor for name, tensor in _packed(shape, seed=layer)}
        save_file(tensors, folder / shard)
        weight_map |= dict.fromkeys(tensors, shard)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def write_runnable(folder: Path, shape: Shape) -> Path:
    """One layer of such experts that can be run: mini's tokenizer; attention, router and head drawn at random."""
    write(folder, shape)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(MINI / name, folder)
    config = json.loads((MINI / "config.json").read_text()) | shape.config | {"num_hidden_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    hidden, head, layer = shape.hidden, config["head_dim"], "model.layers.0."
    queries, keys = (head * config[f"num_{name}_heads"] for name in ("attention", "key_value"))
    sizes = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        f"{layer}mlp.gate.weight": (shape.experts, hidden),
        **{f"{layer}self_attn.{n}_proj.weight": (o, hidden) for n, o in (("q", queries), ("k", keys), ("v", keys))},
        f"{layer}self_attn.o_proj.weight": (hidden, queries),
        **{f"{layer}self_attn.{name}_norm.weight": (head,) for name in "qk"},
        **{f"{layer}{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")},
        "model.norm.weight": (hidden,),
    }
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: (torch.ones(size) if len(size) == 1 else 0.05 * torch.randn(size, generator=generator)).bfloat16()
        for name, size in sizes.items()
    }
    save_file(tensors, folder / "dense.safetensors")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] |= dict.fromkeys(tensors, "dense.safetensors")
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def _expert(shape: Shape, projection: str, seed: int) -> Iterator[tuple[str, Tensor]]:
    rows, columns = (shape.hidden, shape.width) if projection == "down" else (shape.width, shape.hidden)
    generator = torch.Generator().manual_seed(seed)
    W_OI = torch.randn(rows, columns, generator=generator)
    W_OI *= 0.05 * torch.arange(1, columns + 1) ** -0.2
    if shape.encoding == "bf16":
        yield "", W_OI.bfloat16()
        return
    scale = 0.001 * (1 + torch.rand(-(-rows // 128), -(-columns // 128), generator=generator))
    W_OI /= scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
    yield "", W_OI.to(torch.float8_e4m3fn)
    yield "_scale_inv", scale


def _packed(shape: Shape, seed: int) -> Iterator[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for name, rows, columns in (("gate_up", 2 * shape.width, shape.hidden), ("down", shape.hidden, shape.width)):
        blocks = torch.randint(256, (shape.experts, rows, columns // 32, 16), dtype=torch.uint8, generator=generator)
        yield f"{name}_proj_blocks", blocks
        yield f"{name}_proj_scales", torch.randint(115, 125, blocks.shape[:3], dtype=torch.uint8, generator=generator)
        yield f"{name}_proj_bias", torch.zeros(shape.experts, rows, dtype=torch.bfloat16)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def forget(folder: Path) -> bool:
    """Drop the shards from the page cache, so that the disk itself is read; False where the system cannot."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in shards(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True


def read_plainly(path: Path) -> int:
    """A plain sequential read of a file; bytes read."""
    buffer, total = memoryview(bytearray(CHUNK)), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total
