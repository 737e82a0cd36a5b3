"""Check that transformers loads a checkpoint whole: every tensor that its model has must be there, in its shape.

transformers fills what is missing with random numbers and goes on. Here its own loader is run on empty tensors of the
headers' shapes, so that names are changed, merged and tied as they are when the weights are read. It takes a device for
them only where accelerate is installed; without that the same is found when the model is loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from os.path import commonprefix
from typing import Any

import torch

from diag.models.model import Model
from diag.models.pretrained import check_generation, load_config, model_class, place, quiet, said
from tdmoe.checkpoint.encodings import PLAIN
from tdmoe.checkpoint.layout import METHOD
from tdmoe.checkpoint.reader import CONFIG, Checkpoint
from tdmoe.compression.unquantised import QUANTIZATION, unquantised
from tdmoe.problems import InputError, shown
from tdmoe.stacks.architecture import EXPERTS, language_config

READ = (None, "fp8", "mxfp4", METHOD)  # quantisations whose headers tell what is loaded
WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")
SIZES = (*WIDTHS, "max_position_embeddings")
LARGEST = 10**9  # far above any model: what is larger would be an error of torch's, or of ours
TOP_K = "num_experts_per_tok"
_CHECKED: dict[str, list[str]] = {}


def check_loadable(model: Model, checkpoint: Checkpoint, identity: str) -> list[str]:
    """Notes on what the model leaves unused; InputError where it cannot be loaded whole. `identity`: of the weights."""
    checkpoint.refuse_adapter()
    _check_sizes(checkpoint)
    with place(model, checkpoint) as (where, options), quiet():
        config = load_config(where, options)
        _check_top_k(checkpoint, config)
        check_generation(checkpoint, where, options)
        key = f"{identity} {checkpoint.structure_fingerprint()}"
        if key not in _CHECKED:
            _CHECKED[key] = _unused(checkpoint, config)
    return _CHECKED[key]


def _check_sizes(checkpoint: Checkpoint) -> None:
    fields = language_config(checkpoint.config)
    for name in SIZES:
        value = fields.get(name)
        if isinstance(value, str) or (isinstance(value, int) and value > LARGEST):  # text: of too many digits
            raise InputError(f"{CONFIG}: {name} is {shown(value)}, the limit is {LARGEST:,}; correct it")


def _check_top_k(checkpoint: Checkpoint, config: Any) -> None:
    """InputError where a token is routed to more experts than there are; transformers' default counts too."""
    fields = language_config(checkpoint.config)
    experts = next((fields[name] for name in EXPERTS if type(fields.get(name)) is int), None)
    top_k = getattr(config.get_text_config(), TOP_K, None)
    if experts is not None and type(top_k) is int and not 1 <= top_k <= experts:
        raise InputError(
            f"{CONFIG}: {TOP_K} is {shown(top_k)}{'' if TOP_K in fields else ' by default'}, of {experts} experts; "
            f"give 1 to {experts}"
        )


def check_info(checkpoint: Checkpoint, info: Mapping[str, Any]) -> None:
    """InputError for the first tensor that transformers did not find, or not in the model's shape."""
    for name in sorted(info["missing_keys"]):
        raise InputError(
            f"{_shard(checkpoint, name)}: tensor {shown(name, 200)} is missing from the checkpoint; transformers would "
            f"run the model with random weights in its place; {checkpoint.remedy()}"
        )
    for name, stored, needed in sorted(info["mismatched_keys"]):
        fields = language_config(checkpoint.config)
        widths = ", ".join(f"{field} {shown(fields[field])}" for field in WIDTHS if field in fields)
        raise InputError(
            f"{_shard(checkpoint, name)}: tensor {shown(name, 200)} has shape {list(stored)}, {CONFIG} implies "
            f"{list(needed)} ({widths}); correct it or download it again"
        )


def _unused(checkpoint: Checkpoint, config: Any) -> list[str]:
    from transformers.utils import is_accelerate_available

    quantization = checkpoint.config.get(QUANTIZATION) or {}
    kind = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    if kind not in READ or not is_accelerate_available():
        return []  # told when it is loaded
    config = copy.deepcopy(config)
    if kind == METHOD:
        entries = [checkpoint.entry(name) for name in checkpoint.names()]
    else:
        entries = [found.entry for found in unquantised(checkpoint)]
        if kind is not None:
            delattr(config, QUANTIZATION)
    empty = {e.name: torch.empty(e.shape, dtype=PLAIN.get(e.dtype, torch.uint8), device="meta") for e in entries}
    try:
        _, info = model_class(config).from_pretrained(
            None,
            config=config,
            state_dict=empty,
            dtype=torch.bfloat16,
            device_map={"": "meta"},
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{CONFIG}: transformers cannot build the model ({said(error)}); correct the config, or download "
            "the checkpoint again"
        ) from error
    check_info(checkpoint, info)
    if not (unused := sorted(info["unexpected_keys"])):
        return []
    return [f"{len(unused)} of the checkpoint's tensors are not used by the model, as {shown(unused[0], 200)}"]


def _shard(checkpoint: Checkpoint, name: str) -> str:
    """The file that holds the tensor, or the one that holds those named most like it."""
    nearest = max(checkpoint.names(), key=lambda known: len(commonprefix((known, name))))
    return checkpoint.entry(nearest).file
