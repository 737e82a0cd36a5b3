"""THE table of where each architecture keeps its experts, and on which axes. A family is one row.

Layout is looked up by `model_type`, never guessed from shapes: GPT-OSS has hidden = intermediate = 2880, so its
down projection is square and its orientation cannot be seen. Axes are written as on disk: O output features,
I input features of the projection (torch's `nn.Linear.weight` is OI), E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

PROJECTIONS = ("gate", "up", "down")
JOINT = "gate_up"  # gate and up as one stack, see tdmoe/stacks/joint.py
MEMBERS = {**{p: (p,) for p in PROJECTIONS}, JOINT: ("gate", "up")}
# Where decoder layers start: language models, and language models inside multimodal ones.
LAYER_PREFIXES = (
    "model.layers.{layer}.",
    "model.language_model.layers.{layer}.",
    "language_model.model.layers.{layer}.",
    "thinker.model.layers.{layer}.",
)

Axes = Literal["OI", "EOI", "EIO"]
Part = Literal["whole", "first", "second", "even", "odd"]


@dataclass(frozen=True, slots=True)
class Source:
    """Place of one projection's experts: tensor name(s) below the layer, axes, and which part of the O axis.

    `template` holds `{expert}` when every expert is a tensor of its own (axes "OI"); otherwise one tensor holds all.
    Gate and up often share a tensor: as halves ("first", "second") or interleaved ("even", "odd") along O.
    """

    template: str
    axes: Axes
    part: Part = "whole"
    bias: str | None = None  # (E, O), cut to `part` like the weight
    mxfp4: bool = False  # `template` names packed blocks (E, O, I / 32, 16); scales (E, O, I / 32) beside them

    @property
    def scales(self) -> str:
        """Name of the tensor of scales, should the weights be stored as FP8 or MXFP4."""
        return self.template.removesuffix("_blocks") + "_scales" if self.mxfp4 else self.template + "_scale_inv"


Layout = Mapping[str, Source]


def _per_expert(gate: str, up: str, down: str) -> Layout:
    return {p: Source(t, "OI") for p, t in zip(PROJECTIONS, (gate, up, down), strict=True)}


def _fused(gate_up: str, down: str, axes: Axes = "EOI") -> Layout:
    first, second = Source(gate_up, axes, "first"), Source(gate_up, axes, "second")
    return {"gate": first, "up": second, "down": Source(down, axes)}


def _interleaved(prefix: str) -> Layout:
    """GPT-OSS: input-major, gate and up interleaved, with biases."""
    gate_up, down = f"{prefix}.gate_up_proj", f"{prefix}.down_proj"
    return {
        "gate": Source(gate_up, "EIO", "even", f"{gate_up}_bias"),
        "up": Source(gate_up, "EIO", "odd", f"{gate_up}_bias"),
        "down": Source(down, "EIO", "whole", f"{down}_bias"),
    }


def _packed(layout: Layout) -> Layout:
    """The same weights as MXFP4 blocks: output-major, whatever the layout's own axes."""
    return {p: replace(s, template=f"{s.template}_blocks", axes="EOI", mxfp4=True) for p, s in layout.items()}


GATE_UP_DOWN = ("gate_proj", "up_proj", "down_proj")
W1_W3_W2 = ("w1", "w3", "w2")
PER_EXPERT = _per_expert(*(f"mlp.experts.{{expert}}.{name}.weight" for name in GATE_UP_DOWN))
MIXTRAL_PER_EXPERT = _per_expert(*(f"block_sparse_moe.experts.{{expert}}.{name}.weight" for name in W1_W3_W2))
FUSED = _fused("mlp.experts.gate_up_proj", "mlp.experts.down_proj")  # transformers 5 in memory; some models on disk
FUSED_INPUT_MAJOR = _fused("mlp.experts.gate_up_proj", "mlp.experts.down_proj", "EIO")
GPT_OSS = _interleaved("mlp.experts")


@dataclass(frozen=True, slots=True)
class Family:
    """One row: which `model_type`s it covers, its layouts on disk, and the config fields of the experts' width.

    Two layouts with the same names are told apart by the shapes of gate, up and down together, never of one alone.
    """

    name: str
    model_types: tuple[str, ...]
    layouts: tuple[Layout, ...] = (PER_EXPERT, FUSED)
    width: tuple[str, ...] = ("moe_intermediate_size",)
    factor_form: bool = (
        True  # whether tdmoe/runtime/modules.py can run it: transformers gives its experts a token's routing
    )


FAMILIES = (
    Family("Qwen2-MoE", ("qwen2_moe",)),
    Family("Qwen3-MoE", ("qwen3_moe",)),
    Family("Qwen3-Next", ("qwen3_next",)),
    Family("Qwen3.5-MoE", ("qwen3_5_moe",)),
    Family("Qwen3-VL-MoE", ("qwen3_vl_moe",), (FUSED_INPUT_MAJOR, FUSED, PER_EXPERT)),
    Family("Qwen4-Exp", ("qwen4_exp",)),
    Family("Qwen3-Omni-MoE", ("qwen3_omni_moe",)),
    Family("OLMoE", ("olmoe", "flex_olmo"), width=("intermediate_size",)),
    Family("Mixtral", ("mixtral",), (MIXTRAL_PER_EXPERT, FUSED), width=("intermediate_size",)),
    Family("PhiMoE", ("phimoe",), (MIXTRAL_PER_EXPERT, FUSED), width=("intermediate_size",)),
    Family("MiniMax", ("minimax", "minimax_m2"), (MIXTRAL_PER_EXPERT, FUSED), width=("intermediate_size",)),
    Family("GPT-OSS", ("gpt_oss",), (_packed(GPT_OSS), GPT_OSS), width=("intermediate_size",)),
    Family("DeepSeek-V2", ("deepseek", "deepseek_v2")),  # DeepSeek-MoE-16B has the layout of V2
    Family("DeepSeek-V3", ("deepseek_v3", "deepseek_v32")),
    Family("Kimi-K2", ("kimi_k2", "kimi_k25")),  # its own name for the layout of DeepSeek-V3
    Family("Kimi-Linear", ("kimi_linear",), (MIXTRAL_PER_EXPERT, FUSED)),
    Family("GLM-4-MoE", ("glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm_moe_dsa")),
    Family("Ling", ("bailing_moe", "bailing_moe_v2", "bailing_moe_linear", "bailing_moe_linear_v2", "bailing_hybrid")),
    Family("ERNIE-4.5-MoE", ("ernie4_5_moe",)),
    Family("dots.llm1", ("dots1",)),
    Family("MiMo-V2", ("mimo_v2_flash",)),
    Family("EXAONE-MoE", ("exaone_moe",)),
    Family("Hunyuan-MoE", ("hunyuan_v1_moe",), width=("moe_intermediate_size", "intermediate_size")),
    Family("Hunyuan-3", ("hy_v3",), width=("moe_intermediate_size", "expert_hidden_dim")),
    Family("AFMoE", ("afmoe",)),
    Family("Solar-Open", ("solar_open",)),
    Family("Laguna", ("laguna",)),
    Family("Mellum", ("mellum",)),
    Family("Beam", ("beam",)),
    Family("A.X-K", ("axk1", "axk2")),
    Family("Flint", ("flint",)),
    Family("Kolibri", ("kolibri1",)),
    Family("LongCat-Flash", ("longcat_flash",), width=("expert_ffn_hidden_size", "moe_intermediate_size")),
    Family("Command-MoE", ("cohere2_moe",), width=("intermediate_size",)),
    Family(
        "Granite-MoE",
        ("granitemoe", "granitemoeshared", "granitemoehybrid"),
        (
            _fused("block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"),
            _fused("block_sparse_moe.experts.gate_up_proj", "block_sparse_moe.experts.down_proj"),
        ),
        width=("intermediate_size",),
    ),
    Family(
        "Llama-4",
        ("llama4",),
        (_fused("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj", "EIO"),),
        width=("intermediate_size",),
        factor_form=False,  # every token goes through every expert
    ),
    Family(
        "Jamba",
        ("jamba",),
        (
            _per_expert(*(f"feed_forward.experts.{{expert}}.{name}.weight" for name in GATE_UP_DOWN)),
            _fused("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"),
        ),
        width=("intermediate_size",),
    ),
    Family(
        "LFM2-MoE",
        ("lfm2_moe",),
        (
            _per_expert(*(f"feed_forward.experts.{{expert}}.{name}.weight" for name in W1_W3_W2)),
            _fused("feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"),
        ),
    ),
)

# Architectures with experts that have no row, and why; a refusal quotes it.
UNSUPPORTED = {
    "dbrx": "its experts are flattened into one matrix per projection",
    "nemotron_h": "its experts have no gate projection",
    "deepseek_v4": "its experts are packed FP4 with names of their own",
    "ernie4_5_vl_moe": "its text and vision experts share one numbering",
    "switch_transformers": "an encoder-decoder whose experts have no gate projection",
    "nllb_moe": "an encoder-decoder whose experts have no gate projection",
    "jetmoe": "its experts are inside attention too",
    "aria": "its experts are named fc1 and fc2",
    "deepseek_ocr2": "a document reader around a small DeepSeek-V2",
    "unlimited_ocr": "a document reader around a small DeepSeek-V2",
    "dots3_note": "its vision tower has experts too",
    "glm5_next": "a multimodal preview",
    "inkling": "its gate and up are interleaved under names of their own",
    "inkling_mm_model": "its gate and up are interleaved under names of their own",
    "inkling2": "its gate and up are interleaved under names of their own",
    "minimax_m3_vl": "its config has fields of its own",
    "mistral_large4": "its experts stand directly under the layer",
    "nemo_speechlm": "its experts have no gate projection",
    "step3p7": "its gate, up and down are one tensor each for all experts, under names of their own",
}
