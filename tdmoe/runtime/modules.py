"""Expert layers that run in factor form inside a transformers model; the dense experts are never rebuilt.

A factored projection maps a token's input to its expert's output in three steps, of which only the middle one depends
on the expert:

    enter   z = U_I^T x          once a token, whatever its experts
    mix     y_e = G_e z          once a routed token, grouped by expert; G_e = sum_r U_E[e, r] G_r
    leave   U_O y_e              for gate and up once a routed token; for down once a token, after the weighted sum

(here of the Tucker form; tdmoe/forms/ has them all, one file a form).

Gate and up may be one projection, `gate_up`, with the outputs of gate first. Parameters are named as the checkpoint
names them: EXPERTS.gate.core, .expert, .output, .input, and so on.

Legend: T tokens, K experts a token is routed to, S = T K routed tokens sorted by expert, E experts, O outputs,
I inputs, W expert width, R, P, Q the ranks of the expert, output and input mode.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tdmoe.forms import Spec, linear
from tdmoe.problems import InputError
from tdmoe.stacks.families import JOINT, MEMBERS, PROJECTIONS


class FactoredExperts(nn.Module):
    """An experts module after `factorise`: its activation, biases and config stay, its dense weights are gone.

    It is no subclass of the dense class, whose model would want to initialise dense weights.
    """

    gate: Any
    up: Any
    gate_up: Any  # in place of the two, or None
    down: Any
    factored_experts: int
    has_bias: bool
    is_concatenated: bool
    gate_up_proj_bias: Tensor
    down_proj_bias: Tensor
    dense_class: Any

    def forward(self, hidden_states: Tensor, *routing: Tensor, **named: Tensor) -> Tensor:
        """sum_k w_tk W_down,k act(W_gate,k x_t, W_up,k x_t) of every token, as the dense module computes it."""
        index_TK, weight_TK = [*routing, *named.values()]
        x_TI = hidden_states.reshape(-1, hidden_states.shape[-1])
        experts = self.factored_experts
        index_S, order_S = index_TK.flatten().sort(stable=True)
        here = index_S < experts  # expert parallelism marks the tokens of other devices with E
        index_S, order_S = index_S[here], order_S[here]
        token_S, weight_S = order_S // index_TK.shape[-1], weight_TK.flatten()[order_S, None]
        counts = torch.bincount(index_S, minlength=experts).tolist()

        readers = (self.gate, self.up) if self.gate_up is None else (self.gate_up,)
        gate_up = [m.leave(m.mix(m.enter(x_TI)[token_S], counts)) for m in readers]
        h_SW = self._activate(torch.cat(gate_up, dim=-1), index_S)
        y_SP = self.down.mix(self.down.enter(h_SW), counts) * weight_S
        out_TI: Tensor = self.down.leave(_sum_by_token(y_SP.to(x_TI.dtype), token_S, len(x_TI)))
        if self.has_bias:
            biases_SI = self.down_proj_bias[index_S] * weight_S
            out_TI = out_TI + _sum_by_token(biases_SI.to(out_TI.dtype), token_S, len(x_TI))
        return out_TI.view_as(hidden_states)

    def extra_repr(self) -> str:
        return f"in place of {self.dense_class.__name__}"

    def _activate(self, gate_up_SO: Tensor, index_S: Tensor) -> Tensor:
        """The dense module's own activation, on gate and up in its own order, with its own biases."""
        if not self.is_concatenated:
            gate_up_SO = gate_up_SO.unflatten(-1, (2, -1)).transpose(1, 2).flatten(1)
        if self.has_bias:
            gate_up_SO = gate_up_SO + self.gate_up_proj_bias[index_S]
        h_SW: Tensor = self.dense_class._apply_gate(self, gate_up_SO)
        return h_SW


def factorise(module: Any, specs: Mapping[str, Spec]) -> None:
    """Turn an experts module of transformers into one in factor form, in place; `specs` is by projection.

    Its dense weights are dropped and the new parameters are left uninitialised. A projection without a spec is dense.
    """
    if not hasattr(module, "is_transposed") or getattr(module, "has_post_expert_norm", False):
        raise InputError(
            type(module).__name__,
            why="runs its experts in a way of its own, not in factor form",
            remedy="not supported",
        )
    experts, hidden, width = _shape(module)
    dtype, device = module.down_proj.dtype, module.down_proj.device
    module.factored_experts = experts
    with torch.device(device):
        module.gate_up = None
        for projection in (JOINT, "down") if JOINT in specs else PROJECTIONS:
            outputs = {"down": hidden, JOINT: 2 * width}.get(projection, width)
            shape = (experts, outputs, width if projection == "down" else hidden)
            setattr(module, projection, linear(shape, specs.get(projection, {"kind": "dense"}), dtype))
    del module.gate_up_proj, module.down_proj
    module.dense_class = type(module)
    module.__class__ = FactoredExperts


def factored_copy(module: Any, found: Mapping[str, tuple[Spec, Mapping[str, Tensor]]]) -> Any:
    """`module` in factor form beside itself, from the spec and factors of each projection; the dense one is unchanged.

    Biases and what was not compressed are shared with it.
    """
    made = copy.copy(module)
    for kept in ("_parameters", "_buffers", "_modules"):
        made.__dict__[kept] = dict(module.__dict__[kept])
    factorise(made, {projection: spec for projection, (spec, _) in found.items()})
    like = module.down_proj
    for projection in PROJECTIONS:
        if projection not in found and not (JOINT in found and projection in MEMBERS[JOINT]):
            _fill(made, projection, {"weight": dense_view(module, projection).contiguous()}, like)
    for projection, (_, tensors) in found.items():
        _fill(made, projection, tensors, like)
    return made.eval()


def dense_view(module: Any, projection: str) -> Tensor:
    """(E, O, I) of a projection of a dense experts module of transformers: its own weights, whatever their order."""
    W: Tensor = (module.down_proj if projection == "down" else module.gate_up_proj).data
    W = W.transpose(1, 2) if getattr(module, "is_transposed", True) else W  # only Llama-4's does not say so
    if projection == "down":
        return W
    first = projection == "gate"
    return W.chunk(2, 1)[0 if first else 1] if getattr(module, "is_concatenated", True) else W[:, 1 - first :: 2]


def _fill(module: Any, projection: str, tensors: Mapping[str, Tensor], like: Tensor) -> None:
    """Put factors on the device of `like`, floats in its dtype too."""
    for name, tensor in tensors.items():
        placed = tensor.to(like) if tensor.is_floating_point() else tensor.to(like.device)
        setattr(getattr(module, projection), name, nn.Parameter(placed, requires_grad=False))


def _shape(module: Any) -> tuple[int, int, int]:
    """(experts, hidden, width) of an experts module: down is (E, H, W), or (E, W, H) where weights are input-major."""
    experts, a, b = module.down_proj.shape
    return (experts, b, a) if module.is_transposed else (experts, a, b)


def _sum_by_token(y_SP: Tensor, token_S: Tensor, tokens: int) -> Tensor:
    return y_SP.new_zeros(tokens, y_SP.shape[1]).index_add_(0, token_S, y_SP)
