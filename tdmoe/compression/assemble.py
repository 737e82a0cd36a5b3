"""A compressed checkpoint completed around the shards of its stacks: in factor form, or rebuilt dense.

    factored   the factors as they are, everything else copied; tdmoe/hub.py loads it
    dense      every tensor with the name, shape and dtype of the original, for programs that know no factors; as large
               as the original, and only what was lost is gone

Legend: E experts, O outputs, I inputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from tdmoe.checkpoint.encodings import Plain
from tdmoe.checkpoint.layout import quantization_config, shard_name
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.checkpoint.safetensors_header import TensorEntry
from tdmoe.checkpoint.writer import (
    Pieces,
    copy_small_files,
    tensor_bytes,
    write_config,
    write_index,
    write_shards,
    write_tensors,
)
from tdmoe.compression.unquantised import QUANTIZATION, decoded, pieces, presented, unquantised
from tdmoe.forms import Factored, restore
from tdmoe.numerics.errors import Rebuild as Rebuilt
from tdmoe.stacks.architecture import Architecture
from tdmoe.stacks.families import MEMBERS, PROJECTIONS
from tdmoe.stacks.locate import expert_tensors, experts_module, open_stack
from tdmoe.stacks.stack import WeightStack

Stacks = Mapping[int, list[str]]  # {layer: projections that were compressed}
OnWritten = Callable[[int], None]  # told the bytes of a shard as they are written


def factored(
    to: Path, checkpoint: Checkpoint, arch: Architecture, stacks: Stacks, on_written: OnWritten = lambda count: None
) -> None:
    """Complete `to`, where the shards of `stacks` lie.

    Projections of a touched layer that were not compressed are stored dense under our names; all other tensors are
    copied byte by byte, tokenizer and generation config too. Of a quantised checkpoint all that is not factored becomes
    bf16: transformers takes one quantisation, and that is ours.
    """
    specs: dict[int, dict[str, Any]] = {}
    replaced: set[str] = set()
    weight_map: dict[str, str] = {}
    for layer, projections in sorted(stacks.items()):
        replaced |= expert_tensors(checkpoint, arch, layer)
        specs[layer] = {p: read_shard(to, layer, p)[0] for p in projections}
        covered = {member for projection in projections for member in MEMBERS[projection]}
        kept = [projection for projection in PROJECTIONS if projection not in covered]
        for projection in kept:
            _keep(to, checkpoint, arch, layer, projection)
        for projection in (*projections, *kept):
            shard = shard_name(layer, projection)
            with safe_open(to / shard, "pt") as file:
                weight_map |= dict.fromkeys(file.keys(), shard)
    rest = {u.entry.name: u for u in unquantised(checkpoint) if u.source.name not in replaced}
    entries = [u.entry for u in rest.values()]
    weight_map |= write_shards(
        to, "rest", entries, lambda entry: pieces(checkpoint, arch, rest[entry.name]), on_written
    )
    copy_small_files(to, checkpoint)
    write_config(to, {**checkpoint.config, QUANTIZATION: quantization_config(specs)})
    write_index(to, weight_map)


def dense(
    to: Path,
    shards: Path,
    checkpoint: Checkpoint,
    arch: Architecture,
    stacks: Stacks,
    on_written: OnWritten = lambda count: None,
) -> None:
    """Write the rebuilt checkpoint into `to`, from the shards of `stacks` in `shards`. One tensor is held at a time.

    That of a quantised checkpoint is in bf16.
    """
    sources: dict[str, list[tuple[WeightStack, int, Rebuilt]]] = {}
    for layer, projections in stacks.items():
        for projection in projections:
            members = MEMBERS[projection]
            for position, member in enumerate(members):
                stack = open_stack(checkpoint, arch, layer, member)
                experts = _rebuilt(shards, layer, projection, position, len(members))
                for number, entry in enumerate(stack.entries):
                    sources.setdefault(entry.name, []).append((stack, number, experts))

    written = {u.entry.name: u for u in unquantised(checkpoint)}

    def filled(entry: TensorEntry) -> Pieces:
        found = written[entry.name]
        if found.source.name not in sources:
            yield from pieces(checkpoint, arch, found)
            return
        whole = decoded(checkpoint, arch, found)
        for stack, number, experts in sources[found.source.name]:
            if stack.source.axes != "OI":  # all experts in one tensor
                stack.view_in(whole).copy_(experts(0, stack.shape[0]))
            else:
                stack.view_in(whole).copy_(experts(number, number + 1)[0])
        yield tensor_bytes(presented(found, whole))

    weight_map = write_shards(to, "model", [u.entry for u in written.values()], filled, on_written)
    copy_small_files(to, checkpoint)
    write_config(to, {key: value for key, value in checkpoint.config.items() if key != QUANTIZATION})
    write_index(to, weight_map)


def _rebuilt(shards: Path, layer: int, projection: str, position: int, members: int) -> Rebuilt:
    """W^_BOI of experts start..stop-1 of one of the projections that are stored together, in float32."""

    def experts(start: int, stop: int) -> Tensor:
        changed = (shards / shard_name(layer, projection)).stat().st_mtime_ns
        W_BOI = _whole(shards, layer, projection, changed).members(start, stop)
        return W_BOI.chunk(members, dim=1)[position]

    return experts


@lru_cache(maxsize=2)  # an expert at a time asks for it
def _whole(shards: Path, layer: int, projection: str, changed: int) -> Factored:
    spec, tensors = read_shard(shards, layer, projection)
    return restore(spec, {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})


def read_shard(to: Path, layer: int, projection: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Spec and factors of a compressed stack, by the names of its module's parameters."""
    with safe_open(to / shard_name(layer, projection), "pt") as file:
        spec: dict[str, Any] = json.loads(file.metadata()["spec"])
        return spec, {name.rpartition(".")[2]: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _keep(to: Path, checkpoint: Checkpoint, arch: Architecture, layer: int, projection: str) -> None:
    """A shard of a stack that was not compressed."""
    stack = open_stack(checkpoint, arch, layer, projection)
    name = f"{experts_module(checkpoint, arch, layer)}.{projection}.weight"
    weights = stack.weights(0, stack.shape[0])
    if not isinstance(stack.encoding, Plain):
        weights = weights.bfloat16()
    write_tensors(to / shard_name(layer, projection), {name: weights}, {"kind": "dense"})
