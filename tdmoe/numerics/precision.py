"""Products that are what they claim to be: no TF32, no reduced-precision accumulation, whatever others have set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision() -> Iterator[None]:
    """Full float32 products inside the block; the caller's settings are restored, also after an error.

    Other libraries switch TF32 on for the whole process ("high"), which moves the small singular values of a Gram
    matrix by 1e-3 of the largest.
    """
    matmul = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision()
    half = matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction
    try:
        torch.set_float32_matmul_precision("highest")
        matmul.allow_bf16_reduced_precision_reduction = False
        matmul.allow_fp16_reduced_precision_reduction = False
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction = half


def full_product(X: Tensor, Y: Tensor) -> Tensor:
    """X @ Y with full float32 products.

    Where both hold numbers of bf16 alone, as stored factors do, units that multiply just those and add in float32
    lose nothing, and take half the time: AMX or AVX-512 of a CPU. A GPU's add less exactly.
    """
    with full_precision():
        if X.device.type == "cpu" and all(map(_is_of_bf16, sorted((X, Y), key=Tensor.numel))):
            torch.set_float32_matmul_precision("medium")
        return X @ Y


def _is_of_bf16(X: Tensor) -> bool:
    """Tell whether the lower halves of all float32 numbers are zero."""
    return X.dtype == torch.float32 and not int((X.view(torch.int32) << 16).count_nonzero())
