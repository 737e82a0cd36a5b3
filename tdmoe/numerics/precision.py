"""Products that are what they claim to be: no TF32, no reduced-precision accumulation, whatever others have set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
