"""--device: what a user may write for a torch device."""

from __future__ import annotations

from tdmoe.problems import InputError


def gpu_index(device: str) -> int | None:
    """N of cuda:N, 0 of cuda, None of cpu; InputError for anything else."""
    kind, _, index = device.partition(":")
    if device == "cpu":
        return None
    if kind != "cuda" or (device != "cuda" and not index.isdecimal()):
        raise InputError("device", device, "is none of auto, cpu, cuda, cuda:N", "give one of these")
    return int(index or 0)
