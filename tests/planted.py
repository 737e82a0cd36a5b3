"""Expert stacks with a known answer, written as real checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.locate import open_stack
from tdmoe.stacks.stack import WeightStack

MODES = ("expert", "output", "input")


def orthonormal(rows: int, columns: int, seed: int) -> Tensor:
    """`rows` orthonormal rows of length `columns`, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(columns, rows, dtype=torch.float64, generator=generator))[0].T


def planted(shape: tuple[int, int, int], mode: str, sigma: np.ndarray, seed: int = 0) -> Tensor:
    """W_EOI whose unfolding of `mode` has exactly the singular values `sigma`: U diag(sigma) V^T, folded back."""
    axis = MODES.index(mode)
    size, rest = shape[axis], [n for i, n in enumerate(shape) if i != axis]
    U = orthonormal(len(sigma), size, seed).T
    V = orthonormal(len(sigma), int(np.prod(rest)), seed + 1)
    unfolded = U * torch.from_numpy(np.asarray(sigma, dtype=np.float64)) @ V
    return unfolded.reshape(size, *rest).movedim(0, axis)


def write_stack(folder: Path, W_EOI: Tensor, dtype: torch.dtype = torch.float32) -> Path:
    """A one-layer Qwen3-MoE checkpoint whose gate projection is W_EOI (up the same, down its transpose)."""
    folder.mkdir(parents=True, exist_ok=True)
    experts, outputs, inputs = W_EOI.shape
    config = {
        "model_type": "qwen3_moe",
        "num_hidden_layers": 1,
        "num_experts": experts,
        "hidden_size": inputs,
        "moe_intermediate_size": outputs,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {}
    for e, W_OI in enumerate(W_EOI.to(dtype)):
        prefix = f"model.layers.0.mlp.experts.{e}."
        tensors |= {
            f"{prefix}gate_proj.weight": W_OI.contiguous(),
            f"{prefix}up_proj.weight": W_OI.clone().contiguous(),
            f"{prefix}down_proj.weight": W_OI.T.contiguous(),
        }
    save_file(tensors, folder / "model.safetensors")
    return folder


def open_planted(folder: Path, W_EOI: Tensor, dtype: torch.dtype = torch.float32) -> WeightStack:
    """`write_stack`, then its gate stack."""
    checkpoint = Checkpoint(write_stack(folder, W_EOI, dtype))
    return open_stack(checkpoint, architecture(checkpoint.config), 0, "gate")
