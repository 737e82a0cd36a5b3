"""THE table of where each architecture keeps its experts, and on which axes. A family is one row.

Layout is looked up by `model_type`, never guessed from shapes: GPT-OSS has hidden = intermediate = 2880, so its
down projection is square and its orientation cannot be seen. Axes are written as on disk: O output features,
I input features of the projection (torch's `nn.Linear.weight` is OI), E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tdmoe.problems import InputError

PROJECTIONS = ("gate", "up", "down")
LAYER_PREFIX = "model.layers.{layer}."

Part = Literal["whole", "first", "second", "even", "odd"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where one projection's experts lie: tensor name(s) below the layer, axes, and which part of the O axis.

    `template` holds `{expert}` when every expert is a tensor of its own (axes "OI"); otherwise one tensor holds all.
    Gate and up often share a tensor: as halves ("first", "second") or interleaved ("even", "odd") along O.
    """

    template: str
    axes: Literal["OI", "EOI", "EIO"]
    part: Part = "whole"
    bias: str | None = None  # (E, O), cut to `part` like the weight


Layout = Mapping[str, Source]


def _per_expert(gate: str, up: str, down: str) -> Layout:
    return {p: Source(t, "OI") for p, t in zip(PROJECTIONS, (gate, up, down), strict=True)}


PER_EXPERT = _per_expert(*(f"mlp.experts.{{expert}}.{p}_proj.weight" for p in PROJECTIONS))
MIXTRAL_PER_EXPERT = _per_expert(*(f"block_sparse_moe.experts.{{expert}}.{w}.weight" for w in ("w1", "w3", "w2")))
FUSED: Layout = {  # transformers 5 in memory, and on disk with save_original_format=False
    "gate": Source("mlp.experts.gate_up_proj", "EOI", "first"),
    "up": Source("mlp.experts.gate_up_proj", "EOI", "second"),
    "down": Source("mlp.experts.down_proj", "EOI"),
}
FUSED_INPUT_MAJOR_INTERLEAVED: Layout = {
    "gate": Source("mlp.experts.gate_up_proj", "EIO", "even", "mlp.experts.gate_up_proj_bias"),
    "up": Source("mlp.experts.gate_up_proj", "EIO", "odd", "mlp.experts.gate_up_proj_bias"),
    "down": Source("mlp.experts.down_proj", "EIO", "whole", "mlp.experts.down_proj_bias"),
}


@dataclass(frozen=True, slots=True)
class Family:
    """One row: which `model_type`s it covers, its layouts on disk, and the config fields of the experts' width."""

    name: str
    model_types: tuple[str, ...]
    layouts: tuple[Layout, ...]
    width: tuple[str, ...] = ("moe_intermediate_size",)


FAMILIES = (
    Family("Qwen3-MoE", ("qwen3_moe",), (PER_EXPERT, FUSED)),
    Family("Mixtral", ("mixtral",), (MIXTRAL_PER_EXPERT, FUSED), width=("intermediate_size",)),
    Family("GPT-OSS", ("gpt_oss",), (FUSED_INPUT_MAJOR_INTERLEAVED,), width=("intermediate_size",)),
    Family("DeepSeek-V3", ("deepseek_v3",), (PER_EXPERT, FUSED)),
)

# Every spelling that hub configs and transformers 4 and 5 write. Several may stand side by side if they agree.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
DTYPES = ("dtype", "torch_dtype")
MOST = 10_000  # layers or experts: far above any model, and small enough that a wrong config is refused at once
WIDEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a config says of its experts. `layers` are the MoE layers; multi-token-prediction layers are left out."""

    family: Family
    experts: int
    hidden: int
    width: int
    depth: int
    extra_layers: int  # multi-token-prediction layers, stored behind the others
    layers: tuple[int, ...]
    dtype: str | None

    def shape(self, projection: str) -> tuple[int, int, int]:
        """(E, O, I) of a projection: gate and up map hidden to width, down maps width to hidden."""
        outputs, inputs = (self.hidden, self.width) if projection == "down" else (self.width, self.hidden)
        return self.experts, outputs, inputs


def architecture(config: Mapping[str, Any]) -> Architecture:
    """Read a config.json; InputError names the field when the family is unknown or a field is missing or odd."""
    model_type = config.get("model_type")
    family = next((f for f in FAMILIES if model_type in f.model_types), None)
    if family is None:
        known = ", ".join(t for f in FAMILIES for t in f.model_types)
        raise InputError(f"config.json: model_type is {model_type!r}; supported are {known}")
    depth = _count(config, ("num_hidden_layers",))
    layers = tuple(layer for layer in range(depth) if _is_sparse(config, layer))
    if not layers:
        raise InputError(
            "config.json: no layer is a Mixture-of-Experts layer (see mlp_only_layers, first_k_dense_replace)"
        )
    return Architecture(
        family,
        experts=_count(config, EXPERTS),
        hidden=_count(config, ("hidden_size",), most=WIDEST),
        width=_count(config, family.width, most=WIDEST),
        depth=depth,
        extra_layers=_count(config, ("num_nextn_predict_layers",), default=0),
        layers=layers,
        dtype=_agreed(config, DTYPES),
    )


def _is_sparse(config: Mapping[str, Any], layer: int) -> bool:
    """The rules of Qwen (mlp_only_layers, decoder_sparse_step) and DeepSeek (first_k_dense_replace, moe_layer_freq)."""
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list) or any(type(number) is not int for number in dense):
        raise InputError(f"config.json: mlp_only_layers is {dense!r}, a list of layer numbers is needed")
    step = _count(config, ("decoder_sparse_step",), default=1)
    first = _count(config, ("first_k_dense_replace",), default=0)
    frequency = _count(config, ("moe_layer_freq",), default=1)
    return layer not in dense and (layer + 1) % max(step, 1) == 0 and layer >= first and layer % max(frequency, 1) == 0


def _agreed(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value under whichever spelling is present; InputError when two spellings disagree."""
    found = {name: config[name] for name in names if config.get(name) is not None}
    if any(value != next(iter(found.values())) for value in found.values()):
        raise InputError(f"config.json: {' and '.join(f'{k} = {v!r}' for k, v in found.items())} disagree; keep one")
    return next(iter(found.values()), None)


def _count(config: Mapping[str, Any], names: tuple[str, ...], default: int | None = None, most: int = MOST) -> int:
    value = _agreed(config, names)
    if value is None and default is not None:
        return default
    if value is None:
        raise InputError(f"config.json: has none of {', '.join(names)}; one of them is needed")
    if type(value) is not int or value < (1 if default is None else 0):
        raise InputError(f"config.json: {' / '.join(names)} is {value!r}, a positive whole number is needed")
    if value > most:
        raise InputError(f"config.json: {' / '.join(names)} is {value}, the limit is {most:,}; correct the config")
    return value
