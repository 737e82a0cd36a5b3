"""A dense model and any number of variants of it, walked together over token windows, decoder layer by decoder layer.

A variant is the dense model with the experts module of some layers replaced. Where two of them have been the same so
far they share one residual stream. So up to its first replaced layer a variant costs nothing, nested sets of layers
share all that they have in common, and one dense pass serves all.

Embeddings, masks and positions are the model's own: its forward runs once with stand-ins for its decoder layers. They
note what each is called with (that depends on the windows' shape, not on the residual stream) and pass the stream on
unchanged. The same with the last stand-in returning a given stream gives the model's own final norm, head and logits.

Several batches are walked layer by layer, so that a layer's weights are needed once for all of them: `resident` holds
them while they are, which may be the only time that they are in memory.

Legend: B windows of a batch, T tokens of a window, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tdmoe.problems import InputError
from tdmoe.runtime.calibration import MODULE
from tdmoe.runtime.modules import FactoredExperts

Replaced = Mapping[int, nn.Module]  # {layer: the experts module in place of the dense one}
Resident = Callable[[int], AbstractContextManager[None]]  # holds a layer's weights while it is used
Watch = Callable[[int, nn.Module], AbstractContextManager[Any]]  # notes what happens in a decoder layer


@dataclass
class Stream:
    """The residual stream of the dense model, and of the variants that have been the same up to here.

    `members` are the variants' numbers, -1 for the dense model itself. `seen` is what a Watch noted of the layer that
    the stream has just left.
    """

    h_BTH: Tensor
    members: list[int] = field(default_factory=list)
    seen: Any = None


OnLayer = Callable[[int, list[Stream]], None]  # told every layer's output; the dense model's stream comes first


class Walk:
    """Walk over one loaded model, its experts dense or in factor form; it is left as it was after every call."""

    def __init__(
        self,
        model: nn.Module,
        resident: Resident = lambda layer: nullcontext(),
        watch: Watch = lambda layer, module: nullcontext(),
    ) -> None:
        """InputError where the decoder layers are not one list that holds the experts modules."""
        self.model, self.resident, self.watch = model, resident, watch
        self.experts = _experts(model)
        names = {id(module): name for name, module in model.named_modules()}
        self.names = {layer: names[id(module)] for layer, module in self.experts.items()}
        self._slots: dict[int, tuple[nn.Module, str]] = {}
        for layer, module in self.experts.items():
            parent, _, name = names[id(module)].rpartition(".")
            self._slots[layer] = model.get_submodule(parent), name
        path = names[id(next(iter(self.experts.values())))]
        found = MODULE.search(path)
        assert found is not None, "found by it"
        owner = path[: found.start()].rstrip(".")
        self._owner = model.get_submodule(owner)
        self.layers: nn.ModuleList = self._owner.layers  # type: ignore[assignment]

    @torch.no_grad()
    def run(
        self, ids_BT: Tensor, variants: Sequence[Replaced], on_layer: OnLayer = lambda layer, s: None
    ) -> list[Tensor]:
        """The last layer's h_BTH, of the dense model and then of every variant (one tensor where they are alike)."""
        streams: list[Stream] = []
        for layer, _, streams in self.steps([ids_BT], variants):
            on_layer(layer, streams)
        return [next(s.h_BTH for s in streams if member in s.members) for member in range(-1, len(variants))]

    @torch.no_grad()
    def steps(
        self, batches: Sequence[Tensor], variants: Sequence[Replaced] = ()
    ) -> Iterator[tuple[int, int, list[Stream]]]:
        """(layer, number of the batch, its streams) after every layer, all batches of a layer before the next layer.

        The dense model's stream comes first. A layer's weights are asked for once, and all batches' streams are held.
        """
        everyone = [-1, *range(len(variants))]
        streams: list[list[Stream]] = []
        calls: list[list[tuple[int, Any, Any]]] = []
        for ids_BT in batches:
            start_BTH, called = self._calls(ids_BT)
            streams.append([Stream(start_BTH, everyone)])
            calls.append(next((other for other in calls if _same(other, called)), called))
        for layer in range(len(self.layers)):
            with self.resident(layer):
                for number in range(len(batches)):
                    _, arguments, named = calls[number][layer]
                    streams[number] = list(self._step(layer, streams[number], variants, arguments, named))
                    yield layer, number, streams[number]

    @torch.no_grad()
    def logits(self, ids_BT: Tensor, h_BTH: Tensor) -> Tensor:
        """The model's own logits, as if its last decoder layer had given that stream."""
        with self._standing_in(h_BTH):
            logits_BTV: Tensor = self.model(input_ids=ids_BT, use_cache=False).logits
        return logits_BTV

    def _step(
        self, layer: int, streams: list[Stream], variants: Sequence[Replaced], arguments: Any, named: Any
    ) -> Iterator[Stream]:
        """Every stream through the layer, split where its members' experts differ."""
        for stream in streams:
            parts: dict[int, tuple[nn.Module | None, list[int]]] = {}
            for member in stream.members:
                module = None if member < 0 else variants[member].get(layer)
                parts.setdefault(id(module), (module, []))[1].append(member)
            for module, members in parts.values():
                put = {} if module is None else {layer: module}
                with self.replaced(put), self.watch(layer, self.layers[layer]) as seen:
                    out = self.layers[layer](stream.h_BTH, *arguments, **named)
                if not isinstance(out, Tensor):
                    raise self._unfollowable()
                yield Stream(out, members, seen)

    @contextmanager
    def replaced(self, modules: Replaced) -> Iterator[None]:
        """The model with these experts modules instead of its own."""
        try:
            for layer, module in modules.items():
                setattr(*self._slots[layer], module)
            yield
        finally:
            for layer in modules:
                setattr(*self._slots[layer], self.experts[layer])

    def _calls(self, ids_BT: Tensor) -> tuple[Tensor, list[tuple[int, Any, Any]]]:
        """The embeddings, and what every decoder layer is called with beside the stream, in order."""
        with self._standing_in() as calls:
            try:
                self.model(input_ids=ids_BT, use_cache=False)
            except (ValueError, TypeError) as error:  # takes a tuple from a layer
                raise self._unfollowable() from error
        if [number for number, *_ in calls] != list(range(len(self.layers))):
            raise self._unfollowable()
        return calls[0][1], [(layer, arguments, named) for layer, _, arguments, named in calls]

    def _unfollowable(self) -> InputError:
        return InputError(
            f"{type(self.model).__name__}: its decoder layers pass on more than one tensor; its residual stream cannot "
            "be followed"
        )

    @contextmanager
    def _standing_in(self, last_BTH: Tensor | None = None) -> Iterator[list[tuple[int, Tensor, Any, Any]]]:
        calls: list[tuple[int, Tensor, Any, Any]] = []
        self._owner.layers = nn.ModuleList(
            [_StandIn(number, layer, calls, last_BTH) for number, layer in enumerate(self.layers)]
        )
        try:
            yield calls
        finally:
            self._owner.layers = self.layers


def _experts(model: nn.Module) -> dict[int, nn.Module]:
    """{layer: its experts module}, dense or in factor form; InputError where there are none."""
    found = ((MODULE.search(name), module) for name, module in model.named_modules())
    modules = {
        int(match[1]): module
        for match, module in found
        if match and (hasattr(module, "down_proj") or isinstance(module, FactoredExperts))
    }
    if not modules:
        raise InputError(f"{type(model).__name__}: has no fused experts modules; transformers 5 is needed")
    return modules


def _same(one: Any, other: Any) -> bool:
    """Tell whether calls are alike: windows of a shape mostly share masks and positions."""

    def alike(a: Any, b: Any) -> bool:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return torch.equal(a, b)
        return a is b or (type(a) is type(b) and bool(a == b))

    ours, theirs = tree_leaves(one), tree_leaves(other)
    return len(ours) == len(theirs) and all(map(alike, ours, theirs))


class _StandIn(nn.Module):
    """Notes what a decoder layer is called with; passes on the stream that it is given, or `instead`."""

    def __init__(self, number: int, layer: nn.Module, calls: list[Any], instead: Tensor | None) -> None:
        super().__init__()
        self.__dict__["standing_in_for"] = layer  # no submodule: its parameters are not this one's
        self.number, self.calls, self.instead = number, calls, instead

    def forward(self, hidden_states: Tensor, *arguments: Any, **named: Any) -> Tensor:
        self.calls.append((self.number, hidden_states, arguments, named))
        return hidden_states if self.instead is None else self.instead

    def __getattr__(self, name: str) -> Any:
        """Attributes that the model asks of the layer itself, as its kind of attention."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["standing_in_for"], name)
