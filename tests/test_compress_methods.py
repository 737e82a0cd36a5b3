"""`compress` with every method: what is written loads, runs in its form, and takes the bits that the table says."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from compressed import MINI, fill_any, load_mini
from damage import Result, refuses
from planted import open_planted
from safetensors import safe_open
from safetensors.numpy import load_file as load_arrays
from tiny import read_json, read_tensors
from zoo import CHECKPOINTS, FAMILIES, build, experts_of, load, save, transpose_experts

from tdmoe import methods
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression import assemble
from tdmoe.compression.compress import compress_stack, write_stack
from tdmoe.forms.tucker import TuckerWeights
from tdmoe.methods import Allotment, StackStatistics
from tdmoe.problems import WeightError
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import BlockReader
from tdmoe.stacks.families import PROJECTIONS
from tdmoe.stacks.locate import open_stack

pytestmark = pytest.mark.usefixtures("one_thread")
BUDGETED = {
    "mobe:steps=20": "bases",
    "mobe:preset=published,steps=4": "bases",
    "d2_moe:mean=fisher": "low_rank",
}
ALL = (
    *(
        "mobe:steps=4",
        "d2_moe",
        "rtn:bits=8",
        "svd_llm",
        "moe_svd",
        "mean",
        "svd",
        "rtn:bits=4,scale=tensor",
        "identity",
    ),
    *("moe_svd:preset=published", "mobe:preset=published,steps=2", "tdmoe", "mobe:steps=4,groups=2", "cast", "drop"),
    "rtn:bits=3,scale=channel",
)
FIXED = {"rtn:bits=3": "integers", "identity": "dense", "drop": "tucker"}


@pytest.mark.parametrize("spec", [*BUDGETED, *FIXED])
def test_a_method_ends_in_a_checkpoint_of_its_form(
    compress: Callable[..., Result], statistics: Path, tmp_path: Path, spec: str
) -> None:
    to, out = tmp_path / "to", tmp_path / "out"
    options = ("--statistics", statistics, "--layers", "1", "--projections", "gate,down", "--dense", "--quiet")
    ratio = () if spec in FIXED else ("--ratio", "0.3")
    result = compress("--method", spec, *ratio, "--to", to, "--out", out, *options)
    assert result.code == 0, result
    table = list(csv.DictReader((out / "tables" / "compression.csv").open()))
    original = 32 * 80 * 192 * 16
    for row in table:
        with safe_open(to / f"experts-L001-{row['projection']}.safetensors", "pt") as file:
            assert json.loads(file.metadata()["spec"])["kind"] == {**BUDGETED, **FIXED}[spec]
            bits = sum(8 * file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
        assert int(row["stored_bits"]) == bits
        assert float(row["kept_ratio"]) == pytest.approx(bits / original)
        assert row["ratio"] == ("" if spec in FIXED else "0.3") and row["status"] == "ok"
        if spec in BUDGETED:
            assert 0.5 < bits / original <= 0.7
        assert (row["steps"] != "") == spec.startswith("mobe")
        if spec.startswith("mobe"):
            curve = load_arrays(out / "results" / f"compress-L001-{row['projection']}.safetensors")["fit"]
            assert curve[-1, 0] == float(row["steps"]) and np.all(np.diff(curve[:, 1]) >= 0)
    saved = read_json(to / "tdmoe.json")["bits_saved"]
    counted = 8 * sum(t.nbytes for t in read_tensors(MINI).values())  # tied: the embeddings are the head
    assert saved == pytest.approx(sum(original - int(row["stored_bits"]) for row in table) / counted)
    small, dense = load_mini(to), load_mini(to / "dense")
    assert type(small.model.layers[1].mlp.experts).__name__ == "FactoredExperts"
    ids = torch.randint(10, 4000, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (m(ids, output_router_logits=True) for m in (dense, small))
    alike = torch.ones(40, dtype=torch.bool)
    for ours_TE, theirs_TE in zip(found.router_logits, expected.router_logits, strict=True):
        (best_TK, near), (_, other) = (logits_TE.topk(5) for logits_TE in (theirs_TE, ours_TE))
        same = (near[:, :4].sort(1).values == other[:, :4].sort(1).values).all(1)
        assert (best_TK[~same, 3] - best_TK[~same, 4] < 5e-3).all(), "rounding moves them by 2.5e-3 at most"
        alike &= same
    ours_TV, theirs_TV = (out.logits[0, alike] for out in (found, expected))
    torch.testing.assert_close(ours_TV, theirs_TV, rtol=0.05, atol=0.01 * float(theirs_TV.abs().max()))
    before, after = read_tensors(MINI), read_tensors(to / "dense")
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert bool(changed) == (spec != "identity"), "bit for bit"


def test_the_most_sensitive_layer_is_left_dense(compress: Callable[..., Result], tmp_path: Path) -> None:
    """MoE-SVD's sum of f r a, here from full singular values and the run's own counts."""
    options = ("--tokens", "2048", "--layers", "0-2", "--projections", "gate,down", "--ratio", "0.3", "--quiet")
    method = ("--method", "moe_svd:dense_layers=1")
    result = compress(*method, *options, "--to", tmp_path / "to", "--out", tmp_path / "out")
    assert result.code == 0, result
    sums = {int(p.name[11:14]): load_arrays(p) for p in Path("runs").glob("*calibrate*/results/*.safetensors")}
    expected = {}
    with Checkpoint(MINI) as checkpoint:
        arch = architecture(checkpoint.config)
        for layer, found in sums.items():
            W = [open_stack(checkpoint, arch, layer, p).weights(0, 32).double() for p in ("gate", "down")]
            s = [torch.linalg.svdvals(stack) for stack in W]
            r = sum((values >= 0.01 * values[:, :1]).sum(1).double() for values in s) / 2
            f, a = found["tokens_E"] / found["tokens_E"].sum(), found["outlying_E"] / found["tokens_E"]
            assert a.min() > 0.05 and a.max() < 0.3, "a share of entries far above the mean"
            expected[layer] = float((torch.from_numpy(f * a) * r).sum())
    told = ", ".join(f"{layer} {value:.1f}" for layer, value in sorted(expected.items()))
    assert f"layer sensitivity: {told}" in result.out
    table = list(csv.DictReader((tmp_path / "out" / "tables" / "compression.csv").open()))
    dense = {row["layer"] for row in table if float(row["kept_ratio"]) == 1}
    assert dense == {str(max(expected, key=lambda layer: expected[layer]))}
    kept = sum(float(row["kept_ratio"]) for row in table) / len(table)
    assert 0.68 < kept <= 0.7
    assert all(float(row["weight_error"]) == 0 for row in table if row["layer"] in dense)


def of_every_kind(inputs: int, experts: int) -> StackStatistics:
    x = torch.randn(60, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    C_II, count_E = x.T @ x / 60, torch.arange(1.0, experts + 1)
    return StackStatistics(C_II, lambda e: C_II, None, count_E, count_E)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_factors_that_overflow_are_not_written(value: float, tmp_path: Path) -> None:
    core = torch.ones(3, 5, 7, dtype=torch.bfloat16)
    core[1, 4, 2] = value
    stack = open_planted(tmp_path / "dense", torch.ones(3, 5, 7))
    with pytest.raises(WeightError, match=r"gate\.core: overflows torch.bfloat16"):
        write_stack(tmp_path / "to", stack, TuckerWeights(core))
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(("name", "layout"), [(n, x) for n, x in CHECKPOINTS if n != "llama4"])
def test_every_method_works_on_every_family(name: str, layout: str, tmp_path: Path) -> None:
    """Against the family's own module with the rebuilt weights. Methods take turns, a projection each."""
    family = FAMILIES[name]
    folder = save(build(family), tmp_path / "dense", fused=layout == "fused")
    if family.originally_fused and family.input_major == layout:
        transpose_experts(folder)
    turn = CHECKPOINTS.index((name, layout))
    specs = itertools.cycle(ALL[turn % len(ALL) :] + ALL[: turn % len(ALL)])
    to, stacks, rebuilt = tmp_path / "to", {}, {}
    to.mkdir()
    with Checkpoint(folder) as checkpoint:
        arch = architecture(checkpoint.config)
        for layer in family.moe_layers:
            stacks[layer] = list(PROJECTIONS)
            for projection in PROJECTIONS:
                stack = open_stack(checkpoint, arch, layer, projection)
                method, options = methods.parse(next(specs))
                reader, statistics = BlockReader(stack, 10**9), of_every_kind(stack.shape[2], stack.shape[0])
                made = compress_stack(reader, method, options, Allotment(0.2), statistics, device="cpu")
                write_stack(to, stack, made.factored)
                rebuilt[layer, projection] = made.factored.to(torch.float32).members(0, stack.shape[0]).float()
        assemble.factored(to, checkpoint, arch, stacks)
    import tdmoe.hub  # noqa: F401

    small, dense = load(family, to).eval(), load(family, folder).eval()
    for (layer, projection), W_EOI in rebuilt.items():
        fill_any(experts_of(dense)[layer], projection, W_EOI)
    ids = torch.randint(3, 60, (1, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = (m(input_ids=ids, use_cache=False).logits for m in (dense, small))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "rtn", "--ratio", "0.4"), "--ratio 0.4: rtn stores what its options say; give no --ratio"),
        (("--method", "svd:rank=9", "--ratio", "0.4"), "--ratio 0.4: svd:rank=9 stores what its options say; give"),
        (("--method", "svd:rank=90"), "rank 90 stores 32 x 90 x .* 1.59 times .*; give a rank of at most 56"),
        (("--method", "mobe:bases=8,rank=150"), "bases=8,rank=150 stores .* 1.25 times .*; give a rank of at most"),
        (("--method", "mobe", "--frontier"), "--frontier: mobe has no frontier of ranks; give method tdmoe"),
        (
            ("--method", "mobe", "--across", "global"),
            "--across global: mobe has no such option; it has ratio_of",
        ),
        (("--method", "mobe:phi=relu"), "phi is 'relu'; give one of auto, tanh, silu, identity"),
        (("--method", "rtn:bits=x"), "bits is 'x'; a whole number is needed"),
        (("--method", "mobe", "--tokens", "0"), "mobe: needs statistics of the inputs; give --tokens or --statistics"),
        (("--method", "svd_llm:moments=expert", "--per-expert", "down"), "svd_llm:moments=expert needs gate's"),
        (("--method", "identity:bits=4"), "has no option 'bits'; it has none"),
        (
            ("--method", "svd:rank=9,ratio_of=model"),
            "--ratio-of model: svd:rank=9,.* stores what .*; give no",
        ),
        (
            ("--method", "moe_svd:dense_layers=1", "--layers", "1"),
            "dense_layers=1 of 1 at ratio 0.4; leave none .*lower",
        ),
        (
            ("--method", "moe_svd:dense_layers=2", "--ratio", "0.4999"),
            "leaves the others less: ratio 0.9998: ",
        ),
        (("--method", "moe_svd:dense_layers=3"), "dense_layers=3 of 4 at ratio 0.4; give 2 or less"),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    compress: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    refuses(compress("--to", tmp_path / "to", "--out", tmp_path / "out", *arguments), message, tmp_path / "out")
    assert not (tmp_path / "to").exists()
