"""TD-MoE on a GPU: what must hold of compression, calibration and the factored layer, and how fast they are."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor

from bench.checkpoints import QWEN3_30B, Shape, write
from bench.machine import fastest, gemm_rate
from bench.results import Figure
from tdmoe import methods
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.forms.tucker import TuckerWeights
from tdmoe.runtime.calibration import calibrate
from tdmoe.runtime.modules import factorise
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockReader
from tdmoe.stacks.locate import open_stack

SHAPE = Shape("qwen3_moe", 26, 200, 336)
SMALL = Shape("qwen3_moe", 16, 96, 160)
MEMORY = 4_000_000_000
VARIANTS = (
    "tdmoe:whitening=none,objective=weight",
    "tdmoe",
    "tdmoe:whitening=both",
    "tdmoe:expert_mode=compress,refit=expert",
    "tdmoe:objective=operator",
)


def compression_agrees_with_the_cpu_in_float64(folder: Path, device: str) -> None:
    """The same ranks, and the same weights within float32, of blocks smaller than the stack."""
    with Checkpoint(write(folder / "tucker", SHAPE)) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, "gate")
        statistics = _statistics(*stack.shape)
        for spec in VARIANTS:
            method, options = methods.parse(spec)
            found = []
            for where, block in (("cpu", 1 << 30), (device, 1 << 18)):
                with (
                    patch("tdmoe.methods.tdmoe.BLOCK_WEIGHTS", block),
                    patch("tdmoe.stacks.blocks.BLOCK_WEIGHTS", block),
                ):
                    reader = BlockReader(stack, MEMORY)
                    made: Any = method.compress(reader, options, methods.Allotment(0.4), statistics, device=where)
                found.append((made.ranks, made.members(0, stack.shape[0]).cpu().double()))
            (ranks, exact), (gpu_ranks, W_EOI) = found
            assert ranks == gpu_ranks, f"{spec}: ranks {gpu_ranks}, on the CPU {ranks}"
            change = float((W_EOI - exact).norm() / exact.norm())
            assert change <= 2e-3, f"{spec}: weights differ by {change:.1e}"  # near ties turn the directions


def the_factored_layer_computes_what_the_dense_one_does(folder: Path, device: str) -> None:
    """In float32, and in bf16 where one grouped kernel does all experts."""
    for dtype, allowed in ((torch.float32, 1e-4), (torch.bfloat16, 0.03)):
        factored, dense = _pair(SMALL, (12, 64, 80), device, dtype)
        for tokens in (1, 40):
            x_TI, index_TK, weight_TK = _routed(SMALL, tokens, device, dtype)
            with torch.no_grad():
                expected, found = (layer(x_TI, index_TK, weight_TK).float() for layer in (dense, factored))
            error = float((found - expected).norm() / expected.norm())
            assert error <= allowed, f"{dtype}, {tokens} tokens: off by {error:.1e}"


def statistics_agree_with_the_cpu(folder: Path, device: str) -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "moe_intermediate_size": 40, "num_experts": 12, "num_experts_per_tok": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "num_hidden_layers": 2}
    config = Qwen3MoeConfig(vocab_size=300, norm_topk_prob=True, **sizes, **heads)
    model = Qwen3MoeForCausalLM(config).float().eval()
    window_BT = torch.randint(300, (2, 64), generator=torch.Generator().manual_seed(1))
    expected = calibrate(model, [window_BT], per_expert="all", outputs=True).layers[1]
    found = calibrate(model.to(device), [window_BT], per_expert="all", outputs=True).layers[1]
    for name, tensor in vars(expected).items():
        error = float((getattr(found, name).cpu() - tensor).norm() / tensor.norm())
        assert error <= 1e-3, f"{name}: off by {error:.1e}"


CHECKS = (
    compression_agrees_with_the_cpu_in_float64,
    the_factored_layer_computes_what_the_dense_one_does,
    statistics_agree_with_the_cpu,
)


def timings(folder: Path, device: str, small: bool) -> Iterator[Figure]:
    """One stack compressed, with its share of the dense rate; then a layer of tokens, factored against dense."""
    shape = SMALL if small else QWEN3_30B
    rate = gemm_rate(device, torch.float32)
    with Checkpoint(write(folder / "compress", shape, projections=("gate",))) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, "gate")
        reader = BlockReader(stack, MEMORY)
        statistics = _statistics(*stack.shape)
        grams = shape.weights * (shape.experts + shape.width + shape.hidden)
        for spec in VARIANTS[:2]:
            method, options = methods.parse(spec)
            compress = partial(method.compress, reader, options, methods.Allotment(0.4), statistics, device=device)
            seconds, made = fastest(compress), cast(TuckerWeights, compress())
            work = grams + 2 * made.core_RPQ.numel() * (stack.shape[2] if made.input_IQ is not None else 0)
            share = work / seconds / rate
            name = f"{spec}, rho 0.4, ranks {'x'.join(map(str, made.ranks))}"
            yield Figure(name, f"{seconds:.3f} s; Grams and core alone are {share:.0%} of the fp32 rate in that time")
    ranks = made.ranks
    factored, dense = _pair(shape, ranks, device, torch.bfloat16 if device != "cpu" else torch.float32)
    sizes = [sum(p.nbytes for p in layer.parameters()) for layer in (dense, factored)]
    yield Figure("memory of the layer, dense and factored", f"{sizes[0] / 1e6:.0f} MB, {sizes[1] / 1e6:.0f} MB")
    for tokens in (1, 16, 256):
        routed = _routed(shape, tokens, device, next(dense.parameters()).dtype)
        rates = [tokens / _seconds(layer, routed) for layer in (dense, factored)]
        what = f"tokens a second through the layer, batch {tokens}: dense, factored"
        yield Figure(what, f"{rates[0]:,.0f}, {rates[1]:,.0f} ({rates[1] / rates[0]:.2f} times)")


def _seconds(layer: Any, routed: tuple[Tensor, ...], repeats: int = 20) -> float:
    with torch.no_grad():
        for _ in range(3):
            layer(*routed)
        _wait()
        started = time.perf_counter()
        for _ in range(repeats):
            layer(*routed)
        _wait()
    return (time.perf_counter() - started) / repeats


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _statistics(experts: int, outputs: int, inputs: int) -> methods.StackStatistics:
    """Second moments that differ from expert to expert."""
    generator = torch.Generator().manual_seed(3)

    def moment(size: int, seed: int) -> Tensor:
        scale = torch.arange(1, size + 1, dtype=torch.float64) ** (-0.5 - 0.02 * seed)
        x_TN = torch.randn(2 * size, size, generator=generator, dtype=torch.float64) * scale
        return x_TN.T @ x_TN / len(x_TN)

    C_II, D_OO = moment(inputs, 0), moment(outputs, 1)
    return methods.StackStatistics(C_II, lambda e: C_II * (1 + e % 3) + C_II.diag().diag() * (e % 5), D_OO)


def _pair(shape: Shape, ranks: tuple[int, ...], device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A layer of transformers in factor form, and dense with what the factors rebuild to."""
    from transformers import Qwen3MoeConfig
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

    sizes = {"hidden_size": shape.hidden, "moe_intermediate_size": shape.width, "num_experts": shape.experts}
    config = Qwen3MoeConfig(num_experts_per_tok=8, **sizes)
    config._experts_implementation = "grouped_mm" if device != "cpu" else "eager"
    with torch.device(device):
        dense = Qwen3MoeExperts(config).to(dtype)
    factored = copy.copy(dense)
    factored._parameters, factored._modules = dict(dense._parameters), dict(dense._modules)
    R, P, Q = ranks
    specs = {p: {"kind": "tucker", "ranks": [R, P, Q]} for p in ("gate", "up")}
    factorise(factored, specs | {"down": {"kind": "tucker", "ranks": [R, Q, P]}})
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in ("gate", "up", "down"):
            for parameter in getattr(factored, p).parameters():
                random = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
                parameter.copy_(random)
        W = {p: _dense(getattr(factored, p), shape.experts) for p in ("gate", "up", "down")}
        dense.gate_up_proj.copy_(torch.cat([W["gate"], W["up"]], 1))
        dense.down_proj.copy_(W["down"])
    return factored, dense


def _dense(linear: Any, experts: int) -> Tensor:
    made = TuckerWeights(linear.core, linear.expert, linear.output, linear.input)
    return made.to(torch.float32).members(0, experts)


def _routed(shape: Shape, tokens: int, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x_TI = torch.randn(tokens, shape.hidden, generator=generator).to(device, dtype)
    index_TK = torch.stack([torch.randperm(shape.experts, generator=generator)[:8] for _ in range(tokens)])
    weight_TK = torch.rand(tokens, 8, generator=generator).to(device, dtype)
    return x_TI, index_TK.to(device), weight_TK
