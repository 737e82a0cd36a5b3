"""Methods beside TD-MoE and MoBE, against textbook versions of them written here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import open_planted
from test_tucker import decaying
from tiny import single_thread
from torch import Tensor

from tdmoe.forms import linear, restore, stored_bits
from tdmoe.methods import NAMES, Allotment, Sharing, StackStatistics, described, method, parse
from tdmoe.mobe import fit
from tdmoe.mobe.sizes import Sizes
from tdmoe.numerics.ranks import Ranks
from tdmoe.numerics.whitening import metric
from tdmoe.problems import InputError
from tdmoe.stacks.blocks import BlockReader
from tdmoe.tucker import decomposition

SHAPES = [(6, 10, 14), (5, 17, 9)]  # wide, and tall
DOUBLE = torch.float64


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tdmoe.stacks.blocks.BLOCK_WEIGHTS", 2 * 17 * 9)


Made = Callable[..., Any]


@pytest.fixture(params=SHAPES, ids=str)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tensor, BlockReader, StackStatistics]:
    """(W_EOI, its reader, statistics of inputs that differ in scale and between experts)."""
    W_EOI = decaying(request.param)
    stack = open_planted(tmp_path, W_EOI)
    experts, _, inputs = request.param
    generator = torch.Generator().manual_seed(7)
    scale = torch.arange(1, inputs + 1, dtype=DOUBLE) ** -1.0
    x = [torch.randn(40, inputs, generator=generator, dtype=DOUBLE) * scale.roll(e) for e in range(experts)]
    own = [rows.T @ rows / len(rows) for rows in x]
    tokens = torch.arange(experts, 0, -1, dtype=DOUBLE) ** 2
    C = sum(t * c for t, c in zip(tokens, own, strict=True)) / tokens.sum()
    assert isinstance(C, Tensor)
    fisher = torch.arange(1, experts + 1, dtype=DOUBLE)
    return W_EOI, BlockReader(stack, 10**9), StackStatistics(C, lambda e: own[e], None, tokens, fisher)


def made(spec: str, reader: BlockReader, statistics: StackStatistics | None, ratio: float = 0.4) -> Any:
    method, options = parse(spec)
    method.check(reader.stack.shape, options, ratio)
    return method.compress(reader, options, Allotment(ratio), statistics, device="cpu")


def rebuilt(factored: Any) -> Tensor:
    W: Tensor = factored.members(0, factored.shape[0]).double()
    return W


def svd_in(W_OI: Tensor, C_II: Tensor, rank: int) -> Tensor:
    """Truncated SVD of W C^(1/2), times C^(-1/2)."""
    values, V = torch.linalg.eigh(C_II)
    root = V * values.sqrt() @ V.T
    U, s, Vt = torch.linalg.svd(W_OI @ root, full_matrices=False)
    return U[:, :rank] * s[:rank] @ Vt[:rank] @ torch.linalg.inv(root)


Stack = tuple[Tensor, BlockReader, StackStatistics]


def test_plain_svd_is_the_truncated_one(stack: Stack) -> None:
    W_EOI, reader, _ = stack
    experts, outputs, inputs = W_EOI.shape
    factored = made("svd", reader, None)
    rank = int(0.6 * outputs * inputs / (outputs + inputs))
    assert factored.ranks == (rank,) and stored_bits(factored) == 32 * experts * rank * (outputs + inputs)
    for W_OI, found in zip(W_EOI, rebuilt(factored), strict=True):
        torch.testing.assert_close(found, svd_in(W_OI, torch.eye(inputs, dtype=DOUBLE), rank), rtol=1e-4, atol=1e-5)
    assert made("svd:rank=2", reader, None).ranks == (2,)


@pytest.mark.parametrize("moments", ["pooled", "expert"])
def test_svd_llm_is_the_truncated_svd_in_the_metric(stack: Stack, moments: str) -> None:
    W_EOI, reader, statistics = stack
    factored = made(f"svd_llm:damping=0,moments={moments}", reader, statistics)
    assert statistics.own is not None
    for e, (W_OI, found) in enumerate(zip(W_EOI, rebuilt(factored), strict=True)):
        C_II = statistics.C_II if moments == "pooled" else statistics.own(e)
        torch.testing.assert_close(found, svd_in(W_OI, C_II, factored.ranks[0]), rtol=1e-3, atol=1e-4)


def test_svd_llm_stands_a_singular_second_moment(stack: Stack) -> None:
    """Inputs of three directions only: outputs on them are exact at rank 3, and nothing explodes elsewhere."""
    W_EOI, reader, statistics = stack
    x = torch.randn(50, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) @ statistics.C_II[:3]
    few = StackStatistics(x.T @ x / 50)
    found = rebuilt(made("svd_llm:damping=0,rank=3", reader, few))
    torch.testing.assert_close(found @ x.T, W_EOI @ x.T, rtol=1e-4, atol=1e-4)
    assert float(found.norm()) <= float(W_EOI.norm()) * (1 + 1e-6), "a projection of W, not W times an inverse"


@pytest.mark.parametrize("mean", ["frequency", "fisher", "alike"])
def test_d2_moe_is_a_mean_and_the_best_deltas(stack: Stack, mean: str) -> None:
    W_EOI, reader, statistics = stack
    experts, outputs, inputs = W_EOI.shape
    factored = made(f"d2_moe:damping=0,mean={mean}", reader, statistics)
    p = {"frequency": statistics.tokens_E, "fisher": statistics.fisher_E, "alike": torch.ones(experts)}[mean]
    assert p is not None
    base = sum(p[e] * W_EOI[e] for e in range(experts)) / p.sum()
    rank = int((0.6 * experts * outputs * inputs - outputs * inputs) / (experts * (outputs + inputs)))
    assert factored.ranks == (rank,)
    for W_OI, found in zip(W_EOI, rebuilt(factored), strict=True):
        expected = base + svd_in(W_OI - base, statistics.C_II, rank)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_deltas_give_back_what_rounding_took_from_the_mean(stack: Stack, tmp_path: Path) -> None:
    """At a rank that loses nothing, nothing is lost: the base is rounded as it is stored, the deltas are not yet."""
    _, source, statistics = stack
    W_EOI = source.stack.weights(0, source.stack.shape[0]).bfloat16()
    reader = BlockReader(open_planted(tmp_path / "bf16", W_EOI, torch.bfloat16), 10**9)
    method, options = parse(f"d2_moe:damping=0,rank={min(W_EOI.shape[1:])}")
    found = method.compress(reader, options, Allotment(0.4), statistics, device="cpu")
    stored = replace(found, base_OI=found.to(torch.bfloat16).base_OI.double())
    torch.testing.assert_close(rebuilt(stored), W_EOI.double(), rtol=0, atol=1e-5)


def test_three_methods_that_are_one(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input-mode Tucker = corrected MoE-SVD of experts that count alike = MoBE of one basis and linear phi."""
    W_EOI, reader, statistics = stack
    rank = 6
    experts, outputs, inputs = W_EOI.shape
    kept = (experts * outputs * rank + inputs * rank + experts) / W_EOI.numel()  # MoBE stores a mixing weight each
    method, options = parse("tdmoe:alignment=1")
    shared = method.compress(reader, options, Allotment(0.4, Ranks(experts, outputs, rank)), statistics, device="cpu")
    expected = rebuilt(shared)
    svd = made("moe_svd:weigh=alike", reader, statistics, 1 - kept)
    assert svd.ranks == shared.ranks
    torch.testing.assert_close(rebuilt(svd), expected, rtol=1e-4, atol=1e-5)
    mobe = made(f"mobe:bases=1,rank={rank},phi=identity", reader, statistics)
    assert mobe.fit.stopped == "converged"
    torch.testing.assert_close(rebuilt(mobe), expected, rtol=2e-3, atol=2e-3)  # float32, and a ridge of 1e-6
    monkeypatch.setattr("tdmoe.mobe.objective.RIDGE", 0.0)
    S = metric(statistics.C_II).S_NN
    exact = fit.fitted(W_EOI, [Sizes(1, rank)], "identity", 50, S @ S.T)
    torch.testing.assert_close(exact.members(0, experts), expected, rtol=1e-5, atol=1e-6)


def test_moe_svd_weighs_experts_by_their_tokens(stack: Stack) -> None:
    W_EOI, reader, statistics = stack
    C, tokens = statistics.C_II, statistics.tokens_E
    assert tokens is not None

    def lost(factored: Any, weights: Tensor) -> float:
        E = rebuilt(factored) - W_EOI
        return float((weights * torch.einsum("eoi,ij,eoj->e", E, C, E)).sum())

    frequent, alike = (made(f"moe_svd:damping=0,weigh={w}", reader, statistics) for w in ("frequency", "alike"))
    assert lost(frequent, tokens) < lost(alike, tokens) and lost(alike, torch.ones(1)) < lost(frequent, torch.ones(1))
    published = made("moe_svd:preset=published,damping=0", reader, statistics)
    assert lost(frequent, tokens) < lost(published, tokens)


def test_published_moe_svd_as_told(stack: Stack) -> None:
    """Left factors of the two busiest experts, the right one of the busiest, nearest combinations."""
    W_EOI, reader, statistics = stack
    factored = made("moe_svd:preset=published,damping=0,top=2", reader, statistics)
    experts, outputs, inputs = W_EOI.shape
    rank = min(outputs, inputs)
    assert factored.ranks == (2, outputs, rank)
    values, Q = torch.linalg.eigh(statistics.C_II)
    root = Q * values.sqrt() @ Q.T
    parts = [torch.linalg.svd(W_OI @ root, full_matrices=False) for W_OI in W_EOI]
    shared = parts[0][2] @ torch.linalg.inv(root)  # the first has the most tokens
    left = [U * s * torch.sign((V * parts[0][2]).sum(1)) for U, s, V in parts]
    span = torch.stack([left[0].flatten(), left[1].flatten()], 1)
    found = rebuilt(factored)
    torch.testing.assert_close(found[0], left[0] @ shared, rtol=1e-3, atol=1e-4)
    assert float((found[0] - W_EOI[0]).norm()) < 1e-3 * float(W_EOI[0].norm()), "its own V belongs to its own U"
    for e in range(1, experts):
        nearest = span @ torch.linalg.pinv(span) @ left[e].flatten()
        torch.testing.assert_close(found[e], nearest.view(outputs, rank) @ shared, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("bits", [8, 4, 3])
@pytest.mark.parametrize(("scale", "group"), [("tensor", 0), ("channel", 0), ("group", 4)])
def test_rtn_rounds_as_torch_does(
    stack: Stack, bits: int, scale: str, group: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    """With scales as they are stored, in the dtype of the checkpoint."""
    W_EOI = stack[0].to(dtype)
    reader = BlockReader(open_planted(tmp_path / "stack", W_EOI, dtype), 10**9)
    experts, outputs, inputs = W_EOI.shape
    factored = made(f"rtn:bits={bits},scale={scale}" + (f",group={group}" if group else ""), reader, None)
    most = 2 ** (bits - 1) - 1
    expected = torch.zeros(W_EOI.shape)
    scales = 0
    for e, W_OI in enumerate(W_EOI.float()):
        rows = [slice(None)] if scale == "tensor" else [slice(o, o + 1) for o in range(outputs)]
        columns = [slice(i, i + group) for i in range(0, inputs, group)] if group else [slice(None)]
        for row in rows:
            for column in columns:
                part = W_OI[row, column]
                s = float((part.abs().max() / most).to(dtype))
                expected[e, row, column] = torch.fake_quantize_per_tensor_affine(part, s, 0, -most, most)
                scales += 1
    torch.testing.assert_close(rebuilt(factored).float(), expected, rtol=1e-6, atol=1e-6)
    padded = -(-inputs // 8) * 8  # a row's codes end with a byte
    assert stored_bits(factored) == experts * outputs * padded * bits + 8 * dtype.itemsize * scales


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rtn_of_the_smallest_weights_is_not_zero(dtype: torch.dtype, tmp_path: Path) -> None:
    """Also where the scale would underflow."""
    W_EOI = (torch.tensor([1.0, -1.0, 0.0, 3.0, -3.0]) * 2.0**-24).to(dtype).expand(3, 4, 5)
    reader = BlockReader(open_planted(tmp_path, W_EOI, dtype), 10**9)
    assert torch.equal(rebuilt(made("rtn:bits=8", reader, None)).sign(), W_EOI.double().sign())


def test_rtn_of_zeros_is_zero(tmp_path: Path) -> None:
    W_EOI = decaying((3, 4, 5))
    W_EOI[1] = 0.0
    reader = BlockReader(open_planted(tmp_path, W_EOI), 10**9)
    assert not rebuilt(made("rtn:scale=channel", reader, None))[1].any()


def test_controls(stack: Stack) -> None:
    W_EOI, reader, _ = stack
    assert torch.equal(rebuilt(made("identity", reader, None)), W_EOI)
    assert torch.equal(rebuilt(made("cast", reader, None)), W_EOI.bfloat16().double())
    dropped = made("drop", reader, None)
    assert not rebuilt(dropped).any() and stored_bits(dropped) == 0 and dropped.shape == W_EOI.shape
    mean = rebuilt(made("mean", reader, None).to(torch.float32))
    torch.testing.assert_close(mean, W_EOI.mean(0).expand_as(W_EOI), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("whitening", ["none", "input"])
def test_tensorlys_decomposition_ends_where_ours_does(stack: Stack, whitening: str) -> None:
    """Both are HOOI from the HOSVD: the same error of the whitened stack, at ranks that cut every mode."""
    W_EOI, reader, statistics = stack
    S_II = torch.eye(W_EOI.shape[2], dtype=DOUBLE) if whitening == "none" else metric(statistics.C_II).S_NN
    ranks = Ranks(3, 6, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tdmoe.methods.tdmoe.hooi", partial(decomposition.hooi, sweeps=500, tolerance=1e-12))
        errors = []
        for kind in ("hooi", "tensorly"):
            found, options = parse(f"tdmoe:decomposition={kind},whitening={whitening}")
            made = found.compress(reader, options, Allotment(0.5, ranks), statistics, device="cpu")
            assert made.ranks == ranks
            errors.append(float(((rebuilt(made) - W_EOI) @ S_II).norm() / (W_EOI @ S_II).norm()))
    assert errors[0] == pytest.approx(errors[1], rel=1e-6) and 0.01 < errors[0] < 1


def test_a_stack_too_large_for_tensorly_is_refused_and_no_other_spec_imports_it(stack: Stack) -> None:
    found, options = parse("tdmoe:decomposition=tensorly")
    with pytest.raises(
        InputError, match="method tdmoe: decomposition=tensorly holds a 128 x .* in memory, .*; give hooi"
    ):
        found.check((128, 2048, 2048), options, 0.5)
    assert found.memory((128, 768, 2048), options, 0.5) == 6 * 8 * 128 * 768 * 2048
    code = "import sys; from tdmoe.methods import parse; parse('tdmoe'); assert 'tensorly' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_found_by_its_file_and_says_what_it_is(name: str) -> None:
    found = method(name)
    assert name == found.NAME and found.REFERENCE and described()[name][:2] == (found.DISPLAY, found.FAMILY)
    options = found.OPTIONS()
    assert not (found.joins(options) or found.leaves_dense(options) or found.tie(options))
    assert found.shares_budget(options) == Sharing()


@pytest.mark.parametrize(
    ("spec", "joins", "sharing", "dense", "tie"),
    [
        ("tdmoe:gate_up=joint", True, Sharing(), 0, "gate_up=joint"),
        ("tdmoe:across=global,weigh=sensitivity", False, Sharing("global", True), 0, "across=global"),
        ("tdmoe:across=activation", False, Sharing("activation"), 0, "across=activation"),
        ("svd:ratio_of=model", False, Sharing(of_model=True), 0, "ratio_of=model"),
        ("moe_svd:dense_layers=2", False, Sharing(), 2, "dense_layers=2"),
        ("mobe:refit=expert", False, Sharing(), 0, ""),
    ],
)
def test_what_ties_stacks_together(spec: str, joins: bool, sharing: Sharing, dense: int, tie: str) -> None:
    found, options = parse(spec)
    assert (found.joins(options), found.shares_budget(options)) == (joins, sharing)
    assert (found.leaves_dense(options), found.tie(options)) == (dense, tie)


EVERY = (
    *(name for name in NAMES if name != "mobe"),
    *("mobe:steps=4", "mobe:steps=4,groups=2,whitening=none", "mobe:preset=published,steps=2", "mobe:bases=1,steps=2"),
    *("moe_svd:preset=published", "moe_svd:preset=published,top=2", "rtn:bits=3,scale=tensor", "d2_moe:mean=fisher"),
    *("mobe:preset=published,mixing=free,whitening=input,groups=2,steps=2", "svd:alignment=2"),
    *("tdmoe:whitening=none,allocation=published", "svd_llm:moments=expert", "tdmoe:alignment=1"),
)


@pytest.mark.parametrize("spec", EVERY)
@pytest.mark.parametrize("shape", [(6, 16, 24), (5, 24, 16), (4, 16, 16), (1, 10, 14)], ids=str)
def test_what_is_stored_is_what_its_module_holds(spec: str, shape: tuple[int, int, int], tmp_path: Path) -> None:
    """Wide, tall, square, and of a single expert: names and shapes, and the same weights when read back."""
    W_EOI = decaying(shape)
    reader = BlockReader(open_planted(tmp_path, W_EOI), 10**9)
    x = torch.randn(60, shape[2], dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    C_II, count_E = x.T @ x / 60, torch.arange(1.0, shape[0] + 1)
    try:
        factored = made(spec, reader, StackStatistics(C_II, lambda e: C_II, None, count_E, count_E), 0.2)
    except InputError:
        assert shape[0] == 1, "one expert has no two groups, no mean that is not itself"
        return
    module = linear(shape, factored.spec(), torch.float32)
    held = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert held == {name: tuple(t.shape) for name, t in factored.tensors().items()} and factored.shape == shape
    again = restore(factored.spec(), factored.tensors())
    torch.testing.assert_close(again.members(0, shape[0]), factored.members(0, shape[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "spec", ["mobe:steps=9", "mobe:preset=published,steps=3", "svd_llm", "d2_moe", "moe_svd", "rtn"]
)
def test_experts_that_are_zero_stay_zero(spec: str, tmp_path: Path) -> None:
    W_EOI = torch.zeros(4, 6, 10, dtype=DOUBLE)
    reader = BlockReader(open_planted(tmp_path, W_EOI), 10**9)
    found = rebuilt(made(spec, reader, StackStatistics(torch.eye(10, dtype=DOUBLE), None, None, torch.ones(4)), 0.2))
    assert not found.any()


@pytest.mark.parametrize("scale", [1e-22, 1e12])
def test_the_scale_of_the_weights_does_not_matter(scale: float) -> None:
    W_EOI = decaying((6, 10, 14)).float()
    plain, scaled = (fit.fitted(W, [Sizes(3, 5)], "tanh", 40) for W in (W_EOI, W_EOI * scale))
    torch.testing.assert_close(scaled.members(0, 6) / scale, plain.members(0, 6), rtol=1e-2, atol=1e-2)


def test_a_singular_second_moment_does_no_harm_to_mobe(stack: Stack) -> None:
    W_EOI, reader, statistics = stack
    x = torch.randn(50, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) @ statistics.C_II[:3]
    few = StackStatistics(x.T @ x / 50)
    found = rebuilt(made("mobe:damping=0,bases=2,rank=5,steps=60", reader, few))
    assert float((found @ x.T - W_EOI @ x.T).norm() / (W_EOI @ x.T).norm()) < 0.05


@pytest.mark.parametrize("spec", ["svd", "svd_llm", "d2_moe", "mobe:steps=2", "mobe:preset=published,steps=2"])
def test_aligned_ranks_are_the_largest_multiple_of_the_budget(stack: Stack, spec: str) -> None:
    _, reader, statistics = stack
    separator = "," if ":" in spec else ":"
    plain, twos = (made(spec + more, reader, statistics, 0.3) for more in ("", f"{separator}alignment=2"))
    if "mobe:steps" in spec:  # sizes are searched
        assert twos.ranks[1] % 2 == 0
    else:
        assert twos.ranks[-1] == plain.ranks[-1] // 2 * 2


BUDGETED = (
    "svd",
    "svd_llm",
    "svd_llm:moments=expert",
    "d2_moe",
    "moe_svd",
    "moe_svd:preset=published",
    "tdmoe:alignment=1",
)
MOBE = ("mobe:steps=8", "mobe:steps=8,groups=2,whitening=none", "mobe:preset=published,steps=2")


@pytest.mark.parametrize("spec", [*BUDGETED, *MOBE])
@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_no_method_stores_more_than_its_budget(stack: Stack, spec: str, ratio: float) -> None:
    W_EOI, reader, statistics = stack
    stored = stored_bits(made(spec, reader, statistics, ratio).to(torch.bfloat16)) / 16
    allowed = (1 - ratio) * W_EOI.numel()
    assert (0.3 if "published" in spec else 0.6) * allowed <= stored <= allowed


@pytest.mark.parametrize(
    ("spec", "ratio", "message"),
    [
        ("svd:rank=7", 0.4, r"rank 7 stores 6 x 7 x \(10 \+ 14\) = 1,008 parameters, 1.20 times .*; give .* at most 5"),
        ("svd:rank=-1", 0.4, "rank is -1; a rank of at least 1 is needed"),
        ("svd", 0.97, r"ratio 0.97: leaves 25 parameters of a 6 x 10 x 14 stack, rank 1 takes 144; lower"),
        ("d2_moe", 0.8, "leaves 168 parameters .*, rank 1 takes 284; lower"),
        ("d2_moe:damping=-1", 0.4, "d2_moe: damping is -1.0; a number of at least 0"),
        ("moe_svd:top=2", 0.4, "top=2 is of preset=published only; give one"),
        ("moe_svd:preset=published,weigh=alike", 0.4, "weigh is of preset=corrected only; give one"),
        ("moe_svd:preset=published,top=9", 0.4, "top is 9; the stack has 6 experts"),
        ("moe_svd", 0.95, "rank 1 takes 74; lower"),
        ("rtn:bits=9", 0.4, "bits is 9; give 2 to 8"),
        ("rtn:group=0", 0.4, "group is 0; give at least 1"),
        ("rtn:scale=tensor,group=64", 0.4, "group says nothing where scale=tensor; give one"),
        ("mobe:bases=7,rank=2", 0.4, "bases is 7 for 6 experts; give 1 to 6"),
        ("mobe:bases=2,rank=15", 0.4, "rank is 15 with 2 bases and 14 inputs; give 1 to 14"),
        (
            "mobe:bases=3,rank=10",
            0.4,
            r"10 \+ 3 x 10 x 14 \+ 6 x 3 = 1,038 parameters, 1.24 times the 840 .* most 8",
        ),
        ("mobe:bases=3", 0.99, "ratio 0.99: 3 bases leave no rank within its budget; lower the ratio"),
        ("mobe:rank=9", 0.6, "ratio 0.6: rank 9 leaves no basis within its budget; lower the ratio"),
        (
            "mobe:mixing=softmax",
            0.4,
            "mixing=softmax is of preset=published only: the fit's mixing is free, which con",
        ),
        ("mobe:preset=published,damping=0.1", 0.4, "damping says nothing without a metric in the loss; give"),
        ("mobe:alignment=0", 0.4, "mobe: alignment is 0; a step of ranks of at least 1 is needed"),
        ("mobe:alignment=8,bases=2,rank=8", 0.4, "mobe: alignment says nothing where the rank is given; give one"),
        ("svd:alignment=2,rank=4", 0.4, "svd: alignment says nothing where the rank is given; give one"),
        ("d2_moe:alignment=16", 0.2, "d2_moe: alignment is 16; ranks of this stack end at 10, give no more"),
        ("svd_llm:alignment=8", 0.4, r"leaves 504 parameters of .*, rank 8 takes 1,152; lower the ratio or the alig"),
        ("mobe:alignment=8", 0.6, "one basis of rank 8 takes 598; lower the ratio"),
        ("mobe:whitening=none,damping=0.1", 0.4, "damping says nothing without a metric in the loss; give"),
        ("d2_moe:whitening=none,damping=0.1", 0.4, "d2_moe: damping says nothing where whitening=none; give"),
        ("d2_moe:whitening=none,moments=expert", 0.4, "d2_moe: moments says nothing where whitening=none; give"),
        ("mobe", 0.95, "one basis of rank 1 takes 80; lower"),
        ("mobe:groups=7", 0.4, "groups is 7; the stack has 6 experts"),
        ("mobe:steps=-1", 0.4, "steps is -1; give at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: str, ratio: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        method, options = parse(spec)
        method.check((6, 10, 14), options, ratio)
