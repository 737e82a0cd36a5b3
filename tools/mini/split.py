"""Split the feed-forward layers of a dense Llama-layout model into experts: a control, not a trained MoE.

    python -m tools.mini.split --model FOLDER [--gguf FILE] --experts 8 --to DIR

y = W_down (silu(W_gate x) * W_up x) is a sum over hidden units, so consecutive parts of them are experts whose outputs
add up. Written in Mixtral's layout with every expert active and a router of zeros, which gives each the weight 1/E; the
down projections are multiplied by E (for E a power of two without rounding). The model computes what it did, every
expert sees every token, and no structure was trained into the experts that the dense layer does not have.

Legend: E experts, O hidden units of one, H hidden size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SAME = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


def split(dense: Any, experts: int) -> Any:
    """The same function as a MixtralForCausalLM in the dense model's dtype; ValueError where it cannot be split."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = dense.config
    if config.model_type != "llama":
        raise ValueError(f"model_type is {config.model_type}; only the llama layout is split")
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        raise ValueError("the model has biases, Mixtral's layout has none")
    if experts < 2 or config.intermediate_size % experts:
        raise ValueError(
            f"{experts} experts: give a number above 1 that divides the {config.intermediate_size} hidden units"
        )
    settings = {name: getattr(config, name) for name in SAME}
    wide = {"intermediate_size": config.intermediate_size // experts, "num_local_experts": experts}
    made = MixtralForCausalLM(
        MixtralConfig(**settings, **wide, num_experts_per_tok=experts, sliding_window=None, dtype=dense.dtype)
    ).to(dense.dtype)
    state = {name: tensor for name, tensor in dense.state_dict().items() if ".mlp." not in name}
    for number, layer in enumerate(dense.model.layers):
        gate_EOH, up_EOH = (_parts(p.weight, experts) for p in (layer.mlp.gate_proj, layer.mlp.up_proj))
        place = f"model.layers.{number}.mlp"
        state[f"{place}.experts.gate_up_proj"] = torch.cat([gate_EOH, up_EOH], 1)
        down_EHO = _parts(layer.mlp.down_proj.weight.T, experts).mT * experts
        state[f"{place}.experts.down_proj"] = down_EHO.contiguous()
        state[f"{place}.gate.weight"] = torch.zeros(experts, config.hidden_size, dtype=dense.dtype)
    made.load_state_dict(state)
    return made.eval()


def _parts(rows_NH: Tensor, experts: int) -> Tensor:
    """(E, O, H): consecutive hidden units."""
    parts_EOH: Tensor = rows_NH.detach().unflatten(0, (experts, -1))
    return parts_EOH


def main() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the dense model")
    parser.add_argument("--gguf", help="file in that folder, where its weights are stored so (needs the package gguf)")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    where: dict[str, Any] = {"trust_remote_code": False}
    where |= {} if arguments.gguf is None else {"gguf_file": arguments.gguf}
    dense = AutoModelForCausalLM.from_pretrained(arguments.model, **where, dtype=torch.bfloat16)
    split(dense, arguments.experts).save_pretrained(arguments.to)
    AutoTokenizer.from_pretrained(arguments.model, **where).save_pretrained(arguments.to)


if __name__ == "__main__":
    main()
