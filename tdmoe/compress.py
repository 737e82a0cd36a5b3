"""A checkpoint in, a smaller one out: stack by stack, then everything else copied beside it.

    compress_stack   factors of one (layer, projection) in the checkpoint's dtype, with their errors
    write_stack      its shard; whole or absent
    assemble         the rest of the checkpoint, config and index, once all stacks are there

Nothing holds more than one stack. The factors are those of tdmoe/modules.py, the format that of tdmoe/hub.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tdmoe.architecture import Architecture, architecture
from tdmoe.atomic import write_bytes, write_pieces
from tdmoe.blocks import BlockReader
from tdmoe.checkpoint import CONFIG, INDEX, Checkpoint
from tdmoe.encodings import PLAIN, Plain
from tdmoe.errors import StackErrors, stack_errors
from tdmoe.families import PROJECTIONS
from tdmoe.layout import quantization_config, shard_name
from tdmoe.locate import expert_tensors, experts_module, open_stack
from tdmoe.methods import Factored, Method, StackStatistics
from tdmoe.problems import InputError
from tdmoe.safetensors_header import TensorEntry
from tdmoe.stack import ExpertStack

REST_BYTES = 2_000_000_000  # of a shard of what is only copied
PIECE_BYTES = 16 << 20  # copied at once
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf", ".onnx", ".h5")
COPIED_BYTES = 200_000_000  # tokenizers and the like are smaller


@dataclass(frozen=True)
class Compressed:
    """Factors of a stack, rounded to the dtype that is stored, and how far they are from the weights."""

    factored: Factored
    errors: StackErrors
    seconds: float
    stored_bits: int


def stored_dtype(stack: ExpertStack) -> torch.dtype:
    """That of the checkpoint; InputError where it is quantised, since what stays dense could not be read any more."""
    if not isinstance(stack.encoding, Plain):
        raise InputError(
            f"layer {stack.layer} {stack.projection}: stored as {stack.encoding.name}; compressing needs a bf16, fp16 "
            "or fp32 version of the checkpoint"
        )
    return stack.encoding.natural


def compress_stack(
    reader: BlockReader,
    method: Method,
    options: Any,
    ratio: float,
    statistics: StackStatistics | None,
    *,
    device: str,
) -> Compressed:
    """One stack, start to end; the errors are those of the rounded factors."""
    started = time.perf_counter()
    dtype = stored_dtype(reader.stack)
    factored = method.compress(reader, options, ratio, statistics, device=device).to(dtype)
    wide = factored.to(torch.float32)
    C_II, own = (None, None) if statistics is None else (statistics.C_II, statistics.own)
    errors = stack_errors(reader, wide.experts, C_II, own, device=device)
    return Compressed(factored, errors, time.perf_counter() - started, factored.parameters * dtype.itemsize * 8)


def write_stack(to: Path, stack: ExpertStack, made: Factored) -> None:
    """The shard of a stack."""
    module = experts_module(stack.checkpoint, architecture(stack.checkpoint.config), stack.layer)
    tensors = {f"{module}.{stack.projection}.{name}": tensor for name, tensor in made.tensors().items()}
    _write_tensors(to / shard_name(stack.layer, stack.projection), tensors, made.spec())


def read_spec(to: Path, layer: int, projection: str) -> dict[str, Any]:
    """What `write_stack` noted of a shard."""
    with safe_open(to / shard_name(layer, projection), "pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["spec"])
    return found


def assemble(to: Path, checkpoint: Checkpoint, arch: Architecture, stacks: Mapping[int, list[str]]) -> None:
    """Complete `to`, where the shards of `stacks` ({layer: projections}) lie: the index last, so that it tells.

    Projections of a touched layer that were not compressed are stored dense under our names; all other tensors are
    copied byte by byte, tokenizer and generation config too.
    """
    specs: dict[int, dict[str, Any]] = {}
    replaced: set[str] = set()
    weight_map: dict[str, str] = {}
    for layer, projections in sorted(stacks.items()):
        replaced |= expert_tensors(checkpoint, arch, layer)
        specs[layer] = {p: read_spec(to, layer, p) for p in projections}
        for projection in PROJECTIONS:
            if projection not in projections:
                _write_dense(to, checkpoint, arch, layer, projection)
            shard = shard_name(layer, projection)
            with safe_open(to / shard, "pt") as file:
                weight_map |= dict.fromkeys(file.keys(), shard)
    rest = [checkpoint.entry(name) for name in checkpoint.names() if name not in replaced]
    for number, entries in enumerate(_shards(rest), start=1):
        shard = f"rest-{number:05d}.safetensors"
        write_pieces(to / shard, _raw(checkpoint, entries))
        weight_map |= {entry.name: shard for entry in entries}
    _copy_small_files(to, checkpoint)
    config = {**checkpoint.config, "quantization_config": quantization_config(specs)}
    write_bytes(to / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    size = sum((to / shard).stat().st_size for shard in set(weight_map.values()))
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    write_bytes(to / INDEX, (json.dumps(index, indent=2) + "\n").encode())


def _write_dense(to: Path, checkpoint: Checkpoint, arch: Architecture, layer: int, projection: str) -> None:
    stack = open_stack(checkpoint, arch, layer, projection)
    name = f"{experts_module(checkpoint, arch, layer)}.{projection}.weight"
    _write_tensors(to / shard_name(layer, projection), {name: stack.weights(0, stack.shape[0])}, {"kind": "dense"})


def _shards(entries: list[TensorEntry]) -> Iterator[list[TensorEntry]]:
    """Entries in groups of at most REST_BYTES, or of one."""
    group: list[TensorEntry] = []
    for entry in entries:
        if group and sum(e.nbytes for e in group) + entry.nbytes > REST_BYTES:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], spec: Mapping[str, Any]) -> None:
    """A shard of float tensors with its spec; always the same bytes, as safetensors' writer does not promise."""
    names = {dtype: name for name, dtype in PLAIN.items()}
    shapes = [(name, names[t.dtype], tuple(t.shape), t.nbytes) for name, t in tensors.items()]
    data = (t.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for t in tensors.values())
    about = {"format": "pt", "spec": json.dumps(spec)}
    write_pieces(path, chain([_header(shapes, about)], data))


def _raw(checkpoint: Checkpoint, entries: list[TensorEntry]) -> Iterator[bytes | bytearray]:
    """A safetensors file of these tensors, whatever their dtypes, piece by piece."""
    yield _header([(e.name, e.dtype, e.shape, e.nbytes) for e in entries], {"format": "pt"})
    for entry in entries:
        for start in range(0, entry.nbytes, PIECE_BYTES):
            piece = bytearray(min(PIECE_BYTES, entry.nbytes - start))
            checkpoint.read_into(entry, start, memoryview(piece))
            yield piece


def _header(shapes: list[tuple[str, str, tuple[int, ...], int]], about: Mapping[str, str]) -> bytes:
    """The start of a safetensors file whose data follows in this order: (name, dtype, shape, bytes) of each tensor."""
    header: dict[str, Any] = {"__metadata__": dict(about)}
    end = 0
    for name, dtype, shape, nbytes in shapes:
        offsets = [end, end := end + nbytes]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _copy_small_files(to: Path, checkpoint: Checkpoint) -> None:
    for name in checkpoint.files.names():
        if (
            name.startswith(".") or name == CONFIG or name.endswith((*WEIGHTS, ".md"))
        ):  # a model card is of the original
            continue
        if (size := checkpoint.files.size(name)) <= COPIED_BYTES:
            checkpoint.files.read(name, 0, memoryview(data := bytearray(size)))
            write_bytes(to / name, bytes(data))
