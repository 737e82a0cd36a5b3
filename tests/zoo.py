"""Pico models of every family, built in code by transformers itself and saved in both of its disk layouts.

A family is one row of FAMILIES. Hidden size, expert width and number of experts all differ, so that no transposed or
misaddressed tensor fits by accident; the one square row is there because GPT-OSS itself is square.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor
from torch.nn.functional import silu

HIDDEN, WIDTH, EXPERTS, LAYERS = 24, 20, 7, 3
SHARD_BYTES = 8_000  # less than the experts of one projection of one layer take in bf16 (6,720 and its neighbours)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return silu(gate) * up


def clamped_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """GPT-OSS: both clamped at 7 (the gate from above only), a sigmoid of slope 1.702, one added to up."""
    gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    return (up + 1.0) * gate * torch.sigmoid(1.702 * gate)


@dataclass(frozen=True)
class TinyFamily:
    """`prefix` is the transformers class name without its ending; `width_field` its spelling of the experts' width.

    A multimodal family has `vision`, the fields of its smallest vision tower; its language model is built inside.
    """

    prefix: str
    fields: Mapping[str, Any]
    width_field: str = "moe_intermediate_size"
    width: int = WIDTH
    moe_layers: tuple[int, ...] = (0, 1, 2)
    layouts: tuple[str, ...] = ("original", "fused")
    activation: Callable[[Tensor, Tensor], Tensor] = swiglu
    vision: Mapping[str, Any] | None = None
    model: str = ""  # class, where it is not PREFIXForCausalLM
    originally_fused: bool = False  # one tensor for all experts of a layer in the published files
    input_major: str = ""  # the layout whose experts lie transposed on disk

    def entries(self, layout: str) -> int:
        """Tensors of a stack."""
        return EXPERTS if layout == "original" and not self.originally_fused else 1

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
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
HEADS = {"num_key_value_heads": 1, "head_dim": 12}
INDEXER = {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 4}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
LINEAR = {"linear_num_heads": 2, "linear_head_dim": 8}
DELTA = {
    **{"linear_num_key_heads": 1, "linear_key_head_dim": 8},
    **{"linear_num_value_heads": 2, "linear_value_head_dim": 12},
}
GROUPS = {"n_group": 1, "topk_group": 1}
NUM, LOCAL, ROUTED = ({name: EXPERTS} for name in ("num_experts", "num_local_experts", "n_routed_experts"))
DENSE = {"intermediate_size": 40}  # width of dense layers
NO_MOE_WIDTH = "intermediate_size"
ROTARY = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 1]}
VISION = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": HIDDEN}

FAMILIES: dict[str, TinyFamily] = {
    "qwen2_moe": TinyFamily(
        "Qwen2Moe", {"num_key_value_heads": 1, **NUM, **DENSE, "shared_expert_intermediate_size": 28}
    ),
    "qwen3_moe": TinyFamily("Qwen3Moe", {**HEADS, **NUM, **DENSE, "mlp_only_layers": [1]}, moe_layers=(0, 2)),
    "qwen3_next": TinyFamily(
        "Qwen3Next", {**HEADS, **DELTA, **NUM, **DENSE, "decoder_sparse_step": 2}, moe_layers=(1,)
    ),
    "mixtral": TinyFamily("Mixtral", {**HEADS, **LOCAL}, NO_MOE_WIDTH),
    "gpt_oss": TinyFamily(
        "GptOss",
        {**HEADS, **LOCAL},
        NO_MOE_WIDTH,
        layouts=("fused",),
        activation=clamped_swiglu,
        input_major="fused",
    ),
    "gpt_oss_square": TinyFamily(
        "GptOss",
        {**HEADS, **LOCAL},
        NO_MOE_WIDTH,
        HIDDEN,
        layouts=("fused",),
        activation=clamped_swiglu,
        input_major="fused",
    ),
    "deepseek_v2": TinyFamily(
        "DeepseekV2", {**LATENT, **ROUTED, **GROUPS, **DENSE, "first_k_dense_replace": 1}, moe_layers=(1, 2)
    ),
    "deepseek_v3": TinyFamily(
        "DeepseekV3",
        {**LATENT, **ROUTED, **GROUPS, **DENSE, "n_shared_experts": 1, "first_k_dense_replace": 1},
        moe_layers=(1, 2),
    ),
    "deepseek_v32": TinyFamily(
        "DeepseekV32",
        {**LATENT, **ROUTED, **GROUPS, **DENSE, **INDEXER, "mlp_layer_types": ["dense", "sparse", "sparse"]},
        moe_layers=(1, 2),
    ),
    "olmoe": TinyFamily("Olmoe", {"num_key_value_heads": 1, **NUM}, NO_MOE_WIDTH),
    "flex_olmo": TinyFamily("FlexOlmo", {"num_key_value_heads": 1, **NUM}, NO_MOE_WIDTH),
    "phimoe": TinyFamily("Phimoe", {"num_key_value_heads": 1, **LOCAL}, NO_MOE_WIDTH),
    "minimax": TinyFamily("MiniMax", {**HEADS, **LOCAL}, NO_MOE_WIDTH),
    "minimax_m2": TinyFamily("MiniMaxM2", {**HEADS, **LOCAL}, NO_MOE_WIDTH),
    "glm4_moe": TinyFamily(
        "Glm4Moe", {**HEADS, **ROUTED, **GROUPS, **DENSE, "first_k_dense_replace": 2}, moe_layers=(2,)
    ),
    "glm4_moe_lite": TinyFamily("Glm4MoeLite", {**LATENT, **ROUTED, **GROUPS, **DENSE}, moe_layers=(1, 2)),
    "glm_moe_dsa": TinyFamily(
        "GlmMoeDsa",
        {**LATENT, **ROUTED, **GROUPS, **DENSE, **INDEXER, "mlp_layer_types": ["dense", "sparse", "sparse"]},
        moe_layers=(1, 2),
    ),
    "bailing_hybrid": TinyFamily(
        "BailingHybrid",
        {**LATENT, **LINEAR, **LOCAL, **GROUPS, **DENSE, "first_k_dense_replace": 1},
        moe_layers=(1, 2),
    ),
    "kimi_linear": TinyFamily("KimiLinear", {**LATENT, **LINEAR, **LOCAL, **GROUPS, **DENSE}, moe_layers=(1, 2)),
    "ernie4_5_moe": TinyFamily(
        "Ernie4_5_Moe", {"num_key_value_heads": 1, **DENSE, "moe_num_experts": EXPERTS}, moe_layers=(1, 2)
    ),
    "dots1": TinyFamily(
        "Dots1",
        {**HEADS, **ROUTED, **GROUPS, **DENSE, "n_shared_experts": 1, "first_k_dense_replace": 1},
        moe_layers=(1, 2),
    ),
    "mimo_v2_flash": TinyFamily("MiMoV2Flash", {**HEADS, **ROUTED, **GROUPS, **DENSE}, moe_layers=(1, 2)),
    "exaone_moe": TinyFamily("ExaoneMoe", {**HEADS, **NUM, **GROUPS, **DENSE}, moe_layers=(1, 2)),
    "hunyuan_v1_moe": TinyFamily("HunYuanMoEV1", {**HEADS, **NUM}, NO_MOE_WIDTH),
    "hy_v3": TinyFamily("HYV3", {**HEADS, **NUM, **DENSE}, moe_layers=(1, 2)),
    "afmoe": TinyFamily("Afmoe", {**HEADS, **NUM, **DENSE, "num_dense_layers": 1}, moe_layers=(1, 2)),
    "solar_open": TinyFamily("SolarOpen", {**HEADS, **ROUTED, **GROUPS}),
    "laguna": TinyFamily("Laguna", {**HEADS, **NUM, **DENSE}, moe_layers=(1, 2)),
    "cohere2_moe": TinyFamily("Cohere2Moe", {**HEADS, **NUM}, NO_MOE_WIDTH),
    "mellum": TinyFamily("Mellum", {**HEADS, **NUM, **DENSE}),
    "beam": TinyFamily(
        "Beam", {**HEADS, **NUM, **GROUPS, **DENSE, "mlp_layer_types": ["dense", "sparse", "sparse"]}, moe_layers=(1, 2)
    ),
    "axk1": TinyFamily("AXK1", {**LATENT, **ROUTED, **GROUPS, **DENSE}, moe_layers=(1, 2)),
    "axk2": TinyFamily("AXK2", {**LATENT, **ROUTED, **GROUPS, **DENSE}, moe_layers=(1, 2)),
    "flint": TinyFamily("Flint", {**HEADS, **NUM, **DENSE, "mlp_only_layers": [0, 1]}, moe_layers=(2,)),
    "kolibri1": TinyFamily("Kolibri1", {**HEADS, **NUM}),
    "granitemoe": TinyFamily("GraniteMoe", {"num_key_value_heads": 1, **LOCAL}, NO_MOE_WIDTH, originally_fused=True),
    "granitemoeshared": TinyFamily(
        "GraniteMoeShared",
        {"num_key_value_heads": 1, **LOCAL, "shared_intermediate_size": 28},
        NO_MOE_WIDTH,
        originally_fused=True,
    ),
    "granitemoehybrid": TinyFamily(
        "GraniteMoeHybrid",
        {
            **{"num_key_value_heads": 1, **LOCAL, "shared_intermediate_size": 28, "layer_types": ["mamba"] * LAYERS},
            **{"mamba_n_heads": 4, "mamba_d_head": 12, "mamba_d_state": 8},
        },
        NO_MOE_WIDTH,
        originally_fused=True,
    ),
    "jamba": TinyFamily("Jamba", {"num_key_value_heads": 1, **NUM}, NO_MOE_WIDTH, moe_layers=(1,)),
    "lfm2_moe": TinyFamily(
        "Lfm2Moe",
        {"num_key_value_heads": 1, **NUM, **DENSE, "num_dense_layers": 1, "layer_types": ["conv", "conv", "conv"]},
        moe_layers=(1, 2),
    ),
    "llama4": TinyFamily(
        "Llama4Text",
        {**HEADS, **LOCAL, "intermediate_size_mlp": 40, "interleave_moe_layer_step": 2},
        NO_MOE_WIDTH,
        moe_layers=(1,),
        layouts=("fused",),
        model="Llama4ForCausalLM",
        input_major="fused",
    ),
    "qwen3_5_moe": TinyFamily("Qwen3_5MoeText", {**HEADS, **DELTA, **NUM}, model="Qwen3_5MoeForCausalLM"),
    "qwen4_exp": TinyFamily("Qwen4ExpText", {**HEADS, **DELTA, **NUM}, model="Qwen4ExpForCausalLM"),
    "qwen3_vl_moe": TinyFamily(
        "Qwen3VLMoe",
        {**HEADS, **NUM, **DENSE, "mlp_only_layers": [2]},
        moe_layers=(0, 1),
        vision={**VISION, "deepstack_visual_indexes": [0]},
        model="Qwen3VLMoeForConditionalGeneration",
        originally_fused=True,
        input_major="original",
    ),
    "glm4v_moe": TinyFamily(
        "Glm4vMoe",
        {**HEADS, **ROUTED, **GROUPS, **DENSE, "first_k_dense_replace": 1, "rope_parameters": ROTARY},
        moe_layers=(1, 2),
        vision=VISION,
        model="Glm4vMoeForConditionalGeneration",
    ),
}
CHECKPOINTS = [(name, layout) for name, family in FAMILIES.items() for layout in family.layouts]


def build(family: TinyFamily, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Any:
    """The transformers model with every parameter drawn at random, biases and router corrections too."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    fields = {**COMMON, **family.fields, family.width_field: family.width}
    if family.vision is not None:
        fields = {"text_config": fields, "vision_config": dict(family.vision)}
    config = getattr(transformers, f"{family.prefix}Config")(**fields)
    model = getattr(transformers, family.model or f"{family.prefix}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


def load(family: TinyFamily, folder: Path) -> Any:
    """The saved model read back by transformers, in float32."""
    import transformers

    return getattr(transformers, family.model or f"{family.prefix}ForCausalLM").from_pretrained(
        folder, dtype=torch.float32
    )


def experts_of(model: Any) -> dict[int, Any]:
    """{layer: its experts module}."""
    found = ((re.search(r"layers\.(\d+)\..*\bexperts$", name), module) for name, module in model.named_modules())
    return {int(match[1]): module for match, module in found if match}


def routed(experts: Any, x_TI: Tensor, index_TK: Tensor, weight_TK: Tensor) -> Tensor:
    """The module's own forward pass over tokens sent to K experts each."""
    if type(experts).__name__ != "Llama4TextExperts":
        y_TI: Tensor = experts(x_TI, index_TK, weight_TK)
        return y_TI
    y_ETI = experts(x_TI.repeat(EXPERTS, 1)).view(EXPERTS, *x_TI.shape)  # it takes every token through every expert
    return torch.einsum("tk,tki->ti", weight_TK, y_ETI[index_TK, torch.arange(len(x_TI))[:, None]])


def save(model: Any, folder: Path, *, fused: bool, shard_size: int = SHARD_BYTES) -> Path:
    """Write the model in one of the two disk layouts of transformers 5: experts fused, or as first published."""
    model.save_pretrained(folder, save_original_format=not fused, max_shard_size=shard_size)
    return folder


def transpose_experts(folder: Path) -> Path:
    """As Qwen3-VL-MoE was published: input-major. transformers transposes while it loads, but not when it saves."""
    for path in folder.glob("*.safetensors"):
        tensors = {k: t.transpose(1, 2) if ".experts." in k else t for k, t in load_file(path).items()}
        data = serialized({k: t.contiguous() for k, t in tensors.items()}, {"format": "pt"})
        path.unlink()
        path.write_bytes(data)
    return folder
