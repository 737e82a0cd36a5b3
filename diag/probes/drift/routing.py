"""Decisions of the router of a decoder layer while the layer runs: the chosen experts, and its logits before that.

The chosen experts are what the experts module is called with, whatever the family's way of choosing (groups, biases
that only correct the choice). The logits are what transformers itself records as `router_logits`.

Legend: T tokens, K experts a token is routed to, E experts, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diag.lockstep.walk import Watch
from tdmoe.runtime.calibration import MODULE

LOGITS = "router_logits"


@dataclass
class Routing:
    """Decision of one layer for one stream; None where the layer has no router, or the family does not show it."""

    chosen_TE: Tensor | None = None
    logits_TE: Tensor | None = None


def watching(model: nn.Module) -> Watch:
    """A Watch of `diag.lockstep.walk` for this model: what it yields is filled once the decoder layer has run."""
    kind, index = _router(model) or (type(None), 0)

    @contextmanager
    def watch(layer: int, module: nn.Module) -> Iterator[Routing]:
        found, handles = Routing(), []

        def on_experts(experts: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.chosen_TE = _chosen(experts, [*arguments, *named.values()])

        def on_router(_: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            logits = output[index] if isinstance(output, tuple | list) else output
            found.logits_TE = logits.reshape(-1, logits.shape[-1])

        for name, part in module.named_modules():
            if MODULE.search(f"layers.{layer}.{name}"):
                handles.append(part.register_forward_pre_hook(on_experts, with_kwargs=True))
        routers = [part for part in module.modules() if isinstance(part, kind)]
        handles += [router.register_forward_hook(on_router) for router in routers]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()

    return watch


def shows_logits(model: nn.Module) -> bool:
    """Tell whether the family's routers show their logits."""
    return _router(model) is not None


def _router(model: nn.Module) -> tuple[type[nn.Module], int] | None:
    """Class of the routers, and where in their output the logits are, as transformers records them."""
    from transformers.utils.output_capturing import OutputRecorder

    for module in model.modules():
        recorded = (getattr(module, "_can_record_outputs", None) or {}).get(LOGITS)
        for recorder in recorded if isinstance(recorded, list | tuple) else [recorded]:
            if isinstance(recorder, OutputRecorder):
                return recorder.target_class, int(recorder.index)
    return None


def _chosen(experts: Any, values: list[Any]) -> Tensor:
    """chosen_TE from what the experts module is called with.

    Llama-4 sends every token through every expert, multiplied by its routing weight, which is zero where not routed.
    """
    count = getattr(experts, "factored_experts", None) or experts.down_proj.shape[0]
    if len(values) < 3:
        x_ETH: Tensor = values[0].reshape(count, -1, values[0].shape[-1])
        return x_ETH.any(-1).T
    index_TK: Tensor = values[1].reshape(-1, values[1].shape[-1])
    chosen_TE = torch.zeros(len(index_TK), count, dtype=torch.bool, device=index_TK.device)
    return chosen_TE.scatter_(1, index_TK.long(), True)
