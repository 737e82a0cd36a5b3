"""Gate and up as one stack: the reader against the two stacks side by side, whatever their order on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import single_thread
from zoo import FAMILIES, build, save

import tdmoe.stacks.blocks
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.numerics.errors import stack_errors
from tdmoe.numerics.products import expert_blocks
from tdmoe.numerics.ranks import Ranks
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.joint import JointReader, open_named, plan, reader
from tdmoe.stacks.locate import open_stack
from tdmoe.tucker.decomposition import finish, hosvd
from tdmoe.tucker.modes import mode_bases

DOUBLE = torch.float64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "mixtral"])
def test_it_reads_gate_then_up(name: str, fused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "gpt_oss" and not fused:
        pytest.skip("GPT-OSS is stored fused only")
    family = FAMILIES[name]
    monkeypatch.setattr(tdmoe.stacks.blocks, "BLOCK_WEIGHTS", 3 * family.width * 24)
    with Checkpoint(save(build(family), tmp_path, fused=fused)) as checkpoint:
        arch, layer = architecture(checkpoint.config), family.moe_layers[0]
        gate, up = (open_stack(checkpoint, arch, layer, p) for p in ("gate", "up"))
        W_EOI = torch.cat([s.weights(0, s.shape[0]).double() for s in (gate, up)], 1)
        stack = open_named(checkpoint, arch, layer, "gate_up")
        assert stack.shape == tuple(W_EOI.shape) and stack.projection == "gate_up" and stack.layer == layer
        assert stack.nbytes == gate.nbytes + up.nbytes and len(set(stack.all_entries)) == len(stack.all_entries)
        assert plan(stack, 10**9).peak_bytes > plan(gate, 10**9).peak_bytes + plan(up, 10**9).peak_bytes
        source = reader(stack, 10**9)
        assert isinstance(source, JointReader)
        blocks = torch.cat([W.clone() for _, W in expert_blocks(source, DOUBLE)])
        assert torch.equal(blocks, W_EOI)
        strips = torch.cat([Y.clone() for Y in source.strips(DOUBLE)], 1)
        torch.testing.assert_close(strips @ strips.T, W_EOI.flatten(1) @ W_EOI.flatten(1).T)
        bases = mode_bases(source, {}, dtype=DOUBLE)
        for axis, mode in enumerate(("expert", "output", "input")):
            unfolded = W_EOI.movedim(axis, 0).flatten(1)
            expected = torch.linalg.svdvals(unfolded) ** 2
            torch.testing.assert_close(bases[mode].energy_N[: len(expected)], expected, rtol=1e-8, atol=1e-10)
        made = finish(source, {}, hosvd(bases, Ranks(4, 2 * family.width - 5, 9)), dtype=DOUBLE)
        errors = stack_errors(source, made.members)
        E_EOI = W_EOI - made.members(0, len(W_EOI))
        norms = [
            float(torch.linalg.matrix_norm(e, 2) / torch.linalg.matrix_norm(w, 2))
            for E, W in zip(E_EOI.chunk(2, 1), W_EOI.chunk(2, 1), strict=True)
            for e, w in zip(E, W, strict=True)
        ]
        assert errors.operator == pytest.approx(sum(norms) / len(norms), rel=1e-4), "norms of gate and up, each alone"
        assert errors.weight == pytest.approx(float(E_EOI.norm() / W_EOI.norm()), rel=1e-5)
