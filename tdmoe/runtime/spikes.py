"""Super weights by their activation spikes (Yu et al. 2024, "The Super Weight in Large Language Models", sec. 3).

A super weight W_oi of a down projection multiplies one very large input into one very large output:

    y_to ~ W_oi x_ti,   with |x_ti| the largest input and |y_to| the largest output of this projection, at one token t

Both have to exceed a threshold. It is set to zero and the model is run again, until no spike is left: the next one may
be hidden by the first. One weight at a time, the most upstream layer first, since what a spike leaves in the residual
stream may look like one further down. Each token window is searched by itself.

Inputs of a routed expert's down projection are made again from the module's own weights
(tdmoe/runtime/experts_call.py).

Legend: T tokens, I inputs, O outputs, S rows that one expert gets, K experts a token is routed to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tdmoe.problems import WeightError
from tdmoe.runtime.down_projections import DownProjections, Entry, Holder, Site
from tdmoe.runtime.experts_call import activate, gate_up, input_major, routing

THRESHOLD = 50.0  # of the published procedure, for inputs and outputs
TIE = 0.99  # of the largest input counts as much: clamped activations (GPT-OSS) reach their limit at many tokens
MOST = 20  # super weights that are looked for


@dataclass(frozen=True)
class Spike:
    """The largest input (at `column`) and output (at `row`) of a projection in one window, with their tokens there.

    `input_ratio` and `output_ratio` are over the median magnitude in that window (None where that is zero); `value` is
    W_oi, and `share` the part W_oi x_ti of the output that it makes, where both are at one token.
    """

    site: Site
    row: int
    column: int
    value: float
    input: float
    output: float
    input_ratio: float | None
    output_ratio: float | None
    token: int
    same_token: bool

    @property
    def strength(self) -> float:
        """min(|x|, |y|): exceeds the threshold where both do."""
        return min(abs(self.input), abs(self.output))

    @property
    def order(self) -> tuple[bool, float]:
        """The stronger the later: those at one token after all others."""
        return self.same_token, self.strength

    @property
    def share(self) -> float | None:
        """W_oi x_ti / y_to."""
        return self.value * self.input / self.output if self.same_token and self.output else None

    @property
    def entry(self) -> Entry:
        return Entry(self.site, self.row, self.column)


@dataclass
class Watched:
    """Sums of every projection that was given tokens: its strongest spike, sum_t x_t^2 by input, and the tokens."""

    spikes: dict[Site, Spike] = field(default_factory=dict)
    squares_I: dict[Site, Tensor] = field(default_factory=dict)
    tokens: dict[Site, int] = field(default_factory=dict)

    def mean_square(self, site: Site) -> Tensor | None:
        """The diagonal of the second moment of a projection's inputs; None where it was given no token."""
        return self.squares_I[site] / self.tokens[site] if site in self.squares_I else None

    def above(self, threshold: float, but: Collection[Entry]) -> Spike | None:
        """The spike above the threshold that is most upstream, and the strongest of its layer; not of those entries."""
        spikes = (spike for spike in self.spikes.values() if spike.same_token and spike.entry not in but)
        spikes = (spike for spike in spikes if spike.strength > threshold)
        return min(spikes, key=lambda spike: (spike.site.layer, -spike.strength), default=None)

    def strongest(self) -> dict[int, Spike]:
        """{layer: its strongest spike}, those at one token before all others."""
        best: dict[int, Spike] = {}
        for site, spike in self.spikes.items():
            if site.layer not in best or spike.order > best[site.layer].order:
                best[site.layer] = spike
        return dict(sorted(best.items()))


def watch(
    projections: DownProjections, windows: Iterable[Tensor], on_window: Callable[[], None] = lambda: None
) -> Watched:
    """Run token windows (T,), one at a time; hooks are removed at the end, whatever happens."""
    watched = Watched()
    device = next(projections.model.parameters()).device
    with _hooks(projections, watched), torch.no_grad():
        for window_T in windows:
            projections.model(input_ids=window_T[None].to(device), use_cache=False)
            on_window()
    return watched


def discover(
    projections: DownProjections,
    windows: Sequence[Tensor],
    threshold: float = THRESHOLD,
    most: int = MOST,
    *,
    first: Watched | None = None,
    on_window: Callable[[], None] = lambda: None,
) -> list[Spike]:
    """Super weights in the order found, at most `most`; where there are as many, more may be left.

    The model is as before at the end. `first`: what a pass over these windows has shown already.
    """
    found: list[Spike] = []
    with ExitStack() as undo:
        watched = first or watch(projections, windows, on_window)
        while len(found) < most:
            spike = watched.above(threshold, [earlier.entry for earlier in found])
            if spike is None:
                break
            found.append(spike)
            undo.enter_context(projections.zeroed([spike.entry]))
            watched = watch(projections, windows, on_window)
    return found


@contextmanager
def _hooks(projections: DownProjections, watched: Watched) -> Iterator[None]:
    with ExitStack() as undo:
        for holder in projections.holders:
            watcher = _of_experts(holder, watched) if holder.fused else _of_linear(holder, watched)
            undo.callback(holder.module.register_forward_hook(watcher, with_kwargs=True).remove)
        yield


def _of_linear(holder: Holder, watched: Watched) -> Callable[..., None]:
    def hook(module: Any, arguments: tuple[Any, ...], named: dict[str, Any], y: Tensor) -> None:
        x = (*arguments, *named.values())[0]
        x_TI, y_TO = x.flatten(0, -2), y.flatten(0, -2)
        if len(x_TI):
            _add(watched, holder.site, x_TI, y_TO, torch.arange(len(x_TI), device=x.device), holder.weight)

    return hook


def _of_experts(holder: Holder, watched: Watched) -> Callable[..., None]:
    def hook(module: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        x_TI, index_TK, _ = routing(module, arguments, named)
        for expert in index_TK.unique().tolist():
            if expert >= len(holder.weight):  # expert parallelism marks others' tokens so
                continue
            token_S = (index_TK == expert).any(1).nonzero().squeeze(1)
            h_SI = activate(module, gate_up(module, x_TI[token_S], expert))
            W = module.down_proj[expert]
            W_OI = W.T if input_major(module) else W
            y_SO = h_SI @ W_OI.T
            if getattr(module, "has_bias", False):
                y_SO = y_SO + module.down_proj_bias[expert]
            _add(watched, Site(holder.site.layer, holder.site.projection, expert), h_SI, y_SO, token_S, W_OI)

    return hook


def _add(watched: Watched, site: Site, x_SI: Tensor, y_SO: Tensor, token_S: Tensor, W_OI: Tensor) -> None:
    spike = _spike(site, x_SI, y_SO, token_S, W_OI)
    if site not in watched.spikes or spike.order > watched.spikes[site].order:
        watched.spikes[site] = spike
    squares_I = x_SI.double().square().sum(0)
    watched.squares_I[site] = watched.squares_I[site] + squares_I if site in watched.squares_I else squares_I
    watched.tokens[site] = watched.tokens.get(site, 0) + len(x_SI)


def _spike(site: Site, x_SI: Tensor, y_SO: Tensor, token_S: Tensor, W_OI: Tensor) -> Spike:
    if not (torch.isfinite(x_SI).all() and torch.isfinite(y_SO).all()):
        raise WeightError(f"{site}: its activations are NaN or infinite; load a bf16 or fp32 version of the model")
    (t, row), (s, column) = _largest(y_SO), _largest(x_SI)
    best_I = x_SI[t].abs()
    if same := bool(best_I.max() >= TIE * x_SI[s, column].abs()):
        s, column = t, int(best_I.argmax())
    ratios = _over_median(x_SI, s, column), _over_median(y_SO, t, row)
    x, y = float(x_SI[s, column]), float(y_SO[t, row])
    return Spike(site, row, column, float(W_OI[row, column]), x, y, *ratios, int(token_S[t]), same)


def _largest(x_SI: Tensor) -> tuple[int, int]:
    return divmod(int(x_SI.abs().argmax()), x_SI.shape[1])


def _over_median(x_SI: Tensor, s: int, i: int) -> float | None:
    median = float(x_SI.abs().float().median())
    return abs(float(x_SI[s, i])) / median if median else None
