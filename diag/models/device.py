"""--device: what a user may write for a torch device."""

from __future__ import annotations

import torch

from reports.formats import counted
from tdmoe.problems import InputError


def gpu_index(device: str) -> int | None:
    """N of cuda:N, 0 of cuda, None of cpu; InputError for anything else."""
    kind, _, index = device.partition(":")
    if device == "cpu":
        return None
    if kind != "cuda" or (device != "cuda" and not index.isdecimal()):
        raise InputError("device", device, "is none of auto, cpu, cuda, cuda:N", "give one of these")
    return int(index or 0)


def here(text: str) -> str:
    """A device of this machine, for auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    if text == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    index = gpu_index(text)
    if index is not None and (count := torch.cuda.device_count()) <= index:
        raise InputError("device", text, f"this machine has {counted(count, 'CUDA device')}", "use --device cpu")
    return text
