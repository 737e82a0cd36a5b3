"""A dense model and any number of variants of it, walked together over token windows, decoder layer by decoder layer.

A variant is the dense model with the experts module of some layers replaced. Where two of them have been the same so
far they share one residual stream, so that up to its first replaced layer a variant costs nothing, nested sets of
layers share all that they have in common, and one dense pass serves all.

Embeddings, masks and positions are the model's own: its forward runs once with stand-ins for its decoder layers, which
note what each is called with (that depends on the windows' shape, not on the residual stream) and pass the stream on
unchanged. The same with the last stand-in returning a given stream gives the model's own final norm, head and logits.

Legend: B windows of a batch, T tokens of a window, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tdmoe.calibration import MODULE, experts_modules
from tdmoe.problems import InputError

Replaced = Mapping[int, nn.Module]  # {layer: the experts module in place of the dense one}
Resident = Callable[[int], AbstractContextManager[None]]  # holds a layer's weights while it is used


@dataclass
class Stream:
    """The residual stream of the dense model, and of the variants that have been the same up to here.

    `members` are the variants' numbers, -1 for the dense model itself.
    """

    h_BTH: Tensor
    members: list[int] = field(default_factory=list)


OnLayer = Callable[[int, list[Stream]], None]  # told every layer's output; the dense model's stream comes first


class Walk:
    """Of one loaded model; it is left as it was after every call."""

    def __init__(self, model: nn.Module, resident: Resident = lambda layer: nullcontext()) -> None:
        """InputError where the decoder layers are not one list that holds the experts modules."""
        self.model, self.resident = model, resident
        self.experts = experts_modules(model)
        names = {id(module): name for name, module in model.named_modules()}
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
        start_BTH, calls = self._calls(ids_BT)
        streams = [Stream(start_BTH, [-1, *range(len(variants))])]
        for layer, arguments, named in calls:
            with self.resident(layer):
                streams = list(self._step(layer, streams, variants, arguments, named))
            on_layer(layer, streams)
        return [next(s.h_BTH for s in streams if member in s.members) for member in range(-1, len(variants))]

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
                with self.replaced({} if module is None else {layer: module}):
                    out = self.layers[layer](stream.h_BTH, *arguments, **named)
                if not isinstance(out, Tensor):
                    raise self._unfollowable()
                yield Stream(out, members)

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
        if not calls:
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
        """What the model asks of the layer itself, as its kind of attention."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["standing_in_for"], name)
