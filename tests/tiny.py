"""Pico models of every family, built in code, and a writer of checkpoints that hold anything a test wants.

A family is one row of FAMILIES. Hidden size, expert width and number of experts all differ, so that no transposed or
misaddressed tensor fits by accident; the one square row is there because GPT-OSS itself is square.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialized
from torch import Tensor
from torch.nn.functional import silu

INDEX = "model.safetensors.index.json"
HIDDEN, WIDTH, EXPERTS, LAYERS = 24, 20, 7, 3
SHARD_BYTES = 8_000  # less than the experts of one projection of one layer take in bf16 (6,720 and its neighbours)

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


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate) * up


def clamped_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """GPT-OSS: both clamped at 7 (the gate from above only), a sigmoid of slope 1.702, one added to up."""
    gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    return (up + 1.0) * gate * torch.sigmoid(1.702 * gate)


@dataclass(frozen=True)
class TinyFamily:
    """`prefix` is the transformers class name without Config / ForCausalLM; `width_field` its spelling of the width."""

    prefix: str
    fields: Mapping[str, Any]
    width_field: str = "moe_intermediate_size"
    width: int = WIDTH
    moe_layers: tuple[int, ...] = (0, 1, 2)
    layouts: tuple[str, ...] = ("per-expert", "fused")
    activation: Callable[[Tensor, Tensor], Tensor] = swiglu

    def shape(self, projection: str) -> tuple[int, int, int]:
        """(experts, output, input)."""
        return (EXPERTS, HIDDEN, self.width) if projection == "down" else (EXPERTS, self.width, HIDDEN)


COMMON = {
    "vocab_size": 64,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
}
HEADS = {"num_key_value_heads": 1, "head_dim": 12}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}

FAMILIES: dict[str, TinyFamily] = {
    "qwen3_moe": TinyFamily(
        "Qwen3Moe",
        {**HEADS, "num_experts": EXPERTS, "intermediate_size": 40, "mlp_only_layers": [1]},
        moe_layers=(0, 2),
    ),
    "mixtral": TinyFamily("Mixtral", {**HEADS, "num_local_experts": EXPERTS}, width_field="intermediate_size"),
    "gpt_oss": TinyFamily(
        "GptOss",
        {**HEADS, "num_local_experts": EXPERTS},
        width_field="intermediate_size",
        layouts=("fused",),
        activation=clamped_swiglu,
    ),
    "gpt_oss_square": TinyFamily(
        "GptOss",
        {**HEADS, "num_local_experts": EXPERTS},
        width_field="intermediate_size",
        width=HIDDEN,
        layouts=("fused",),
        activation=clamped_swiglu,
    ),
    "deepseek_v3": TinyFamily(
        "DeepseekV3",
        {
            **LATENT,
            **{"n_routed_experts": EXPERTS, "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
            **{"num_key_value_heads": 2, "intermediate_size": 40, "first_k_dense_replace": 1},
        },
        moe_layers=(1, 2),
    ),
}
CHECKPOINTS = [(name, layout) for name, family in FAMILIES.items() for layout in family.layouts]


def build(family: TinyFamily, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Any:
    """The transformers model with every parameter drawn at random, biases and router corrections too."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    fields = {**COMMON, **family.fields, family.width_field: family.width}
    config = getattr(transformers, f"{family.prefix}Config")(**fields)
    model = getattr(transformers, f"{family.prefix}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


def save(model: Any, folder: Path, *, fused: bool, shard_size: int = SHARD_BYTES) -> Path:
    """Write the model in one of the two disk layouts of transformers 5: experts fused, or as first published."""
    model.save_pretrained(folder, save_original_format=not fused, max_shard_size=shard_size)
    return folder


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
