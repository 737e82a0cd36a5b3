"""The header of a safetensors file: where each tensor lies, checked against the file before a byte is trusted.

File layout (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length N, N bytes of
JSON {name: {dtype, shape, data_offsets}}, then the data, gapless. The safetensors library checks the same, but its
errors name neither the tensor nor the remedy, and a streaming reader needs the offsets.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from tdmoe.checkpoint import json_text
from tdmoe.checkpoint.files import Files
from tdmoe.problems import InputError, shown

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library itself
GIT_LFS_POINTER = b"version "  # the first eight bytes of a file that git-lfs has not fetched
DAMAGED = "the file is damaged, download it again"

BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of one shard: `offset` is the first byte's place in the file."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """All tensors of a shard, with the file's size and the header's own SHA-256."""

    file: str
    size: int
    data_start: int
    sha256: str
    tensors: dict[str, TensorEntry]


def read_header(files: Files, file: str) -> Header:
    """Parse and check the header of `file`; every inconsistency raises an InputError that names file and tensor."""
    try:
        size = files.size(file)
        if size < 8:
            raise _damaged(file, f"{size} bytes, too short for a safetensors header", "download it again")
        prefix = _read(files, file, 0, 8)
        if prefix == GIT_LFS_POINTER:
            raise _damaged(file, "is a git-lfs pointer, not the weights", "run git lfs pull in its folder")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES:
            raise _damaged(
                file,
                f"header claims {length:,} bytes, the limit is {MAX_HEADER_BYTES:,}",
                "this is not a safetensors file, or it is damaged: download it again",
            )
        if length > size - 8:
            raise _damaged(
                file,
                f"header claims {length:,} bytes but the file ends after {size:,}",
                "the file is truncated, download it again",
            )
        raw = _read(files, file, 8, length)
    except EOFError as error:
        raise _damaged(file, "ends inside its header") from error
    except OSError as error:
        raise _damaged(file, f"cannot be read ({error.strerror or error})", "check the file and its rights") from error
    try:
        table = json_text.parse(raw)
    except ValueError as error:
        raise _damaged(file, f"the header is not JSON ({error})") from error
    if not isinstance(table, dict):
        raise _damaged(file, f"the header is a JSON {type(table).__name__}, not an object")
    table.pop("__metadata__", None)
    data_start = 8 + length
    tensors = {name: _entry(file, name, row, data_start) for name, row in table.items()}
    _check_layout(file, tensors, data_start, size)
    return Header(file, size, data_start, hashlib.sha256(raw).hexdigest(), tensors)


def _damaged(file: str, why: str, remedy: str = DAMAGED) -> InputError:
    return InputError(file, None, why, remedy)


def _read(files: Files, file: str, offset: int, count: int) -> bytes:
    files.read(file, offset, memoryview(buffer := bytearray(count)))
    return bytes(buffer)


def _entry(file: str, name: str, row: object, data_start: int) -> TensorEntry:
    match row:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise _damaged(file, f"tensor {shown(name, 120)} has no dtype, shape and data_offsets")
    if not all(type(n) is int and n >= 0 for n in shape) or not 0 <= begin <= end:
        where = f"at bytes {begin}:{end}"
        raise _damaged(file, f"tensor {shown(name, 120)} has shape {shown(shape)} {where}")
    if dtype not in BITS:
        raise _damaged(file, f"tensor {shown(name, 120)} has dtype {shown(dtype)}, which safetensors does not know")
    if (bits := math.prod(shape) * BITS[dtype]) != 8 * (end - begin):
        raise _damaged(
            file,
            f"tensor {shown(name, 120)} of shape {shown(shape)} and dtype {dtype} needs {_count(bits // 8)} "
            f"bytes, but its data_offsets span {end - begin:,}",
        )
    return TensorEntry(name, file, dtype, tuple(shape), data_start + begin, end - begin)


def _count(number: int) -> str:
    return f"{number:,}" if number < 2**63 else "more than 2^63"


def _check_layout(file: str, tensors: dict[str, TensorEntry], data_start: int, size: int) -> None:
    expected = data_start
    for entry in sorted(tensors.values(), key=lambda e: (e.offset, e.nbytes)):
        if entry.offset != expected:
            raise _damaged(
                file,
                f"tensor {shown(entry.name, 120)} starts at byte {entry.offset:,} where {expected:,} was expected",
                f"tensors overlap or leave a gap, {DAMAGED}",
            )
        expected += entry.nbytes
    if expected != size:
        state = "truncated" if size < expected else "longer than its header says"
        raise _damaged(
            file, f"{size:,} bytes on disk, the header needs {expected:,}", f"the file is {state}, download it again"
        )
