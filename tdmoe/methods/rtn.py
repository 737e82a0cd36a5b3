"""RTN: every weight rounded to the nearest of 2^b - 1 levels, the yardstick of what plain storage buys.

    W^ = s q,   q = clamp(round(W / s), -Q, Q),   Q = 2^(b-1) - 1,   s = max |W| / Q of all that share a scale

A scale is shared by an expert's matrix (`scale=tensor`, as in Rethinking), by a row (`channel`), or by `group` inputs
of a row. Scales are rounded to the dtype of the checkpoint (bf16 where it is quantised) before the weights are, so that
what is stored is what was rounded to; a code takes b bits, a scale those of its dtype. The rounding is torch's own fake
quantisation (half to even).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tdmoe.forms.integers import IntegerWeights, packed
from tdmoe.method.contract import Allotment, Method, Statistics
from tdmoe.numerics.products import expert_blocks
from tdmoe.stacks.source import WeightSource, stored_dtype

GROUP = 128


@dataclass(frozen=True)
class Options:
    """`bits` of a code; `group` is how many inputs of a row share a scale where `scale=group`."""

    bits: int = 4
    scale: Literal["tensor", "channel", "group"] = "group"
    group: int = GROUP


class RTN(Method):
    """Round to nearest."""

    NAME, DISPLAY, REFERENCE, FAMILY = "rtn", "RTN", "round to nearest", "rounding"
    LIGHT = True
    OPTIONS = Options

    def fixes_storage(self, options: Options) -> bool:
        """Always, by the bits."""
        return True

    def check_options(self, options: Options) -> None:
        """InputError where bits or group are none."""
        if not 2 <= options.bits <= 8:
            raise self.wrong(f"bits is {options.bits}", "give 2 to 8")
        if options.group < 1:
            raise self.wrong(f"group is {options.group}", "give at least 1 input")
        if options.scale != "group" and options.group != GROUP:
            raise self.wrong(f"group says nothing where scale={options.scale}")

    def compress(
        self, reader: WeightSource, options: Options, allotment: Allotment, statistics: Statistics, *, device: str
    ) -> IntegerWeights:
        """A block of experts at a time."""
        inputs = reader.stack.shape[2]
        group = min(options.group, inputs) if options.scale == "group" else inputs
        dtype, planes, scales = stored_dtype(reader.stack), [], []
        for _, W_BOI in expert_blocks(reader, torch.float32, device):
            codes_BOI, scale_BOJ = rounded(W_BOI, options.bits, group, dtype, whole=options.scale == "tensor")
            planes.append(packed(codes_BOI, options.bits))
            scales.append(scale_BOJ)
        return IntegerWeights(torch.cat(planes), torch.cat(scales), group, inputs)


def rounded(W_BOI: Tensor, bits: int, group: int, dtype: torch.dtype, *, whole: bool) -> tuple[Tensor, Tensor]:
    """(codes (B, O, I) as int16, scales (B, O, J) in `dtype`, or (B, 1, 1) where the `whole` matrix shares one)."""
    inputs, most = W_BOI.shape[2], 2 ** (bits - 1) - 1
    padded = torch.nn.functional.pad(W_BOI, (0, -inputs % group)) if inputs % group else W_BOI
    grouped = padded.unflatten(-1, (-1, group))
    largest_BOJ = torch.maximum(grouped.amax(-1), -grouped.amin(-1))
    if whole:
        largest_BOJ = largest_BOJ.amax((1, 2), keepdim=True)
    least = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # above zero, as fp16 underflows soon
    scale_BOJ = (largest_BOJ / most).to(dtype).clamp(min=least)
    scale_BOJ = torch.where(largest_BOJ > 0, scale_BOJ, torch.ones_like(scale_BOJ))  # of zeros: any will do
    inverse_BOJ = (1 / scale_BOJ.float()).clamp(max=torch.finfo(torch.float32).max)  # as torch's fake_quantize
    codes = (grouped * inverse_BOJ[..., None]).round_().clamp_(-most, most).to(torch.int16).flatten(2)
    return codes[..., :inputs], scale_BOJ


METHOD = RTN()
