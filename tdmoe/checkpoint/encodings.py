"""Encodings of stored weights, and the weights they mean: bf16, fp16, fp32; FP8 with a scale per block; MXFP4.

    FP8     w[r, c] = float(e4m3 byte) * scale[r // 128, c // 128]   (DeepSeek-V3, sec. 3.3; tensor NAME_scale_inv)
    MXFP4   w[r, c] = e2m1 nibble * 2^(scale[r, c // 32] - 127)      (OCP Microscaling 1.0; NAME_blocks, NAME_scales)

FP8 weights are taken as float32 products, as transformers decodes them; MXFP4 weights are exact in bfloat16.

Legend: B experts of a block, R rows and C columns as stored, X stored items of a row, S rows and T columns of scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

PLAIN = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
FP8 = {"F8_E4M3": torch.float8_e4m3fn}
SCALES = {**PLAIN, "F8_E8M0": torch.float8_e8m0fnu, "U8": torch.uint8}
MX_GROUP = 32  # weights that share a scale
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # and the same below zero


class Encoding(Protocol):
    """`stored` is the dtype of a stored item, `natural` the smallest torch dtype that holds every weight exactly."""

    @property
    def name(self) -> str: ...
    @property
    def stored(self) -> torch.dtype: ...
    @property
    def natural(self) -> torch.dtype: ...

    def items(self, columns: int) -> int:
        """X, the stored items of a row of `columns` weights."""

    def decode(self, stored_BRX: Tensor, scales_BST: Tensor | None, rows: range, columns: range) -> Tensor:
        """W_BRC in float32 (plain: as stored), on the device of `stored_BRX`.

        `rows` and `columns` are where these weights lie in the matrix on disk, which is what scales belong to.
        """


@dataclass(frozen=True, slots=True)
class Plain:
    """A float dtype that torch computes with."""

    stored: torch.dtype

    @property
    def name(self) -> str:
        return str(self.stored).removeprefix("torch.")

    @property
    def natural(self) -> torch.dtype:
        return self.stored

    def items(self, columns: int) -> int:
        return columns

    def decode(self, stored_BRX: Tensor, scales_BST: Tensor | None, rows: range, columns: range) -> Tensor:
        return stored_BRX


@dataclass(frozen=True, slots=True)
class BlockFP8:
    """e4m3 with one scale per `block` of (rows, columns); a scale multiplies, although its tensor is named `_inv`."""

    block: tuple[int, int]
    name: str = "fp8_e4m3"
    stored: torch.dtype = torch.float8_e4m3fn
    natural: torch.dtype = torch.float32

    def items(self, columns: int) -> int:
        return columns

    def decode(self, stored_BRX: Tensor, scales_BST: Tensor | None, rows: range, columns: range) -> Tensor:
        assert scales_BST is not None
        W_BRC = _fp8_to_float(stored_BRX)
        high, wide = self.block
        scales_BRT = scales_BST[:, torch.tensor([r // high for r in rows], device=W_BRC.device)]
        if columns.step == 1 and columns.start % wide == 0 and len(columns) % wide == 0:
            first = columns.start // wide
            scales_BRT = scales_BRT[:, :, first : first + len(columns) // wide]
            W_BRC.unflatten(2, (-1, wide)).mul_(scales_BRT[..., None])
            return W_BRC
        return W_BRC.mul_(scales_BRT[:, :, torch.tensor([c // wide for c in columns], device=W_BRC.device)])


@dataclass(frozen=True, slots=True)
class MXFP4:
    """Two e2m1 weights a byte, the first in the low nibble; a power-of-two scale for every MX_GROUP of a row."""

    name: str = "mxfp4"
    stored: torch.dtype = torch.uint8
    natural: torch.dtype = torch.bfloat16

    def items(self, columns: int) -> int:
        return columns // 2

    def decode(self, stored_BRX: Tensor, scales_BST: Tensor | None, rows: range, columns: range) -> Tensor:
        assert scales_BST is not None
        pairs = _nibble_pairs(stored_BRX.device).index_select(0, stored_BRX.flatten().int())
        W_BRC = pairs.view(torch.float32).view(*stored_BRX.shape[:2], -1)
        here_BRT = scales_BST[:, rows.start : rows.stop : rows.step]
        W_BRC.unflatten(2, (-1, MX_GROUP)).mul_(here_BRT[..., None])
        return W_BRC


def scales_to_float(scales: Tensor) -> Tensor:
    """Scales as float32; bytes are the exponents of powers of two, biased by 127 (E8M0)."""
    return torch.ldexp(torch.ones(scales.shape), scales.int() - 127) if scales.dtype == torch.uint8 else scales.float()


def _fp8_to_float(stored: Tensor) -> Tensor:
    """float32; on the CPU through a table, four times as fast as torch's conversion."""
    if stored.device.type != "cpu":
        return stored.float()
    codes = stored.contiguous().view(torch.uint8).numpy()
    return torch.from_numpy(_fp8_table().numpy()[codes])


@cache
def _fp8_table() -> Tensor:
    return torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()


@cache
def _nibble_pairs(device: torch.device) -> Tensor:
    """The two float32 weights of every byte, side by side in one int64, so that one look-up decodes both."""
    nibbles = torch.tensor([*E2M1, *(-value for value in E2M1)])
    low, high = nibbles.repeat(16), nibbles.repeat_interleave(16)
    return torch.stack([low, high], dim=1).view(torch.int64).squeeze(1).to(device)
