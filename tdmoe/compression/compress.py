"""One stack compressed: its factors in the checkpoint's dtype, how far they are from the weights, and their shard."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdmoe.checkpoint.layout import shard_name
from tdmoe.checkpoint.writer import write_tensors
from tdmoe.forms import Factored, stored_bits
from tdmoe.method.contract import Allotment, Method, Statistics
from tdmoe.numerics.errors import KINDS, Kind, StackErrors, stack_errors
from tdmoe.numerics.operator_norm import SMALL, Norms
from tdmoe.problems import WeightError
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.joint import Reader, Stack
from tdmoe.stacks.locate import experts_module
from tdmoe.stacks.source import Shaped, stored_dtype


@dataclass(frozen=True)
class Compressed:
    """Factors of a stack, rounded to the dtype that is stored, and how far they are from the weights."""

    factored: Factored
    errors: StackErrors
    seconds: float
    stored_bits: int


def affordable(stack: Shaped, method: Method) -> tuple[Kind, ...]:
    """Errors measured where nobody said which: all, but spectral norms of large matrices not of LIGHT methods."""
    _, outputs, inputs = stack.shape
    norms = not method.LIGHT or min(outputs // stack.matrices, inputs) <= SMALL
    return KINDS if norms else tuple(kind for kind in KINDS if kind != "operator")


def compress_stack(
    reader: Reader,
    method: Method,
    options: Any,
    allotment: Allotment,
    statistics: Statistics,
    *,
    device: str,
    kinds: Collection[Kind] = KINDS,
) -> Compressed:
    """One stack, start to end; the errors, of those `kinds`, are those of the rounded factors."""
    started = time.perf_counter()
    factored = method.compress(reader, options, allotment, statistics, device=device)
    factored, errors = as_stored(reader, factored, statistics, device=device, kinds=kinds)
    return Compressed(factored, errors, time.perf_counter() - started, stored_bits(factored))


def as_stored(
    reader: Reader,
    factored: Factored,
    statistics: Statistics,
    *,
    device: str,
    kinds: Collection[Kind] = KINDS,
    norms_W: Norms | None = None,
) -> tuple[Factored, StackErrors]:
    """Factors rounded to the dtype that is stored, and their errors; `kinds` and `norms_W` as for `stack_errors`."""
    rounded = factored.to(stored_dtype(reader.stack))
    C_II, own = (None, None) if statistics is None else (statistics.C_II, statistics.own)
    wide = rounded.to(torch.float32)
    how: dict[str, Any] = {"device": device, "kinds": kinds, "norms_W": norms_W}
    how["damped_W"] = getattr(factored, "norm_W", None)
    return rounded, stack_errors(reader, wide.members, C_II, own, **how)


def _is_finite(tensor: Tensor) -> bool:
    """Test the extremes, which NaN spreads to: an order of magnitude sooner than entry by entry."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def write_stack(to: Path, stack: Stack, made: Factored) -> str:
    """Write the shard of a stack; returns its SHA-256. WeightError where a factor overflowed the stored dtype."""
    module = experts_module(stack.checkpoint, architecture(stack.checkpoint.config), stack.layer)
    tensors = {f"{module}.{stack.projection}.{name}": tensor for name, tensor in made.tensors().items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise WeightError(f"{name}: overflows {tensor.dtype}; compress a bf16 or fp32 version of the checkpoint")
    path = to / shard_name(stack.layer, stack.projection)
    write_tensors(path, tensors, made.spec(), (found := hashlib.sha256()).update)
    return found.hexdigest()
