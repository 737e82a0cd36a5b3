"""Checkpoints written: safetensors shards, index and small files, each whole or absent and always the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmoe.checkpoint.atomic import write_bytes, write_pieces
from tdmoe.checkpoint.encodings import PLAIN
from tdmoe.checkpoint.reader import CONFIG, INDEX, Checkpoint
from tdmoe.checkpoint.safetensors_header import TensorEntry

SHARD_BYTES = 2_000_000_000
PIECE_BYTES = 16 << 20  # copied at once
WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".gguf", ".onnx", ".h5")
CARDS = (".md",)  # they tell of the original
COPIED_BYTES = 200_000_000  # tokenizers and the like are smaller

Piece = bytes | bytearray | memoryview
Pieces = Iterator[Piece]


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    spec: Mapping[str, Any],
    on_bytes: Callable[[Piece], object] = lambda piece: None,
) -> None:
    """A shard of floats or bytes with its spec; safetensors' own writer does not promise the same bytes.

    `on_bytes` is told all of it, in order.
    """
    names = {**{dtype: name for name, dtype in PLAIN.items()}, torch.uint8: "U8"}
    shapes = [(name, names[t.dtype], tuple(t.shape), t.nbytes) for name, t in tensors.items()]
    about = {"format": "pt", "spec": json.dumps(spec)}
    pieces: list[Piece] = [_header(shapes, about), *map(tensor_bytes, tensors.values())]
    for piece in pieces:
        on_bytes(piece)
    write_pieces(path, pieces)


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Bytes of a tensor as stored, where it lies."""
    data: memoryview = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
    return data


def copied(checkpoint: Checkpoint, entry: TensorEntry) -> Pieces:
    """The bytes of a tensor, whatever its dtype."""
    for start in range(0, entry.nbytes, PIECE_BYTES):
        piece = bytearray(min(PIECE_BYTES, entry.nbytes - start))
        checkpoint.read_into(entry, start, memoryview(piece))
        yield piece


def write_shards(
    to: Path,
    name: str,
    entries: Iterable[TensorEntry],
    pieces: Callable[[TensorEntry], Pieces],
    on_written: Callable[[int], None],
) -> dict[str, str]:
    """{tensor: shard} of shards NAME-00001.safetensors, ...; `pieces` gives the bytes of each tensor."""

    def counted(entry: TensorEntry) -> Pieces:
        for piece in pieces(entry):
            yield piece
            on_written(len(piece))

    weight_map: dict[str, str] = {}
    for number, group in enumerate(_groups(entries), start=1):
        shard = f"{name}-{number:05d}.safetensors"
        header = _header([(e.name, e.dtype, e.shape, e.nbytes) for e in group], {"format": "pt"})
        write_pieces(to / shard, chain([header], chain.from_iterable(map(counted, group))))
        weight_map |= {entry.name: shard for entry in group}
    return weight_map


def write_config(to: Path, config: Mapping[str, Any]) -> None:
    """config.json."""
    write_bytes(to / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def write_index(to: Path, weight_map: Mapping[str, str]) -> None:
    """The last file of a checkpoint: where there is one, all shards are there."""
    size = 0
    for shard in sorted(set(weight_map.values())):
        with (to / shard).open("rb") as file:
            size += (to / shard).stat().st_size - 8 - int.from_bytes(file.read(8), "little")
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    write_bytes(to / INDEX, (json.dumps(index, indent=2) + "\n").encode())


def copy_small_files(to: Path, checkpoint: Checkpoint) -> None:
    """Tokenizer, generation config and the like: everything but weights, config and model card."""
    for name in checkpoint.files.names():
        if name.startswith(".") or name == CONFIG or name.endswith((*WEIGHTS, *CARDS)):
            continue
        if (size := checkpoint.files.size(name)) <= COPIED_BYTES:
            checkpoint.files.read(name, 0, memoryview(data := bytearray(size)))
            write_bytes(to / name, bytes(data))


def _groups(entries: Iterable[TensorEntry]) -> Iterator[list[TensorEntry]]:
    """Entries in groups of at most SHARD_BYTES, or of one."""
    group: list[TensorEntry] = []
    for entry in entries:
        if group and sum(e.nbytes for e in group) + entry.nbytes > SHARD_BYTES:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


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
