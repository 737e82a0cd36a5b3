"""A checkpoint's tensors as one that is not quantised holds them: bf16 where they were FP8 or MXFP4, else as they are.

    NAME, NAME_scale_inv                                           ->  NAME of the same shape in bf16       FP8
    NAME_blocks (E, O, I / 32, 16), NAME_scales (E, O, I / 32)     ->  NAME (E, I, O), as GPT-OSS in bf16   MXFP4

Where nothing is quantised every tensor is copied byte by byte.

Legend: E experts, O outputs, I inputs, R rows and C columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from tdmoe.checkpoint.encodings import FP8, MX_GROUP, MXFP4, PLAIN, SCALES, BlockFP8, scales_to_float
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.checkpoint.safetensors_header import TensorEntry
from tdmoe.checkpoint.writer import Pieces, copied, tensor_bytes
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import Architecture

FP8_SCALES, MX_BLOCKS, MX_SCALES = "_scale_inv", "_blocks", "_scales"
QUANTIZATION = "quantization_config"
TARGET = "BF16"


@dataclass(frozen=True)
class Unquantised:
    """A tensor to be written: `entry` says its name, dtype and shape, `source` where it is read."""

    entry: TensorEntry
    source: TensorEntry
    scales: TensorEntry | None = None


def unquantised(checkpoint: Checkpoint) -> Iterator[Unquantised]:
    """Every tensor, in the order of the index; scales belong to their tensors. InputError for other quantisations."""
    for name in checkpoint.names():
        if name.endswith(FP8_SCALES) or (name.endswith(MX_SCALES) and _mx_name(name, MX_SCALES) in checkpoint):
            continue
        entry = checkpoint.entry(name)
        if name.endswith(MX_BLOCKS) and _mx_name(name, MX_BLOCKS, MX_SCALES) in checkpoint:
            experts, outputs, groups, _ = entry.shape
            shape = (experts, groups * MX_GROUP, outputs)
            scales = checkpoint.entry(_mx_name(name, MX_BLOCKS, MX_SCALES))
            yield Unquantised(_as_bf16(entry, name.removesuffix(MX_BLOCKS), shape), entry, scales)
        elif entry.dtype in FP8:
            if name + FP8_SCALES not in checkpoint:
                raise InputError(
                    name,
                    why=f"stored as {entry.dtype} without {FP8_SCALES[1:]}",
                    remedy="only block scales are readable, use a bf16 version of the checkpoint",
                )
            yield Unquantised(_as_bf16(entry, name, entry.shape), entry, checkpoint.entry(name + FP8_SCALES))
        else:
            yield Unquantised(entry, entry)


def pieces(checkpoint: Checkpoint, arch: Architecture, found: Unquantised) -> Pieces:
    """The bytes of `found.entry`."""
    if found.scales is None:
        yield from copied(checkpoint, found.source)
    else:
        yield tensor_bytes(presented(found, decoded(checkpoint, arch, found)))


def decoded(checkpoint: Checkpoint, arch: Architecture, found: Unquantised) -> Tensor:
    """A tensor with its axes as they are on disk, in the dtype that is written; a matrix at a time is in float32."""
    source, scales = found.source, found.scales
    stored = _read(checkpoint, source)
    if scales is None:
        return stored
    factors = scales_to_float(_read(checkpoint, scales))
    if source.dtype not in FP8:
        stored = stored.flatten(2)
        columns, encoding = stored.shape[2] * 2, MXFP4()
        matrices = [
            encoding.decode(stored[e : e + 1], factors[e : e + 1], range(stored.shape[1]), range(columns))[0].bfloat16()
            for e in range(len(stored))
        ]
        return torch.stack(matrices)
    block = BlockFP8(arch.scale_block)
    rows, columns = stored.shape[-2:]
    flat, flat_scales = stored.view(-1, rows, columns), factors.view(-1, *factors.shape[-2:])
    whole = torch.empty(flat.shape, dtype=torch.bfloat16)
    for e in range(len(flat)):
        whole[e] = block.decode(flat[e : e + 1], flat_scales[e : e + 1], range(rows), range(columns))[0]
    return whole.view(stored.shape)


def presented(found: Unquantised, whole: Tensor) -> Tensor:
    """The tensor with the axes that are written: MXFP4 experts are output-major on disk, bf16 ones input-major."""
    return whole if found.scales is None or found.source.dtype in FP8 else whole.transpose(1, 2)


def _as_bf16(entry: TensorEntry, name: str, shape: tuple[int, ...]) -> TensorEntry:
    return replace(entry, name=name, dtype=TARGET, shape=shape, nbytes=2 * prod(shape))


def _mx_name(name: str, ending: str, other: str = MX_BLOCKS) -> str:
    return name.removesuffix(ending) + other


def _read(checkpoint: Checkpoint, entry: TensorEntry) -> Tensor:
    tensor = torch.empty(entry.shape, dtype={**PLAIN, **FP8, **SCALES}[entry.dtype])
    if tensor.numel():
        checkpoint.read_into(entry, 0, memoryview(tensor.view(-1).view(torch.uint8).numpy()))  # type: ignore[arg-type]
    return tensor
