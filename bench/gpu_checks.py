"""What must hold on a GPU. Each check raises AssertionError; dimensions all differ and exceed one block."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import torch

from bench.checkpoints import Shape, write
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.numerics.spectrum import mode_spectra
from tdmoe.problems import WeightError
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockReader
from tdmoe.stacks.locate import open_stack
from tdmoe.stacks.stack import WeightStack

PROMISE = 1e-6  # of sigma_max
BF16 = Shape("qwen3_moe", 26, 200, 336)
FP8 = Shape("deepseek_v3", 22, 200, 336, "fp8")
MXFP4 = Shape("gpt_oss", 26, 192, 320, "mxfp4")
BLOCK_WEIGHTS = 1 << 18
PROJECTIONS = ("gate", "up", "down")


def spectra_of_bf16_weights_agree_with_a_float64_svd(folder: Path, device: str) -> None:
    _agree(folder / "bf16", BF16, device)


def spectra_of_fp8_weights_agree_with_a_float64_svd(folder: Path, device: str) -> None:
    _agree(folder / "fp8", FP8, device)


def spectra_of_mxfp4_weights_agree_with_a_float64_svd(folder: Path, device: str) -> None:
    _agree(folder / "mxfp4", MXFP4, device)


def mxfp4_is_decoded_as_transformers_does(folder: Path, device: str) -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    with Checkpoint(write(folder / "decode", MXFP4)) as checkpoint:
        stack = _stack(checkpoint, "gate")
        tensors = {}
        for part in ("blocks", "scales"):
            entry = checkpoint.entry(f"model.layers.0.mlp.experts.gate_up_proj_{part}")
            raw = torch.empty(entry.shape, dtype=torch.uint8)
            checkpoint.read_into(entry, 0, memoryview(raw.view(-1).numpy()))  # type: ignore[arg-type]
            tensors[part] = raw.to(device)
        W_EIO = convert_moe_packed_tensors(tensors["blocks"], tensors["scales"], dtype=torch.float32)
        theirs = W_EIO[..., ::2].transpose(1, 2).cpu()
        ours = torch.cat(
            [W_BRC.cpu().clone() for _, W_BRC in BlockReader(stack, 10**9).blocks([0, MXFP4.experts], device=device)]
        )
        assert torch.equal(ours, theirs), "gate differs from transformers' decoding"


def streaming_changes_nothing_but_the_last_digits(folder: Path, device: str) -> None:
    with Checkpoint(write(folder / "stream", BF16)) as checkpoint:
        stack = _stack(checkpoint, "down")
        whole, streamed = (mode_spectra(BlockReader(stack, m), device=device) for m in (10**9, stack.nbytes // 5))
        for mode, spectrum in whole.modes.items():
            change = abs(spectrum.sigma - streamed.modes[mode].sigma).max() / spectrum.sigma[0]
            assert change <= PROMISE, f"{mode} moved by {change:.1e} of sigma_max"


def a_weight_that_is_not_a_number_is_named(folder: Path, device: str) -> None:
    model = write(folder / "nan", BF16)
    with Checkpoint(model) as checkpoint:
        entry = checkpoint.entry("model.layers.0.mlp.experts.17.up_proj.weight")
    with (model / entry.file).open("r+b") as file:
        file.seek(entry.offset + 2 * 1234)
        file.write(b"\xc0\x7f")
    with Checkpoint(model) as checkpoint:
        try:
            mode_spectra(BlockReader(_stack(checkpoint, "up"), 10**9), device=device)
        except WeightError as error:
            assert entry.name in str(error), str(error)
        else:
            raise AssertionError("was accepted")


CHECKS = (
    spectra_of_bf16_weights_agree_with_a_float64_svd,
    spectra_of_fp8_weights_agree_with_a_float64_svd,
    spectra_of_mxfp4_weights_agree_with_a_float64_svd,
    mxfp4_is_decoded_as_transformers_does,
    streaming_changes_nothing_but_the_last_digits,
    a_weight_that_is_not_a_number_is_named,
)


def _agree(model: Path, shape: Shape, device: str) -> None:
    """Spectra on `device` through the products that a large stack takes, against torch's SVD on the CPU in float64."""
    with (
        patch("tdmoe.stacks.blocks.BLOCK_WEIGHTS", BLOCK_WEIGHTS),
        patch("tdmoe.numerics.spectrum.BLOCK_WEIGHTS", BLOCK_WEIGHTS),
        Checkpoint(write(model, shape)) as checkpoint,
    ):
        for projection in PROJECTIONS:
            stack = _stack(checkpoint, projection)
            W_EOI = stack.weights(0, stack.shape[0]).double()
            found = mode_spectra(BlockReader(stack, 10**9), device=device)
            for axis, (mode, spectrum) in enumerate(found.modes.items()):
                exact = torch.linalg.svdvals(W_EOI.movedim(axis, 0).flatten(1)).numpy()
                error = abs(spectrum.sigma - exact).max() / exact[0]
                assert error <= PROMISE, f"{projection}, {mode}: off by {error:.1e} of sigma_max"


def _stack(checkpoint: Checkpoint, projection: str) -> WeightStack:
    return open_stack(checkpoint, architecture(checkpoint.config), 0, projection)
