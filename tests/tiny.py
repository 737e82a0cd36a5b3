"""Checkpoints that hold anything a test wants, written and read without our own code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialized
from torch import Tensor

INDEX = "model.safetensors.index.json"
Config = dict[str, Any]


@contextmanager
def single_thread() -> Iterator[None]:
    """One thread for torch: matrices this small only lose time to more, a lot of it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def write_checkpoint(folder: Path, config: Config | None, tensors: Mapping[str, Tensor], shards: int = 1) -> Path:
    """Any tensors as a checkpoint: one file, or `shards` files of as many tensors each, in order, with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        write_json(folder / "config.json", config)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if shards == 1:
        save_file(whole, folder / "model.safetensors")
        return folder
    names, weight_map = list(whole), {}
    for s in range(shards):
        shard = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
        part = names[len(names) * s // shards : len(names) * (s + 1) // shards]
        data = serialized({name: whole[name] for name in part})
        if not (folder / shard).is_file() or (folder / shard).read_bytes() != data:  # a file that stays keeps its time
            (folder / shard).unlink(missing_ok=True)  # tensors read from the old file may still be mapped
            (folder / shard).write_bytes(data)
        weight_map |= dict.fromkeys(part, shard)
    write_json(folder / INDEX, {"metadata": {}, "weight_map": weight_map})
    return folder


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, through the safetensors library."""
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


def read_json(path: Path) -> Config:
    value: Config = json.loads(path.read_text(encoding="utf-8"))
    return value


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def write_shard(path: Path, header: bytes | object, data: bytes = b"", length: int | None = None) -> None:
    """A safetensors file byte by byte: `header` as raw bytes or as JSON, `length` the header length it claims."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)


def plain_checkpoint(
    experts: int = 3, hidden: int = 8, width: int = 6, moe_layers: Sequence[int] = (1, 2), seed: int = 0
) -> tuple[Config, dict[str, Tensor]]:
    """A Qwen3-MoE checkpoint of bf16 noise without transformers: config and tensors, layer 0 dense by default."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(torch.bfloat16)

    depth = max(moe_layers) + 1
    config: Config = {
        "model_type": "qwen3_moe",
        **{"num_hidden_layers": depth, "hidden_size": hidden, "moe_intermediate_size": width},
        **{"num_experts": experts, "intermediate_size": 2 * width, "decoder_sparse_step": 1},
        "mlp_only_layers": [layer for layer in range(depth) if layer not in moe_layers],
        "torch_dtype": "bfloat16",
    }
    tensors = {"model.embed_tokens.weight": noise(16, hidden)}
    for layer in range(depth):
        prefix = f"model.layers.{layer}."
        tensors[prefix + "input_layernorm.weight"] = noise(hidden)
        blocks = [f"experts.{e}." for e in range(experts)] if layer in moe_layers else [""]
        for block in blocks:
            tensors[f"{prefix}mlp.{block}gate_proj.weight"] = noise(width, hidden)
            tensors[f"{prefix}mlp.{block}up_proj.weight"] = noise(width, hidden)
            tensors[f"{prefix}mlp.{block}down_proj.weight"] = noise(hidden, width)
        if layer in moe_layers:
            tensors[f"{prefix}mlp.gate.weight"] = noise(experts, hidden)
    return config, tensors


def whole(config: Config, tensors: Mapping[str, Tensor], vocabulary: int = 16) -> tuple[Config, dict[str, Tensor]]:
    """A `plain_checkpoint` with attention, norms and head: a model that transformers can run."""
    heads, groups, size, hidden = 2, 1, 4, config["hidden_size"]
    config = config | {
        "vocab_size": vocabulary,
        "num_experts_per_tok": 2,
        "head_dim": size,
        "max_position_embeddings": 64,
    }
    config |= {"num_attention_heads": heads, "num_key_value_heads": groups}
    config["intermediate_size"] = next((len(t) for n, t in tensors.items() if n.endswith("mlp.gate_proj.weight")), 9)
    shapes = {"model.embed_tokens": (vocabulary, hidden), "model.norm": (hidden,), "lm_head": (vocabulary, hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + name: (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
        attention = {"q_proj": (heads * size, hidden), "o_proj": (hidden, heads * size)}
        attention |= dict.fromkeys(("k_proj", "v_proj"), (groups * size, hidden))
        attention |= dict.fromkeys(("q_norm", "k_norm"), (size,))
        shapes |= {f"{prefix}self_attn.{name}": shape for name, shape in attention.items()}
    generator = torch.Generator().manual_seed(5)
    drawn = {f"{name}.weight": torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}
    return config, {**drawn, **{name: t for name, t in tensors.items() if "embed_tokens" not in name}}
