"""The down projections of a loaded transformers model: of dense MLPs, of shared experts, of every routed expert.

A routed expert's projection lies in a tensor of all experts, or is a linear module of its own. Entries are addressed as
(output row, input column) whatever the order in memory.

Legend: O outputs, I inputs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, bfloat16, float16, float32, float64

from tdmoe.problems import InputError
from tdmoe.runtime.experts_call import input_major
from tdmoe.stacks.families import LAYER_PREFIXES

_BEFORE = "|".join(re.escape(prefix.partition("{layer}")[0]) for prefix in LAYER_PREFIXES)
LINEAR = re.compile(rf"(?:{_BEFORE})(\d+)\.(.*)\b(?:down_proj|w2|output_linear)")
FUSED = re.compile(r"(?:.*\.)?layers\.(\d+)\..*\bexperts")
ROUTED = re.compile(r"\bexperts\.(\d+)\.")
FLOATS = (float64, float32, bfloat16, float16)


@dataclass(frozen=True)
class Site:
    """One down projection: `projection` is `down`, or `shared_down` of shared experts; `expert` None if not routed."""

    layer: int
    projection: str = "down"
    expert: int | None = None

    def __str__(self) -> str:
        return f"layer {self.layer} {self.projection}" + ("" if self.expert is None else f", expert {self.expert}")


@dataclass(frozen=True)
class Entry:
    """One weight of the model."""

    site: Site
    row: int
    column: int


@dataclass(frozen=True)
class Holder:
    """A module with one down projection, or with those of all experts of its layer in one tensor (`fused`)."""

    site: Site  # of a fused one, without the expert
    module: Any
    fused: bool

    @property
    def weight(self) -> Tensor:
        held: Tensor = self.module.down_proj if self.fused else self.module.weight
        return held


class DownProjections:
    """Down projections of a model; InputError where there are none, or where single weights cannot be set."""

    def __init__(self, model: Any, layers: Collection[int] | None = None) -> None:
        """Find the down projections, of these layers alone where given."""
        self.model = model
        self.holders = [holder for holder in _holders(model) if layers is None or holder.site.layer in layers]
        if not self.holders:
            raise InputError(type(model).__name__, why="has no down projections under a name that is known")
        for holder in self.holders:
            if holder.weight.dtype not in FLOATS:
                raise InputError(
                    holder.site,
                    why=f"is held as {str(holder.weight.dtype).removeprefix('torch.')}",
                    remedy="setting single weights needs a bf16, fp16 or fp32 version of the checkpoint",
                )

    def matrix(self, site: Site) -> Tensor:
        """W_OI of a site, a view: writing to it changes the model. InputError where the model has no such site."""
        if (W_OI := self.find(site)) is None:
            raise InputError(site, why="is no down projection of this model")
        return W_OI

    def find(self, site: Site) -> Tensor | None:
        """`matrix`, or None where there is none."""
        for holder in self.holders:
            if not holder.fused and holder.site == site:
                return holder.weight.data
            if holder.fused and holder.site == Site(site.layer, site.projection) and site.expert is not None:
                if site.expert >= len(holder.weight):
                    return None
                W = holder.weight.data[site.expert]
                return W.T if input_major(holder.module) else W
        return None

    @contextmanager
    def zeroed(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Set those weights to zero inside the block, and back bit for bit after it, whatever happens."""
        before: list[tuple[Tensor, Entry, Tensor]] = []
        try:
            for entry in entries:
                W_OI = self.matrix(entry.site)
                before.append((W_OI, entry, W_OI[entry.row, entry.column].clone()))
                W_OI[entry.row, entry.column] = 0.0
            yield
        finally:
            for W_OI, entry, value in reversed(before):
                W_OI[entry.row, entry.column] = value


def site_of(path: str) -> Site | None:
    """Site of a linear module of that name; None where it is no down projection of a language model's layer."""
    if (match := LINEAR.fullmatch(path)) is None:
        return None
    routed = ROUTED.search(match[2])
    return Site(int(match[1]), "shared_down" if "shared" in match[2] else "down", int(routed[1]) if routed else None)


def _holders(model: Any) -> Iterator[Holder]:
    for name, module in model.named_modules():
        fused, site = FUSED.fullmatch(name), site_of(name)
        if fused and isinstance(getattr(module, "down_proj", None), Tensor):
            yield Holder(Site(int(fused[1])), module, fused=True)
        elif site and getattr(getattr(module, "weight", None), "ndim", 0) == 2:
            yield Holder(site, module, fused=False)
