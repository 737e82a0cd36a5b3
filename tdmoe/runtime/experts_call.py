"""The call of an experts module of a transformers model, computed again expert by expert.

By the module's own weights, biases and activation, whatever implementation runs it.

Legend: T tokens, K experts a token is routed to, I inputs, O outputs of gate and up together, W expert width, S rows
that one expert gets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def input_major(module: Any) -> bool:
    """Tell whether its weights lie transposed: (E, I, O)."""
    return bool(getattr(module, "is_transposed", type(module).__name__ == "Llama4TextExperts"))


def routing(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """(inputs, expert indices, routing weights) of a call.

    Llama-4 sends every token through every expert, multiplied by its routing weight, which is zero where not routed.
    """
    values = [*arguments, *named.values()]
    x = values[0].reshape(-1, values[0].shape[-1])
    if len(values) >= 3:
        names = ("hidden_states", "top_k_index", "top_k_weights")
        by_name = dict(zip(names, arguments, strict=False)) | named
        x_TI, index_TK, weight_TK = (by_name[name] for name in names)
        return x_TI.reshape(-1, x_TI.shape[-1]), index_TK, weight_TK
    experts = module.down_proj.shape[0]
    routed_S = x.any(1).nonzero().squeeze(1)
    index_SK = (routed_S // (len(x) // experts))[:, None]
    return x[routed_S], index_SK, torch.ones_like(index_SK, dtype=torch.float64)


def gate_up(module: Any, x_SI: Tensor, expert: int) -> Tensor:
    """Gate and up of one expert, in the module's own order, by its own weights and biases."""
    W = module.gate_up_proj[expert]
    gate_up_SO: Tensor = x_SI @ (W if input_major(module) else W.T)
    return gate_up_SO + module.gate_up_proj_bias[expert] if getattr(module, "has_bias", False) else gate_up_SO


def activate(module: Any, gate_up_SO: Tensor) -> Tensor:
    """act(gate) * up by the module's own activation."""
    if hasattr(module, "_apply_gate"):
        h_SW: Tensor = module._apply_gate(gate_up_SO)
        return h_SW
    gate_SW, up_SW = gate_up_SO.chunk(2, dim=-1)
    activated_SW: Tensor = module.act_fn(gate_SW) * up_SW
    return activated_SW
