"""`tdmoe-diag models`: which architectures and names are known, and what is known of one checkpoint, from headers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diag.declare import parse
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression.counted import is_tied, stored_twice
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import Architecture, architecture
from tdmoe.stacks.families import FAMILIES, Layout
from tdmoe.stacks.locate import check_stacks
from tdmoe.stacks.stack import WeightStack


@dataclass(frozen=True, slots=True)
class Group:
    """Stacks that are alike: `nbytes` of one of them as stored, scales included."""

    layers: tuple[int, ...]
    projection: str
    shape: tuple[int, int, int]
    encoding: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Description:
    """Facts of a checkpoint's config and headers; `refusal` is why it cannot be measured, None if it can.

    `total_bytes` counts tied embeddings once, also where they are stored beside the head.
    """

    arch: Architecture
    groups: tuple[Group, ...]
    total_bytes: int
    embeddings: str
    refusal: str | None
    notes: tuple[str, ...] = ()

    @property
    def expert_bytes(self) -> int:
        return sum(len(group.layers) * group.nbytes for group in self.groups)


def describe(checkpoint: Checkpoint) -> Description:
    """Read every header, no weight. InputError where not even the architecture is known."""
    arch = architecture(checkpoint.config)
    embeddings, total, notes = "apart from the output head", checkpoint.nbytes(), tuple(checkpoint.notes)
    if is_tied(checkpoint):
        embeddings = "tied: the output head is the same matrix, counted once"
    elif twice := stored_twice(checkpoint):
        embeddings, total = "tied: stored beside the output head, counted once", total - twice
    try:
        stacks = check_stacks(checkpoint, arch)
        return Description(arch, tuple(_groups(stacks)), total, embeddings, None, notes)
    except InputError as error:
        return Description(arch, (), total, embeddings, str(error), notes)


def family_rows() -> list[tuple[str, str, str]]:
    """(family, its model_types, how its experts lie on disk)."""
    return [
        (family.name, ", ".join(family.model_types), "; ".join(dict.fromkeys(map(layout_name, family.layouts))))
        for family in FAMILIES
    ]


def layout_name(layout: Layout) -> str:
    """Layout of the experts of a layer on disk, in words."""
    source = layout["gate"]
    if source.mxfp4:
        return "MXFP4 blocks"
    if source.axes == "OI":
        return "per expert"
    return "fused, input-major" if source.axes == "EIO" else "fused"


def facts(description: Description) -> Iterator[tuple[str, str]]:
    """Pairs (what, value) in the order to show them."""
    arch = description.arch
    yield "family", f"{arch.family.name} ({arch.model_type})"
    yield "MoE layers", f"{parse.spans(arch.layers)} ({len(arch.layers)} of {arch.depth})"
    yield "experts a layer", str(arch.experts)
    yield "hidden size", str(arch.hidden)
    yield "expert width", str(arch.width)
    yield "embeddings", description.embeddings
    yield "supported", f"no: {description.refusal}" if description.refusal else "yes"
    if not description.refusal:
        yield "not checked", "tensors other than the experts'; commands that run the model check them (--dry-run too)"
    yield from (("note", note) for note in description.notes)


def _groups(stacks: list[WeightStack]) -> Iterator[Group]:
    alike: dict[tuple[str, tuple[int, int, int], str, int], list[int]] = {}
    for stack in stacks:
        # two projections that share a tensor also share its scales
        scales = sum(entry.nbytes for entry in stack.scale_entries) * stack.nbytes // _tensor_bytes(stack)
        key = (stack.projection, stack.shape, stack.encoding.name, stack.nbytes + scales)
        alike.setdefault(key, []).append(stack.layer)
    for (projection, shape, encoding, nbytes), layers in alike.items():
        yield Group(tuple(layers), projection, shape, encoding, nbytes)


def _tensor_bytes(stack: WeightStack) -> int:
    return sum(entry.nbytes for entry in stack.entries)
