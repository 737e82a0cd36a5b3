"""Integer form: W^ = scale * code, codes packed to their bits, one scale a matrix, a row, or a group of a row's inputs.

Codes are symmetric, -(2^(b-1) - 1) .. 2^(b-1) - 1, stored with 2^(b-1) added, bit plane by bit plane: 8 inputs of one
plane are a byte. Scales are in the dtype of the checkpoint.

Legend: E experts, O outputs (1 where all share a scale), I inputs, J groups of inputs, b bits, Y = ceil(I / 8) bytes;
S routed tokens sorted by expert, B experts of a block.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tdmoe.forms.grouped import StackLinear, grouped, hit
from tdmoe.forms.weights import Factored

LOW = 0x0101010101010101  # the lowest bit of each of eight bytes
GATHER = 0x0102040810204080  # times that: bit k of the highest byte is the lowest bit of byte k
SCATTERED = torch.tensor([sum((byte >> k & 1) << 8 * k for k in range(8)) for byte in range(256)])  # bit k in byte k


def packed(codes_EOI: Tensor, bits: int) -> Tensor:
    """(E, O, b, Y) bytes of signed codes: eight codes are the bytes of a word, from which planes are gathered."""
    raised = (codes_EOI + 2 ** (bits - 1)).to(torch.uint8)
    words_EOY = _eights(nn.functional.pad(raised, (0, -raised.shape[-1] % 8))).view(torch.int64)
    planes = [(((words_EOY >> plane) & LOW) * GATHER) >> 56 for plane in range(bits)]
    return torch.stack([plane.to(torch.uint8) for plane in planes], -2)


def unpacked(planes_EObY: Tensor, inputs: int) -> Tensor:
    """Signed codes (E, O, I) as int16."""
    bits = planes_EObY.shape[-2]
    words: Tensor = SCATTERED.to(planes_EObY.device)
    words_EOY = torch.zeros_like(planes_EObY[..., 0, :], dtype=torch.int64)
    for plane in range(bits):
        words_EOY |= words[planes_EObY[..., plane, :].long()] << plane
    raised = _eights(words_EOY.view(torch.uint8))
    codes_EOI: Tensor = raised[..., :inputs].to(torch.int16) - 2 ** (bits - 1)
    return codes_EOI


def _eights(bytes_EOI: Tensor) -> Tensor:
    """The bytes of every word, the lowest first, on machines of either byte order."""
    if sys.byteorder == "big":
        bytes_EOI = bytes_EOI.unflatten(-1, (-1, 8)).flip(-1).flatten(-2)
    return bytes_EOI.contiguous()


def spread(scale_EOJ: Tensor, group: int, inputs: int) -> Tensor:
    """The scale of every input, (E, O, I) or (E, 1, I)."""
    spread_EOI: Tensor = scale_EOJ.repeat_interleave(group, -1)[..., :inputs]
    return spread_EOI


@dataclass(frozen=True)
class IntegerWeights(Factored):
    """W^_e = scale * code; `planes_EObY` are the packed codes, `group` the inputs that share a scale."""

    planes_EObY: Tensor
    scale_EOJ: Tensor
    group: int
    inputs: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.planes_EObY.shape[0], self.planes_EObY.shape[1], self.inputs

    @property
    def bits(self) -> int:
        """Number of bits of a code."""
        return self.planes_EObY.shape[2]

    @property
    def parameters(self) -> int:
        """Codes and scales."""
        experts, outputs, inputs = self.shape
        return experts * outputs * inputs + self.scale_EOJ.numel()

    def to(self, dtype: torch.dtype) -> IntegerWeights:
        """The same as it is: its scales had been rounded before the weights were."""
        return self

    def spec(self) -> dict[str, Any]:
        rows = self.scale_EOJ.shape[1]
        return {"kind": "integers", "bits": self.bits, "group": self.group, "rows": rows, "inputs": self.inputs}

    def members(self, start: int, stop: int) -> Tensor:
        """W^_BOI of experts start..stop-1, float32."""
        scale = spread(self.scale_EOJ[start:stop].float(), self.group, self.inputs)
        return unpacked(self.planes_EObY[start:stop], self.inputs) * scale


class IntegerLinear(StackLinear):
    """A stack of E linear maps I -> O with integer weights; the matrices of a few experts are made in passing."""

    def __init__(
        self, shape: tuple[int, int, int], bits: int, group: int, rows: int, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        experts, outputs, self.inputs = shape
        self.group = group
        planes = torch.empty(experts, outputs, bits, -(-self.inputs // 8), dtype=torch.uint8)
        self.planes = nn.Parameter(planes, requires_grad=False)
        self.scale = nn.Parameter(torch.empty(experts, rows, -(-self.inputs // group), dtype=dtype))

    def mix(self, z_SI: Tensor, counts: list[int]) -> Tensor:
        pieces = []
        for some, theirs, x_SI in hit(z_SI, counts):
            scale = spread(self.scale[some], self.group, self.inputs)
            W_BOI = unpacked(self.planes[some], self.inputs).to(scale.dtype) * scale
            pieces.append(grouped(x_SI, W_BOI, theirs))
        return torch.cat(pieces) if pieces else z_SI.new_zeros(0, self.planes.shape[1])
