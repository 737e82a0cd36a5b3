"""Second moments of what a layer's experts are given: the C of the activation-aware loss, from routed tokens.

    gate, up   C = sum_t a_t x_t x_t^T / sum_t a_t        x_t the inputs of the layer's experts; one matrix a layer
    down       C = sum_tk a_tk h_tk h_tk^T / sum_tk a_tk  h_tk = act(gate(x_t)) * up(x_t) of the k-th expert of token t;
                                                          pooled over experts, or one matrix an expert

Weighting `count`: every routed token counts once, a_tk = 1 and a_t = sum_k a_tk. With top-k routing that is just k
times sum x x^T, so the pooled gate/up matrix does not see the routing at all; only `gate_squared`, a_tk = g_tk^2 with g
the routing weight (the token's share of the loss at the layer's output), does. Llama-4 has g in the inputs already.

The output-side metric is the second moment of the loss' gradient at a projection's output,

    D = sum_tk d_tk d_tk^T / (number of routed tokens),   d_tk = dL/dy_tk

with L the summed next-token cross-entropy in nats, so that tr(D dW C dW^T) approximates what an error dW does to L
(K-FAC, Martens & Grosse 2015, with the empirical Fisher). Weights stay frozen, and only the activations' gradients of
the windows at hand are kept. Those of the projections are made again layer by layer from the gradient at the output
of the experts module, with dL/dy_tk = g_tk dL/dy_t.

Statistics are collected by hooks on the experts modules of a transformers model, whatever implementation runs them, and
the inputs of down are computed again from the module's own weights. Sums are float64; memory does not grow with tokens.

Legend: T tokens, K experts a token is routed to, E experts, I inputs and O outputs of the projection, H hidden size,
W expert width, S rows that one expert gets, P projections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from tdmoe.problems import InputError
from tdmoe.runtime.experts_call import activate, gate_up, input_major, routing
from tdmoe.stacks.families import PROJECTIONS

Weighting = Literal["count", "gate_squared"]
PerExpert = Literal["none", "down", "all"]
MODULE = re.compile(r"layers\.(\d+)\..*\bexperts$")
PRIOR = 1.0  # tokens a feature that the pooled matrix counts for beside an expert's own
OUTLYING = 2.0  # times the mean magnitude: MoE-SVD's activation outliers
ROWS = 4096  # whose products are added in float64 at once


@dataclass
class LayerMoments:
    """Sums of one layer. `tokens_E`, `weight_E` and `gate_E`: routed tokens of each expert, their a, and their g.

    `outlying_E` sums, over an expert's tokens, the share of entries of h that exceed twice the token's mean |h|.

    Sums of inputs are (I, I) pooled or (E, I, I) per expert; those of output gradients are there where collected, with
    sum_t ||d_t||^2 ||x_t||^2 of gate, up and down of each expert: the trace of the empirical Fisher information of W_e.
    """

    input_II: Tensor
    down_II: Tensor
    tokens_E: Tensor
    weight_E: Tensor
    gate_E: Tensor
    outlying_E: Tensor
    gate_output_OO: Tensor | None = None
    up_output_OO: Tensor | None = None
    down_output_OO: Tensor | None = None
    fisher_PE: Tensor | None = None

    def moment(self, projection: str) -> Tensor:
        """C of a projection, pooled over the experts."""
        sums = self._sums(projection)
        return (sums if sums.ndim == 2 else sums.sum(0)) / _positive(self.weight_E.sum())

    def has_own(self, projection: str) -> bool:
        """Tell whether sums of each expert's own inputs were collected."""
        return self._sums(projection).ndim == 3

    def own_moments(self, projection: str, prior: float = PRIOR) -> Callable[[int], Tensor]:
        """e -> (1 - s) C_e + s C of expert e's inputs, C the pooled one and s the `shrinkage`."""
        sums_EII = self._sums(projection)
        assert sums_EII.ndim == 3, "collected per expert"
        pooled_II = self.moment(projection)

        def moment(expert: int) -> Tensor:
            share = self.shrinkage(projection, expert, prior)
            own_II = sums_EII[expert] / self.weight_E[expert].clamp(min=torch.finfo(torch.float64).tiny)
            return (1.0 - share) * own_II + share * pooled_II

        return moment

    def shrinkage(self, projection: str, expert: int, prior: float = PRIOR) -> float:
        """m / (n + m), n the tokens of the expert and m = `prior` * I the tokens that the pool counts for.

        Linear shrinkage (Ledoit & Wolf 2004) with the intensity of a conjugate prior: a C_e from fewer tokens than
        features is singular; an expert that saw none has the pooled matrix, one that saw many keeps its own.
        """
        m, n = prior * self._sums(projection).shape[-1], float(self.tokens_E[expert])
        return m / (n + m) if n + m > 0 else 1.0

    def output_moment(self, projection: str) -> Tensor | None:
        """D of a projection; None where it was not collected."""
        sums_OO = {"gate": self.gate_output_OO, "up": self.up_output_OO, "down": self.down_output_OO}[projection]
        return None if sums_OO is None else sums_OO / _positive(self.tokens_E.sum())

    def fisher(self, projections: Sequence[str]) -> Tensor | None:
        """(E,): trace of the Fisher information of each expert's matrices; None where it was not collected."""
        if self.fisher_PE is None:
            return None
        return self.fisher_PE[[PROJECTIONS.index(projection) for projection in projections]].sum(0)

    def _sums(self, projection: str) -> Tensor:
        return self.down_II if projection == "down" else self.input_II


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
        raise InputError(type(model).__name__, why="has no fused experts modules", remedy="transformers 5 is needed")
    return modules


@contextmanager
def collecting(
    model: Any,
    moments: Moments,
    *,
    layers: Iterable[int] | None = None,
    weighting: Weighting = "count",
    per_expert: PerExpert = "none",
    outputs: bool = False,
) -> Iterator[Callable[[Tensor], None]]:
    """Yields a function that runs token windows (B, T) through `model`, which adds to `moments`.

    `outputs` runs them backwards too. Hooks are removed and the model is as before at the end, whatever happens.
    """
    modules = experts_modules(model)
    chosen = set(modules if layers is None else layers)
    if missing := sorted(chosen - set(modules)):
        raise InputError(f"layer {missing[0]}", why="has no experts in this model", remedy=f"it has {sorted(modules)}")
    device = next(model.parameters()).device
    with ExitStack() as undo:
        for layer in sorted(chosen):
            collector = _Collector(moments, layer, modules[layer], weighting, per_expert, outputs)
            undo.callback(modules[layer].register_forward_hook(collector, with_kwargs=True).remove)
        if outputs:
            undo.enter_context(_frozen(model))

        def run(window_BT: Tensor) -> None:
            window_BT = window_BT.to(device)
            with torch.set_grad_enabled(outputs):
                logits_BTV = model(input_ids=window_BT, use_cache=False).logits
                if outputs:
                    scores, targets = logits_BTV[:, :-1].float().flatten(0, 1), window_BT[:, 1:].flatten()
                    torch.nn.functional.cross_entropy(scores, targets, reduction="sum").backward()
            moments.tokens += window_BT.numel()

        yield run


def calibrate(model: Any, windows: Iterable[Tensor], moments: Moments | None = None, **options: Any) -> Moments:
    """Run token windows (B, T) through the model; goes on from `moments` if given. Options: `collecting`."""
    moments = moments or Moments()
    with collecting(model, moments, **options) as run:
        for window_BT in windows:
            run(window_BT)
    return moments


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """No weight asks for a gradient, but what the first layer is given does."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    embeddings = model.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda module, inputs, output: output.requires_grad_())
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        handle.remove()
        for parameter in trainable:
            parameter.requires_grad_(True)


class _Collector:
    """A forward hook of one experts module."""

    def __init__(
        self, moments: Moments, layer: int, module: Any, weighting: Weighting, per_expert: PerExpert, outputs: bool
    ) -> None:
        self.weighting, self.outputs = weighting, outputs
        hidden, width, experts = _sizes(module)
        if outputs and not hasattr(module, "_apply_gate"):
            raise InputError(
                type(module).__name__,
                why="runs its experts in a way of its own",
                remedy="gradients at their outputs are not supported",
            )
        if layer not in moments.layers:
            device = module.down_proj.device

            def zeros(*shape: int) -> Tensor:
                return torch.zeros(shape, dtype=torch.float64, device=device)

            moments.layers[layer] = LayerMoments(
                zeros(*(experts,) * (per_expert == "all"), hidden, hidden),
                zeros(*(experts,) * (per_expert != "none"), width, width),
                *(zeros(experts) for _ in range(4)),
                *((zeros(n, n) for n in (width, width, hidden)) if outputs else ()),
                *((zeros(len(PROJECTIONS), experts),) if outputs else ()),
            )
        self.sums = moments.layers[layer]

    def __call__(self, module: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        with torch.no_grad():
            x_TI, index_TK, weight_TK = (t.detach() for t in routing(module, arguments, named))
            self._add_inputs(module, x_TI, index_TK, weight_TK)
        if self.outputs:
            output.register_hook(lambda d_TH: self._add_outputs(module, x_TI, index_TK, weight_TK, d_TH))

    def _add_inputs(self, module: Any, x_TI: Tensor, index_TK: Tensor, weight_TK: Tensor) -> None:
        sums, g_TK = self.sums, weight_TK.double()
        a_TK = g_TK.square() if self.weighting == "gate_squared" else torch.ones_like(g_TK)
        a_TK = a_TK * (index_TK < len(sums.tokens_E))  # expert parallelism marks others' tokens with E
        if sums.input_II.ndim == 2:
            _add(sums.input_II, x_TI, a_TK.sum(1))
        for expert, token_S, slot_S in self._routed(index_TK):
            a_S, x_SI = a_TK[token_S, slot_S], x_TI[token_S]
            if sums.input_II.ndim == 3:
                _add(sums.input_II[expert], x_SI, a_S)
            h_SW = activate(module, gate_up(module, x_SI, expert))
            _add(sums.down_II if sums.down_II.ndim == 2 else sums.down_II[expert], h_SW, a_S)
            sums.tokens_E[expert] += len(token_S)
            sums.weight_E[expert] += a_S.sum()
            sums.gate_E[expert] += g_TK[token_S, slot_S].sum()
            outlying_SW = h_SW.abs() > OUTLYING * h_SW.abs().mean(1, keepdim=True)
            sums.outlying_E[expert] += outlying_SW.double().mean(1).sum()

    def _add_outputs(self, module: Any, x_TI: Tensor, index_TK: Tensor, weight_TK: Tensor, d_TH: Tensor) -> None:
        sums, d_TH = self.sums, d_TH.reshape(-1, d_TH.shape[-1])
        assert sums.gate_output_OO is not None and sums.up_output_OO is not None and sums.down_output_OO is not None
        assert sums.fisher_PE is not None
        for expert, token_S, slot_S in self._routed(index_TK):
            d_SH = d_TH[token_S] * weight_TK[token_S, slot_S, None].to(d_TH)
            W = module.down_proj[expert]
            d_SW, x_SI = d_SH @ (W.T if input_major(module) else W), x_TI[token_S]
            with torch.enable_grad():
                gate_up_SO = gate_up(module, x_SI, expert).detach().requires_grad_()
                h_SW = activate(module, gate_up_SO)
                (d_SO,) = torch.autograd.grad(h_SW, gate_up_SO, d_SW)
            concatenated = getattr(module, "is_concatenated", True)
            gate_SW, up_SW = d_SO.chunk(2, -1) if concatenated else (d_SO[:, ::2], d_SO[:, 1::2])
            one_S = torch.ones(len(token_S), device=d_SH.device)
            _add(sums.gate_output_OO, gate_SW, one_S)
            _add(sums.up_output_OO, up_SW, one_S)
            _add(sums.down_output_OO, d_SH, one_S)
            for p, (d, x) in enumerate(((gate_SW, x_SI), (up_SW, x_SI), (d_SH, h_SW.detach()))):
                squares_S = d.double().square().sum(1) * x.double().square().sum(1)
                sums.fisher_PE[p, expert] += squares_S.sum()

    def _routed(self, index_TK: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(expert, its tokens, their slots)."""
        for expert in index_TK.unique().tolist():
            if expert < len(self.sums.tokens_E):
                token_S, slot_S = (index_TK == expert).nonzero(as_tuple=True)
                yield expert, token_S, slot_S


def _sizes(module: Any) -> tuple[int, int, int]:
    """(hidden, width, experts): down is (E, H, W), or (E, W, H) where experts are input-major."""
    experts, a, b = module.down_proj.shape
    return (b, a, experts) if input_major(module) else (a, b, experts)


def _add(sum_II: Tensor, x_TI: Tensor, a_T: Tensor) -> None:
    """sum += sum_t a_t x_t x_t^T in float64."""
    for x_SI, a_S in zip(x_TI.split(ROWS), a_T.split(ROWS), strict=True):
        x_SI = x_SI.to(sum_II) * a_S.to(sum_II).sqrt()[:, None]
        sum_II.addmm_(x_SI.T, x_SI)


def _positive(total: Tensor) -> Tensor:
    if float(total) <= 0.0:
        raise InputError(
            "second moment", why="no token was routed to these experts", remedy="calibrate with more tokens"
        )
    return total
