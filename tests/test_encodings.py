"""FP8 with block scales and MXFP4, decoded as transformers decodes them, wherever blocks and shards are cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_families import unfolded_svd
from tiny import plain_checkpoint, single_thread, write_checkpoint
from torch import Tensor

from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.numerics.spectrum import mode_spectra
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockReader
from tdmoe.stacks.families import PROJECTIONS
from tdmoe.stacks.locate import open_stack
from tdmoe.stacks.stack import WeightStack

EXPERTS, HIDDEN, WIDTH = 5, 24, 20
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def fp8_checkpoint(block: tuple[int, int], scale_dtype: torch.dtype = torch.float32) -> tuple[dict[str, Any], Tensors]:
    """A DeepSeek-V3 layout: every expert in e4m3, all scales behind all weights, so in other shards."""
    config, tensors = plain_checkpoint(EXPERTS, HIDDEN, WIDTH, moe_layers=(0, 1))
    generator = torch.Generator().manual_seed(1)
    scales = {}
    for name in [n for n in tensors if ".experts." in n]:
        rows, columns = tensors[name].shape
        shape = -(-rows // block[0]), -(-columns // block[1])
        scale = (0.01 + torch.rand(shape, generator=generator)).to(scale_dtype)
        scales[name + "_scale_inv"] = scale
        tensors[name] = (tensors[name].float() / spread(scale, block, rows, columns)).to(torch.float8_e4m3fn)
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(block)}
    return config | {"quantization_config": quantization}, tensors | scales


def spread(scale_ST: Tensor, block: tuple[int, int], rows: int, columns: int) -> Tensor:
    """Every weight's own scale."""
    wide = scale_ST.float().repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return wide[:rows, :columns]


def stacks(checkpoint: Checkpoint) -> Iterator[WeightStack]:
    arch = architecture(checkpoint.config)
    for layer in arch.layers:
        for projection in PROJECTIONS:
            yield open_stack(checkpoint, arch, layer, projection)


def read_all_ways(stack: WeightStack) -> Iterator[tuple[str, Tensor]]:
    """W_EOI through expert blocks and through strips of rows, whole and in pieces."""
    experts, rows, _ = stack.stored_shape
    yield "weights", stack.weights(0, experts).float()
    for memory in (stack.nbytes, stack.stored_bytes(1, rows)):
        reader = BlockReader(stack, memory)
        yield f"blocks {memory}", torch.cat([W.clone() for _, W in reader.blocks([0, 2, experts])])
        strips = [Y.clone().view(experts, -1, stack.stored_shape[2]) for Y in reader.strips()]
        yield f"strips {memory}", torch.cat(strips, dim=1)


@pytest.mark.parametrize("block", [(2, 4), (128, 128), (7, 5)], ids=str)
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_fp8_is_weight_times_the_scale_of_its_block(
    block: tuple[int, int], scale_dtype: torch.dtype, tmp_path: Path
) -> None:
    """Blocks that divide the shape, that exceed it, and that leave a rest; the scales are in other shards."""
    config, tensors = fp8_checkpoint(block, scale_dtype)
    with Checkpoint(write_checkpoint(tmp_path, config, tensors, shards=4)) as checkpoint:
        for stack in stacks(checkpoint):
            assert {e.file for e in stack.entries}.isdisjoint(e.file for e in stack.scale_entries)
            _, rows, columns = stack.shape
            expected = torch.stack(
                [
                    tensors[e.name].float() * spread(tensors[e.name + "_scale_inv"], block, rows, columns)
                    for e in stack.entries
                ]
            )
            for way, found in read_all_ways(stack):
                assert torch.equal(found, expected), way


def test_fp8_is_decoded_as_transformers_does(tmp_path: Path) -> None:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    config, tensors = fp8_checkpoint((2, 4))  # transformers wants blocks that divide the shape
    with Checkpoint(write_checkpoint(tmp_path, config, tensors)) as checkpoint:
        for stack in stacks(checkpoint):
            theirs = [
                Fp8Dequantize(None)._dequantize_one(tensors[e.name], tensors[e.name + "_scale_inv"], torch.float32)
                for e in stack.entries
            ]
            assert torch.equal(stack.weights(0, EXPERTS), torch.stack(theirs))


MX_HIDDEN, MX_WIDTH = 96, 64


def mxfp4_checkpoint() -> tuple[dict[str, Any], Tensors]:
    """GPT-OSS as published: every code and a wide range of exponents occur."""
    generator = torch.Generator().manual_seed(2)
    config = {"model_type": "gpt_oss", "num_hidden_layers": 1, "num_local_experts": EXPERTS}
    config |= {
        "hidden_size": MX_HIDDEN,
        "intermediate_size": MX_WIDTH,
        "quantization_config": {"quant_method": "mxfp4"},
    }
    tensors = {}
    for name, rows, columns in (("gate_up", 2 * MX_WIDTH, MX_HIDDEN), ("down", MX_HIDDEN, MX_WIDTH)):
        prefix = f"model.layers.0.mlp.experts.{name}_proj"
        shape = (EXPERTS, rows, columns // 32)
        tensors[f"{prefix}_blocks"] = torch.randint(256, (*shape, 16), dtype=torch.uint8, generator=generator)
        tensors[f"{prefix}_scales"] = torch.randint(100, 140, shape, dtype=torch.uint8, generator=generator)
        tensors[f"{prefix}_bias"] = torch.randn(EXPERTS, rows, generator=generator).bfloat16()
    return config, tensors


def test_mxfp4_is_decoded_as_transformers_does(tmp_path: Path) -> None:
    """transformers gives (expert, input, output), gate and up interleaved along the outputs."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    config, tensors = mxfp4_checkpoint()
    with Checkpoint(write_checkpoint(tmp_path, config, tensors)) as checkpoint:
        for stack in stacks(checkpoint):
            name = "model.layers.0.mlp.experts." + ("down_proj" if stack.projection == "down" else "gate_up_proj")
            blocks, scales = tensors[f"{name}_blocks"], tensors[f"{name}_scales"]
            W_EIO = convert_moe_packed_tensors(blocks.clone(), scales.clone(), dtype=torch.bfloat16).float()
            part = {"gate": slice(0, None, 2), "up": slice(1, None, 2), "down": slice(None)}[stack.projection]
            expected = W_EIO[:, :, part].transpose(1, 2)
            assert stack.encoding.natural == torch.bfloat16, "exact in bf16"
            for way, found in read_all_ways(stack):
                assert torch.equal(found, expected), (stack.projection, way)
            bias = stack.bias()
            assert bias is not None and torch.equal(bias, tensors[f"{name}_bias"][:, part])


@pytest.mark.parametrize("made", [lambda: fp8_checkpoint((7, 5)), mxfp4_checkpoint], ids=["fp8", "mxfp4"])
def test_spectra_are_those_of_the_decoded_weights(made: Any, tmp_path: Path) -> None:
    with Checkpoint(write_checkpoint(tmp_path, *made())) as checkpoint:
        for stack in stacks(checkpoint):
            for memory in (stack.nbytes, stack.stored_bytes(1, stack.stored_shape[1])):
                found = mode_spectra(BlockReader(stack, memory)).modes
                for mode, sigma in unfolded_svd(stack.weights(0, EXPERTS).float()).items():
                    np.testing.assert_allclose(found[mode].sigma, sigma, rtol=0, atol=1e-6 * sigma[0], err_msg=mode)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, t: t.pop(next(n for n in t if "_scale_inv" in n)), "_scale_inv' is missing from the checkpoint"),
        (
            lambda c, t: [
                t.update({n.replace("_scale_inv", "_scale"): t.pop(n)}) for n in list(t) if "_scale_inv" in n
            ],
            r"weight_scale: scales a tensor or a channel \(compressed-tensors\) are not readable, .*; use a bf16",
        ),
        (lambda c, t: c.pop("quantization_config"), r"_scale_inv: shape is \[10, 6\], expected \[1, 1\]"),
        (lambda c, t: c["quantization_config"].update(weight_block_size=[2]), r"weight_block_size is \[2\]"),
        (lambda c, t: c["quantization_config"].update(weight_block_size=[0, 4]), r"weight_block_size is \[0, 4\]"),
        (
            lambda c, t: t.update({n: v.to(torch.int8) for n, v in t.items() if "_scale_inv" in n}),
            "stored as I8; scales must be",
        ),
    ],
)
def test_scales_that_do_not_fit_are_named(change: Any, message: str, tmp_path: Path) -> None:
    config, tensors = fp8_checkpoint((2, 4))
    change(config, tensors)
    with (
        Checkpoint(write_checkpoint(tmp_path, config, tensors)) as checkpoint,
        pytest.raises(InputError, match=message),
    ):
        list(stacks(checkpoint))
