"""Experts as config.json describes them: family, counts, widths, and which layers are Mixture-of-Experts layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tdmoe.problems import InputError, shown
from tdmoe.stacks.families import FAMILIES, UNSUPPORTED, Family

# Every spelling that hub configs and transformers 4 and 5 write. Several may stand side by side if they agree.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
DTYPES = ("dtype", "torch_dtype")
LAYER_TYPES = "mlp_layer_types"
EXTRA_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers")
NESTED = ("text_config", "language_config", "llm_config")  # of multimodal models; thinker_config holds one of them
MOST = 10_000  # layers or experts: far above any model, and small enough that a wrong config is refused at once
WIDEST = 1_000_000

Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Architecture:
    """Experts of a config. `layers` are the MoE layers; multi-token-prediction layers are left out."""

    family: Family
    model_type: str
    experts: int
    hidden: int
    width: int
    depth: int
    extra_layers: int  # multi-token-prediction layers, stored behind the others
    layers: tuple[int, ...]
    dtype: str | None
    scale_block: tuple[int, int]  # rows and columns that share a scale, where weights are FP8

    def shape(self, projection: str) -> tuple[int, int, int]:
        """(E, O, I) of a projection: gate and up map hidden to width, down maps width to hidden."""
        outputs, inputs = (self.hidden, self.width) if projection == "down" else (self.width, self.hidden)
        return self.experts, outputs, inputs


def config_error(why: str, remedy: str = "") -> InputError:
    """The refusal of a config.json."""
    return InputError("config.json", None, why, remedy)


def architecture(config: Config) -> Architecture:
    """Read a config.json; InputError names the field when the family is unknown or a field is missing or odd."""
    model_type, family = _family(config)
    config = language_config(config)
    depth = _count(config, ("num_hidden_layers", "num_layers"))
    # where the list is there, transformers does not look at the other fields, whose defaults may contradict it
    rules = LAYER_RULES if config.get(LAYER_TYPES) is None else (_listed(LAYER_TYPES),)
    layers = tuple(layer for layer in range(depth) if all(rule(config, layer) for rule in rules))
    if not layers:
        raise config_error("no layer is a Mixture-of-Experts layer (see mlp_only_layers, first_k_dense_replace)")
    return Architecture(
        family,
        model_type,
        experts=_count(config, EXPERTS),
        hidden=_count(config, ("hidden_size",), most=WIDEST),
        width=_first_count(config, family.width),
        depth=depth,
        extra_layers=_count(config, EXTRA_LAYERS, default=0),
        layers=layers,
        dtype=_dtype(config),
        scale_block=_scale_block(config),
    )


def language_config(config: Config) -> Config:
    """The fields of the language model: those of a multimodal model's inner config win over its outer ones."""
    for name in ("thinker_config", *NESTED):
        inner = config.get(name)
        if isinstance(inner, dict):
            outer = {key: value for key, value in config.items() if key != name}
            if _agreed(inner, DTYPES) is not None:
                outer = {key: value for key, value in outer.items() if key not in DTYPES}
            return language_config({**outer, **inner})
    return config


def _family(config: Config) -> tuple[str, Family]:
    """Family by the inner model_type of a multimodal model, with or without its suffix `_text`, or the outer one."""
    outer, inner = config.get("model_type"), language_config(config).get("model_type")
    names = [name for name in (inner, outer) if isinstance(name, str)]
    for name in names:
        for family in FAMILIES:
            if (bare := name.removesuffix("_text")) in family.model_types:
                return bare, family
    for name in names:
        if reason := UNSUPPORTED.get(name.removesuffix("_text")):
            raise config_error(f"model_type is {shown(name)}, which is not supported: {reason}")
    if not any(config.get(name) or language_config(config).get(name) for name in EXPERTS):
        raise config_error(f"model_type {shown(outer)} is dense: no experts", "`superweights` measures it")
    more = sum(len(family.model_types) for family in FAMILIES) - 2
    raise config_error(
        f"model_type is {shown(outer)}", f"supported are mixtral, qwen3_moe and {more} more: see `tdmoe-diag models`"
    )


# Which layers are sparse. Each rule looks at one spelling and says yes where a config does not use it.


def _mlp_only_layers(config: Config, layer: int) -> bool:
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list) or any(type(number) is not int for number in dense):
        raise config_error(f"mlp_only_layers is {shown(dense)}, a list of layer numbers is needed")
    return layer not in dense


def _every(name: str) -> Callable[[Config, int], bool]:
    """Every n-th layer, counted from 1 (Qwen)."""
    return lambda config, layer: (layer + 1) % max(_count(config, (name,), default=1), 1) == 0


def _from(name: str) -> Callable[[Config, int], bool]:
    """All layers but the first n (DeepSeek)."""
    return lambda config, layer: layer >= _count(config, (name,), default=0)


def _listed(name: str) -> Callable[[Config, int], bool]:
    """One entry a layer, "dense" or "sparse", or 0 or 1."""

    def rule(config: Config, layer: int) -> bool:
        kinds = config.get(name)
        if not isinstance(kinds, list):
            raise config_error(f"{name} is {shown(kinds)}, a list with an entry for every layer is needed")
        if layer >= len(kinds):
            raise config_error(
                f"{name} has {len(kinds)} entries, but layer {layer} exists", "an entry for every layer is needed"
            )
        return kinds[layer] not in ("dense", 0, False)

    return rule


def _moe_layer_freq(config: Config, layer: int) -> bool:
    """Every n-th layer, counted from 0 (DeepSeek); MiMo writes a list."""
    if isinstance(config.get("moe_layer_freq"), list):
        return _listed("moe_layer_freq")(config, layer)
    return layer % max(_count(config, ("moe_layer_freq",), default=1), 1) == 0


def _moe_layers(config: Config, layer: int) -> bool:
    """A list of layer numbers, or every n-th layer (Llama-4)."""
    chosen = config.get("moe_layers")
    if isinstance(chosen, list):
        return layer in chosen
    return _every("interleave_moe_layer_step")(config, layer)


def _span(config: Config, layer: int) -> bool:
    """Layers from a first to a last one, every n-th of them (ERNIE)."""
    first, last = _count(config, ("moe_layer_start_index",), default=0), config.get("moe_layer_end_index")
    step = max(_count(config, ("moe_layer_interval",), default=1), 1)
    beyond = isinstance(last, int) and 0 <= last < layer
    return layer >= first and not beyond and (layer + 1) % step == 0


def _period(config: Config, layer: int) -> bool:
    """Every n-th layer, from an offset on (Jamba)."""
    period = max(_count(config, ("expert_layer_period",), default=1), 1)
    return layer % period == _count(config, ("expert_layer_offset",), default=0) % period


LAYER_RULES: tuple[Callable[[Config, int], bool], ...] = (
    _mlp_only_layers,
    _every("decoder_sparse_step"),
    _from("first_k_dense_replace"),
    _from("num_dense_layers"),
    _moe_layer_freq,
    _moe_layers,
    _span,
    _period,
)


def _scale_block(config: Config) -> tuple[int, int]:
    """Rows and columns that share a scale of FP8 weights."""
    quantization = config.get("quantization_config")
    if quantization is not None and not isinstance(quantization, dict):
        raise config_error(f"quantization_config is {shown(quantization)}, an object is needed, or leave it out")
    block = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
    match block or [128, 128]:
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
    raise config_error(f"weight_block_size is {shown(block)}, [rows, columns] is needed, as [128, 128]")


def _dtype(config: Config) -> str | None:
    found = _agreed(config, DTYPES)
    if found is not None and not isinstance(found, str):
        raise config_error(f"{' / '.join(DTYPES)} is {shown(found)}, a name is needed, as bfloat16")
    return found


def _agreed(config: Config, names: tuple[str, ...]) -> Any:
    """The value under whichever spelling is present; InputError when two spellings disagree."""
    found = {name: config[name] for name in names if config.get(name) is not None}
    if any(value != next(iter(found.values())) for value in found.values()):
        raise config_error(f"{' and '.join((f'{k} = {shown(v)}' for k, v in found.items()))} disagree", "keep one")
    return next(iter(found.values()), None)


def _first_count(config: Config, names: tuple[str, ...]) -> int:
    """Count under the first name that is present: a later one may mean the dense layers' width."""
    present = [name for name in names if config.get(name) is not None]
    return _count(config, tuple(present[:1]) or names, most=WIDEST)


def _count(config: Config, names: tuple[str, ...], default: int | None = None, most: int = MOST) -> int:
    value = _agreed(config, names)
    if isinstance(value, list) and value and all(entry == value[0] for entry in value):
        value = value[0]  # one entry a layer, all alike
    if value is None and default is not None:
        return default
    if value is None:
        raise config_error(f"has none of {', '.join(names)}", "one of them is needed")
    if type(value) is not int or value < (1 if default is None else 0):
        needed = f"a positive whole number is needed, at most {most:,}"
        raise config_error(f"{' / '.join(names)} is {shown(value)}, {needed}")
    if value > most:
        raise config_error(f"{' / '.join(names)} is {shown(value)}, the limit is {most:,}", "correct the config")
    return value
