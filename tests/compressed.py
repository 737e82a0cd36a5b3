"""Compressed checkpoints, read back and rebuilt without our own code where that can be."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MINI = Path(__file__).parents[1] / "diag" / "assets" / "mini"
QUICK = ("--tokens", "2048", "--layers", "1-2", "--ratio", "0.4", "--quiet")


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "tables" / "compression.csv").open()))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def load_mini(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    import tdmoe.hub  # noqa: F401

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def rebuilt(factors: dict[str, Tensor]) -> Tensor:
    """W_EOI of stored factors, plainly."""
    W = factors["core"].float()
    for axis, mode in enumerate(("expert", "output", "input")):
        if mode in factors:
            W = torch.movedim(torch.tensordot(factors[mode].float(), W, dims=([1], [axis])), 0, axis)
    return W


def fill(module: Any, projection: str, W_EOI: Tensor) -> None:
    with torch.no_grad():
        if projection == "down":
            module.down_proj.copy_(W_EOI)
        else:
            first = 0 if projection == "gate" else W_EOI.shape[1]
            module.gate_up_proj[:, first : first + W_EOI.shape[1]].copy_(W_EOI)


def linear_weights(module: Any, projection: str) -> Tensor:
    return rebuilt({name: p.detach() for name, p in getattr(module, projection).named_parameters()})


def fill_any(module: Any, projection: str, W_EOI: Tensor) -> None:
    """Also into interleaved and input-major experts."""
    W = W_EOI.transpose(1, 2) if module.is_transposed else W_EOI
    with torch.no_grad():
        if projection == "down":
            module.down_proj.copy_(W)
            return
        width, axis = W_EOI.shape[1], 2 if module.is_transposed else 1
        index = torch.arange(width) + (0 if projection == "gate" else width)
        if not module.is_concatenated:
            index = 2 * torch.arange(width) + (projection == "up")
        module.gate_up_proj.index_copy_(axis, index, W)
