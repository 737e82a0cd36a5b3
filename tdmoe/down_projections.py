"""The down projections of a loaded transformers model: of dense MLPs, of shared experts, of every routed expert.

A routed expert's projection lies in a tensor of all experts, or is a linear module of its own. Entries are addressed as
(output row, input column) whatever the order in memory.

Legend: O outputs, I inputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, bfloat16, float16, float32, float64

from tdmoe.calibration import _input_major as input_major
from tdmoe.families import LAYER_PREFIXES
from tdmoe.problems import InputError

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
    """A model's; InputError where there are none, or where single weights cannot be set."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.holders = list(_holders(model))
        if not self.holders:
            raise InputError(f"{type(model).__name__}: has no down projections under a name that is known")
        for holder in self.holders:
            if holder.weight.dtype not in FLOATS:
                raise InputError(
                    f"{holder.site}: is held as {str(holder.weight.dtype).removeprefix('torch.')}; setting single "
                    "weights needs a bf16, fp16 or fp32 version of the checkpoint"
                )

    def matrix(self, site: Site) -> Tensor:
        """W_OI of a site, a view: writing to it changes the model. InputError where the model has no such site."""
        for holder in self.holders:
            if not holder.fused and holder.site == site:
                return holder.weight.data
            if holder.fused and holder.site == Site(site.layer, site.projection) and site.expert is not None:
                if site.expert >= len(holder.weight):
                    raise InputError(f"{site}: the layer has experts 0 to {len(holder.weight) - 1}")
                W = holder.weight.data[site.expert]
                return W.T if input_major(holder.module) else W
        raise InputError(f"{site}: is no down projection of this model")

    @contextmanager
    def zeroed(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Those weights are zero inside the block and what they were after it, bit for bit, whatever happens."""
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


def _holders(model: Any) -> Iterator[Holder]:
    for name, module in model.named_modules():
        fused, linear = FUSED.fullmatch(name), LINEAR.fullmatch(name)
        if fused and isinstance(getattr(module, "down_proj", None), Tensor):
            yield Holder(Site(int(fused[1])), module, fused=True)
        elif linear and getattr(getattr(module, "weight", None), "ndim", 0) == 2:
            routed = ROUTED.search(linear[2])
            projection = "shared_down" if "shared" in linear[2] else "down"
            yield Holder(Site(int(linear[1]), projection, int(routed[1]) if routed else None), module, fused=False)
