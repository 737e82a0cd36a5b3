"""Second moments of what a layer's experts are given: the C of the activation-aware loss, from routed tokens.

    gate, up   C = sum_t a_t x_t x_t^T / sum_t a_t        x_t the inputs of the layer's experts; one matrix a layer
    down       C = sum_tk a_tk h_tk h_tk^T / sum_tk a_tk  h_tk = act(gate(x_t)) * up(x_t) of the k-th expert of token t;
                                                          pooled over experts, or one matrix an expert

Weighting `count`: every routed token counts once, a_tk = 1 and a_t = sum_k a_tk. With top-k routing that is just k
times sum x x^T, so the pooled gate/up matrix does not see the routing at all; only `gate_squared`, a_tk = g_tk^2 with g
the routing weight (the token's share of the loss at the layer's output), does. Llama-4 has g in the inputs already.

Statistics are collected by hooks on the experts modules of a transformers model, whatever implementation runs them, and
the inputs of down are computed again from the module's own weights. Sums are float64; memory does not grow with tokens.

Legend: T tokens, K experts a token is routed to, E experts, I inputs of the projection, S rows that one expert gets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from tdmoe.problems import InputError

Weighting = Literal["count", "gate_squared"]
MODULE = re.compile(r"layers\.(\d+)\..*\bexperts$")
PRIOR = 1.0  # tokens a feature that the pooled matrix counts for beside an expert's own
ROWS = 4096  # whose products are added in float64 at once


@dataclass
class LayerMoments:
    """Sums of one layer; `tokens_E` and `weight_E` say how many routed tokens, and how much of a, each expert had."""

    input_II: Tensor
    down_II: Tensor  # (I, I) pooled, (E, I, I) per expert
    tokens_E: Tensor
    weight_E: Tensor

    def input_moment(self) -> Tensor:
        """C of gate and up."""
        return self.input_II / _positive(self.weight_E.sum())

    def down_moment(self) -> Tensor:
        """C of down, pooled over the experts."""
        sums_II = self.down_II if self.down_II.ndim == 2 else self.down_II.sum(0)
        return sums_II / _positive(self.weight_E.sum())

    def down_moment_of(self, expert: int, prior: float = PRIOR) -> Tensor:
        """(1 - s) C_e + s C of one expert's down, C the pooled one and s its `shrinkage`."""
        assert self.down_II.ndim == 3, "collected with per_expert=True"
        share = self.shrinkage(expert, prior)
        own_II = self.down_II[expert] / self.weight_E[expert].clamp(min=torch.finfo(torch.float64).tiny)
        return (1.0 - share) * own_II + share * self.down_moment()

    def shrinkage(self, expert: int, prior: float = PRIOR) -> float:
        """m / (n + m), n the tokens of the expert and m = `prior` * I the tokens that the pool counts for.

        Linear shrinkage (Ledoit & Wolf 2004) with the intensity of a conjugate prior: a C_e from fewer tokens than
        features is singular; an expert that saw none has the pooled matrix, one that saw many keeps its own.
        """
        m, n = prior * self.down_II.shape[-1], float(self.tokens_E[expert])
        return m / (n + m) if n + m > 0 else 1.0


@dataclass
class Moments:
    """Sums of every layer, and how many tokens went through the model."""

    layers: dict[int, LayerMoments] = field(default_factory=dict)
    tokens: int = 0


def experts_modules(model: Any) -> dict[int, Any]:
    """{layer: experts module} of a transformers model; InputError where there are none."""
    found = ((MODULE.search(name), module) for name, module in model.named_modules())
    modules = {int(match[1]): module for match, module in found if match and hasattr(module, "down_proj")}
    if not modules:
        raise InputError(f"{type(model).__name__}: has no fused experts modules; transformers 5 is needed")
    return modules


@contextmanager
def collecting(
    model: Any,
    moments: Moments,
    *,
    layers: Iterable[int] | None = None,
    weighting: Weighting = "count",
    per_expert: bool = False,
) -> Iterator[None]:
    """While open, every forward pass of `model` adds to `moments`; hooks are removed at the end, whatever happens."""
    modules = experts_modules(model)
    chosen = set(modules if layers is None else layers)
    if missing := sorted(chosen - set(modules)):
        raise InputError(f"layer {missing[0]}: has no experts in this model; it has {sorted(modules)}")
    handles = []
    try:
        for layer in sorted(chosen):
            collector = _Collector(moments, layer, modules[layer], weighting, per_expert)
            handles.append(modules[layer].register_forward_pre_hook(collector, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def calibrate(model: Any, windows: Iterable[Tensor], moments: Moments | None = None, **options: Any) -> Moments:
    """Run token windows (B, T) through the model without gradients; goes on from `moments` where they are given."""
    moments = moments or Moments()
    device = next(model.parameters()).device
    with torch.no_grad(), collecting(model, moments, **options):
        for window_BT in windows:
            model(input_ids=window_BT.to(device), use_cache=False)
            moments.tokens += window_BT.numel()
    return moments


class _Collector:
    """A forward pre-hook of one experts module."""

    def __init__(self, moments: Moments, layer: int, module: Any, weighting: Weighting, per_expert: bool) -> None:
        self.module, self.weighting = module, weighting
        hidden, width, experts = _sizes(module)
        if layer not in moments.layers:
            device = module.down_proj.device

            def zeros(*shape: int) -> Tensor:
                return torch.zeros(shape, dtype=torch.float64, device=device)

            down = (experts, width, width) if per_expert else (width, width)
            moments.layers[layer] = LayerMoments(zeros(hidden, hidden), zeros(*down), zeros(experts), zeros(experts))
        self.sums = moments.layers[layer]

    @torch.no_grad()
    def __call__(self, module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        x_TI, index_TK, weight_TK = _routing(module, arguments, named)
        a_TK = weight_TK.double().square() if self.weighting == "gate_squared" else torch.ones_like(weight_TK.double())
        a_TK = a_TK * (index_TK < len(self.sums.tokens_E))  # expert parallelism marks others' tokens with E
        _add(self.sums.input_II, x_TI, a_TK.sum(1))
        for expert in index_TK.unique().tolist():
            if expert >= len(self.sums.tokens_E):
                continue
            token_S, slot_S = (index_TK == expert).nonzero(as_tuple=True)
            a_S = a_TK[token_S, slot_S]
            down_II = self.sums.down_II if self.sums.down_II.ndim == 2 else self.sums.down_II[expert]
            _add(down_II, _down_input(module, x_TI[token_S], expert), a_S)
            self.sums.tokens_E[expert] += len(token_S)
            self.sums.weight_E[expert] += a_S.sum()


def _sizes(module: Any) -> tuple[int, int, int]:
    """(hidden, width, experts): down is (E, H, W), or (E, W, H) where experts are input-major."""
    experts, a, b = module.down_proj.shape
    return (b, a, experts) if _input_major(module) else (a, b, experts)


def _input_major(module: Any) -> bool:
    return bool(getattr(module, "is_transposed", type(module).__name__ == "Llama4TextExperts"))


def _routing(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
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


def _down_input(module: Any, x_SI: Tensor, expert: int) -> Tensor:
    """act(gate(x)) * up(x) by the module's own weights and activation."""
    W = module.gate_up_proj[expert]
    gate_up_SO = x_SI @ W if _input_major(module) else x_SI @ W.T
    if getattr(module, "has_bias", False):
        gate_up_SO = gate_up_SO + module.gate_up_proj_bias[expert]
    if hasattr(module, "_apply_gate"):
        h_SW: Tensor = module._apply_gate(gate_up_SO)
        return h_SW
    gate_SW, up_SW = gate_up_SO.chunk(2, dim=-1)
    activated_SW: Tensor = module.act_fn(gate_SW) * up_SW
    return activated_SW


def _add(sum_II: Tensor, x_TI: Tensor, a_T: Tensor) -> None:
    """sum += sum_t a_t x_t x_t^T in float64."""
    for x_SI, a_S in zip(x_TI.split(ROWS), a_T.split(ROWS), strict=True):
        x_SI = x_SI.to(sum_II) * a_S.to(sum_II).sqrt()[:, None]
        sum_II.addmm_(x_SI.T, x_SI)


def _positive(total: Tensor) -> Tensor:
    if float(total) <= 0.0:
        raise InputError("second moment: no token was routed to these experts; calibrate with more tokens")
    return total
