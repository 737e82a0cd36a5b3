"""`tdmoe-diag compress`: from the built-in model to a checkpoint that transformers loads and runs in factor form."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import Result, refuses
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from tiny import plain_checkpoint, read_json, read_tensors, single_thread, write_checkpoint, write_json
from torch import Tensor
from transformers import AutoTokenizer
from zoo import FAMILIES, build, experts_of, load, save

import diag.compressing
import diag.sensitivity
import tdmoe.writer
from diag.calibrating import from_arrays
from diag.texts import load_text
from tdmoe.architecture import architecture
from tdmoe.calibration import experts_modules
from tdmoe.checkpoint import Checkpoint
from tdmoe.families import PROJECTIONS
from tdmoe.locate import open_stack

MINI = Path(__file__).parents[1] / "diag" / "assets" / "mini"
QUICK = ("--tokens", "2048", "--layers", "1-2", "--ratio", "0.4", "--quiet")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture
def compress(tool: Callable[..., Result]) -> Callable[..., Result]:
    return lambda *arguments: tool("compress", "--model", "mini", *arguments)


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "tables" / "compression.csv").open()))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def load_mini(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    import tdmoe.hub  # noqa: F401

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_the_checkpoint_is_smaller_loads_and_computes_what_its_factors_say(
    compress: Callable[..., Result], tmp_path: Path
) -> None:
    to, out = tmp_path / "small", tmp_path / "run"
    result = compress("--to", to, "--out", out, *QUICK)
    assert result.code == 0, result
    table = rows(out)
    assert [(row["layer"], row["projection"]) for row in table] == [(x, p) for x in ("1", "2") for p in PROJECTIONS]
    original, stored = read_tensors(MINI), read_tensors(to)
    model = load_mini(to)
    assert type(model.model.layers[1].mlp.experts).__name__ == "FactoredExperts"
    assert type(model.model.layers[0].mlp.experts).__name__ == "Qwen3MoeExperts"
    dense = load_mini(MINI)
    with Checkpoint(MINI) as checkpoint:
        arch = architecture(checkpoint.config)
        for row in table:
            layer, projection = int(row["layer"]), row["projection"]
            prefix = f"model.layers.{layer}.mlp.experts.{projection}."
            factors = {name.removeprefix(prefix): t for name, t in stored.items() if name.startswith(prefix)}
            assert sum(t.numel() for t in factors.values()) == int(row["parameters"])
            assert int(row["stored_bits"]) == 16 * int(row["parameters"]) <= 0.6 * 16 * 32 * 80 * 192
            W = rebuilt(factors)
            W_EOI = open_stack(checkpoint, arch, layer, projection).weights(0, 32).float()
            assert float((W - W_EOI).norm() / W_EOI.norm()) == pytest.approx(float(row["weight_error"]), rel=1e-4)
            assert 0 < float(row["functional_error"]) < 1 and row["status"] == "ok"
            fill(experts_modules(dense)[layer], projection, W)
    ids = torch.randint(10, 4000, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = dense(ids).logits, model(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    untouched = [name for name in original if "experts" not in name or "layers.0." in name or "layers.3." in name]
    assert all(torch.equal(original[name], stored[name]) for name in untouched)
    saved = sum(t.nbytes for t in original.values()) - sum(t.nbytes for t in stored.values())
    assert saved == sum(32 * 80 * 192 * 2 - int(row["stored_bits"]) // 8 for row in table)
    about = read_json(to / "tdmoe.json")
    counted = 8 * sum(t.nbytes for name, t in original.items() if "embed_tokens" not in name)
    assert about["bits_saved"] == pytest.approx(8 * saved / counted)
    assert f"{8 * saved / counted:.1%} of the model's bits saved" in result.out
    assert about["state"] == "complete" and about["stacks"][0]["ranks"] == table[0]["ranks"]
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= {p.name for p in to.iterdir()}


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


def test_whitening_and_exact_ranks_do_what_they_are_for(compress: Callable[..., Result], tmp_path: Path) -> None:
    """On the trained model: the correct metric below none below its inverse, exact ranks below published ones."""
    functional = {}
    for name, spec in {
        "published": "tdmoe:whitening=none,allocation=published,decomposition=hosvd",
        "inverse": "tdmoe:whitening_direction=inverse,allocation=published,decomposition=hosvd",
        "correct": "tdmoe:allocation=published,decomposition=hosvd",
        "exact": "tdmoe:decomposition=hosvd",
        "hooi": "tdmoe",
        "st": "tdmoe:decomposition=st_hosvd",
        "compress": "tdmoe:expert_mode=compress",
    }.items():
        out = tmp_path / name
        result = compress(
            "--method", spec, "--to", tmp_path / f"{name}-to", "--out", out, *QUICK, "--projections", "gate"
        )
        assert result.code == 0, result
        functional[name] = [float(row["functional_error"]) for row in rows(out)]
        if name == "compress":
            assert all(int(row["ranks"].split("x")[0]) < 32 for row in rows(out))
    for a, b in (("correct", "published"), ("published", "inverse"), ("exact", "correct"), ("exact", "compress")):
        assert all(x < y for x, y in zip(functional[a], functional[b], strict=True)), (a, b)
    assert all(x <= y * (1 + 1e-3) for x, y in zip(functional["hooi"], functional["exact"], strict=True))
    assert all(x <= y * (1 + 1e-3) for x, y in zip(functional["hooi"], functional["st"], strict=True))


def test_a_global_budget_is_met_and_better_spent(
    compress: Callable[..., Result], statistics: Path, tmp_path: Path
) -> None:
    """Within 0.1 % of the total, below the uniform sum of squared errors; ratio_of=model counts the whole model."""
    options = ("--statistics", statistics, "--method", "tdmoe:alignment=1,decomposition=hosvd", "--quiet")
    found = {}
    for across in ("uniform", "global", "activation"):
        command = ("--across", across, "--ratio", "0.2", "--ratio-of", "model", "--out", tmp_path / across)
        assert compress(*options, *command, "--to", tmp_path / f"{across}-to").code == 0
        found[across] = rows(tmp_path / across)
        saved = read_json(tmp_path / f"{across}-to" / "tdmoe.json")["bits_saved"]
        if across == "global":
            assert 0.2 <= saved <= 0.2 + 0.001 * 0.8, "of the whole model, all of it bf16"
        assert 0.2 <= saved < 0.21
    squared = {across: sum(float(row["functional_error"]) ** 2 for row in table) for across, table in found.items()}
    assert squared["global"] < 0.8 * min(squared["uniform"], squared["activation"])
    kept = {row["kept_ratio"] for row in found["activation"] if row["projection"] == "gate"}
    assert len(kept) >= 3, "layers have shares of their own"
    frontier = next(Path("runs").glob("mini-frontier-*")) / "tables" / "frontier.csv"
    points = list(csv.DictReader(frontier.open()))
    for row in found["global"]:
        mine = [p for p in points if (p["layer"], p["projection"]) == (row["layer"], row["projection"])]
        (point,) = [p for p in mine if "x".join(p[f"rank_{m}"] for m in ("expert", "output", "input")) == row["ranks"]]
        assert point["parameters"] == row["parameters"]
        assert float(point["error"]) == pytest.approx(float(row["functional_error"]), abs=0.01)  # damped, not rounded
        errors = [float(p["error"]) for p in mine]
        assert errors == sorted(errors, reverse=True) and errors[-1] == 0.0


def test_the_loss_that_a_stack_costs_is_measured(
    compress: Callable[..., Result], statistics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a model filled here with the same decomposition, scored by transformers' own loss."""
    monkeypatch.setattr(diag.sensitivity, "TOKENS", 2048)
    options = ("--statistics", statistics, "--layers", "0,2", "--quiet", "--ratio", "0.5", "--gate-up", "joint")
    weighed = ("--across", "global", "--method", "tdmoe:weigh=sensitivity")
    assert compress(*options, *weighed, "--to", tmp_path / "g", "--out", tmp_path / "o").code == 0
    table = next(Path("runs").glob("mini-sensitivity-*")) / "tables" / "sensitivity.csv"
    found = {(row["layer"], row["projection"]): row for row in csv.DictReader(table.open())}
    assert sorted(found) == [("0", "down"), ("0", "gate_up"), ("2", "down"), ("2", "gate_up")]
    alone = (*options[:2], "--layers", "2", "--quiet", "--ratio", "0.5", "--projections", "down")
    assert compress(*alone, "--to", tmp_path / "a", "--out", tmp_path / "a-o").code == 0
    row = found["2", "down"]
    assert rows(tmp_path / "a-o")[0]["ranks"] == row["ranks"]
    model, small = load_mini(MINI), load_mini(tmp_path / "a")
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    ids = torch.tensor(tokenizer(load_text("c4-calibration")[:40000], add_special_tokens=False)["input_ids"])
    windows = ids[:2048].view(4, 512)
    with torch.no_grad():
        losses = [sum(float(m(input_ids=w[None], labels=w[None]).loss) for w in windows) / 4 for m in (model, small)]
    assert float(row["loss"]) == pytest.approx(losses[1], abs=0.01)  # theirs in bf16, ours here in float32
    change = losses[1] - losses[0]
    assert float(row["loss_change"]) == pytest.approx(change, abs=0.01) and change > 0.02
    assert float(row["sensitivity"]) == pytest.approx(float(row["loss_change"]) / float(row["squared_error"]))
    sums = {key: float(r["sensitivity"]) for key, r in found.items()}
    kept = {(r["layer"], r["projection"]): float(r["kept_ratio"]) for r in rows(tmp_path / "o")}
    assert sums["0", "gate_up"] > 2 * sums["2", "gate_up"] and kept["0", "gate_up"] > kept["2", "gate_up"]


def test_gate_and_up_share_their_input_factor(
    compress: Callable[..., Result], statistics: Path, tmp_path: Path
) -> None:
    options = ("--statistics", statistics, "--layers", "1", "--quiet", "--ratio", "0.4")
    errors = {}
    for name, extra in {
        "apart": ("--projections", "gate,up"),
        "joint": ("--gate-up", "joint", "--projections", "gate,up"),
        "refit": ("--gate-up", "joint", "--refit", "expert", "--dense"),
    }.items():
        result = compress(*options, *extra, "--to", tmp_path / name, "--out", tmp_path / f"{name}-o")
        assert result.code == 0, result
        errors[name] = rows(tmp_path / f"{name}-o")
    assert [row["projection"] for row in errors["refit"]] == ["gate_up", "down"]
    (joint,), (refit, _) = errors["joint"], errors["refit"]
    assert int(joint["parameters"]) <= sum(int(row["parameters"]) for row in errors["apart"])
    assert joint["ranks"] == refit["ranks"] and joint["parameters"] == refit["parameters"]
    assert float(refit["functional_error_expert"]) < 0.9 * float(joint["functional_error_expert"])
    stored = read_tensors(tmp_path / "refit")
    names = [name for name in stored if "layers.1.mlp.experts" in name]
    short = {name.removeprefix("model.layers.1.mlp.experts.") for name in names}
    assert {"gate_up.core", "gate_up.input", "down.core"} <= short and not any(n.startswith("gate.") for n in short)
    assert sum(stored[name].numel() for name in names) == sum(int(row["parameters"]) for row in errors["refit"])
    small, dense = load_mini(tmp_path / "refit"), load_mini(tmp_path / "refit" / "dense")
    ids = torch.randint(10, 4000, (1, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = dense(ids).logits, small(ids).logits
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.01 * float(expected.abs().max()))


@pytest.mark.parametrize("projection", ["gate", "down"])
def test_each_metric_is_best_at_its_own_error(
    compress: Callable[..., Result], statistics: Path, tmp_path: Path, projection: str
) -> None:
    """Full Tucker on the trained model; the error in both metrics is measured here from what is stored."""
    with Checkpoint(MINI) as checkpoint:
        W_EOI = open_stack(checkpoint, architecture(checkpoint.config), 2, projection).weights(0, 32).double()
    sums = from_arrays(dict(load_arrays(statistics / "results" / "calibrate-L002-experts.safetensors")))
    C_II, D_OO = sums.moment(projection), sums.output_moment(projection)
    assert D_OO is not None
    errors = {}
    for whitening in ("none", "input", "output", "both"):
        to = tmp_path / whitening
        options = ("--statistics", statistics, "--layers", "2", "--projections", projection, "--quiet")
        spec = ("--method", "tdmoe:decomposition=hosvd,objective=weight" if whitening == "none" else "tdmoe")
        assert compress(*options, *spec, "--whitening", whitening, "--to", to, "--out", tmp_path / "o").code == 0
        prefix = f"model.layers.2.mlp.experts.{projection}."
        factors = load_file(to / f"experts-L002-{projection}.safetensors")
        E_EOI = rebuilt({name.removeprefix(prefix): t for name, t in factors.items()}).double() - W_EOI
        one = torch.eye(W_EOI.shape[1], dtype=torch.float64)
        errors[whitening] = [
            float(torch.einsum("eoi,ij,epj,op->", E_EOI, C, E_EOI, D))
            for C, D in ((torch.eye(len(C_II)), one), (C_II, one), (torch.eye(len(C_II)), D_OO), (C_II, D_OO))
            for C, D in [(C.double(), D)]
        ]
    for own, whitening in enumerate(errors):
        assert all(errors[whitening][own] <= other[own] * (1 + 1e-3) for other in errors.values()), whitening


def test_killed_and_started_again_it_ends_with_the_same_bytes(
    compress: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compress("--to", tmp_path / "whole", "--out", tmp_path / "a", *QUICK)
    assert whole.code == 0
    original, calls = diag.compressing.write_stack, []

    def stop(*arguments: Any) -> str:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(diag.compressing, "write_stack", stop)
    to, out = tmp_path / "to", tmp_path / "b"
    assert compress("--to", to, "--out", out, *QUICK).code == 130
    assert read_json(to / "tdmoe.json")["state"] == "unfinished" and not (to / "config.json").exists()
    (to / "experts-L001-gate.safetensors").unlink()  # done, but lost since
    again = compress("--to", to, "--out", out, *QUICK)
    assert again.code == 0 and len(calls) == 3 + 5, "one shard of six was still there"
    ours, theirs = files(to), files(tmp_path / "whole")
    for name in theirs.keys() - {"tdmoe.json"}:
        assert ours[name] == theirs[name], name
    assert ours.keys() == theirs.keys()


def test_without_calibration_the_functional_errors_are_empty(compress: Callable[..., Result], tmp_path: Path) -> None:
    options = ("--schedule", "middle-out:1", "--projections", "up", "--tokens", "0", "--whitening", "none")
    assert compress("--to", tmp_path / "to", "--out", tmp_path / "o", *options).code == 0
    (row,) = rows(tmp_path / "o")
    assert row["functional_error"] == "" and row["status"] == "not_calibrated" and float(row["weight_error"]) > 0
    stored = load_file(tmp_path / "to" / "experts-L002-gate.safetensors")
    assert list(stored) == ["model.layers.2.mlp.experts.gate.weight"], "the other projections stay dense"
    assert load_mini(tmp_path / "to") is not None


def test_statistics_of_an_earlier_calibration_are_used(
    compress: Callable[..., Result], tool: Callable[..., Result], tmp_path: Path
) -> None:
    where = tmp_path / "statistics"
    calibrated = tool("calibrate", "--model", "mini", "--tokens", "2048", "--per-expert", "down", "--out", where)
    assert calibrated.code == 0
    options = ("--statistics", where, "--layers", "1", "--projections", "down,gate")
    assert compress("--to", tmp_path / "to", "--out", tmp_path / "o", *options).code == 0
    found = {row["projection"]: row for row in rows(tmp_path / "o")}
    assert float(found["down"]["functional_error_expert"]) > 0 and found["gate"]["functional_error_expert"] == ""


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "granitemoe", "deepseek_v3", "lfm2_moe", "olmoe"])
def test_other_families_end_in_the_format_that_loads(name: str, tool: Callable[..., Result], tmp_path: Path) -> None:
    family = FAMILIES[name]
    model = save(build(family), tmp_path / "dense", fused=family.layouts[0] == "fused", shard_size=20_000)
    options = ("--tokens", "0", "--method", "tdmoe:whitening=none", "--layers", str(family.moe_layers[0]))
    result = tool("compress", "--model", model, "--to", tmp_path / "to", "--ratio", "0.3", "--dense", *options)
    assert result.code == 0, result
    small, dense = load(family, tmp_path / "to").eval(), load(family, model).eval()
    layer = family.moe_layers[0]
    for projection in PROJECTIONS:
        fill_any(experts_of(dense)[layer], projection, linear_weights(experts_of(small)[layer], projection))
    ids = torch.randint(3, 60, (1, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = (m(ids, use_cache=False).logits for m in (dense, small))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    exported = load(family, tmp_path / "to" / "dense").eval()  # as any other program would, with rounded weights
    with torch.no_grad():
        found = exported(ids, use_cache=False).logits
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))
    original, rebuilt_ = read_tensors(model), read_tensors(tmp_path / "to" / "dense")
    assert {n: (t.shape, t.dtype) for n, t in original.items()} == {n: (t.shape, t.dtype) for n, t in rebuilt_.items()}
    changed = {name for name, tensor in original.items() if not torch.equal(tensor, rebuilt_[name])}
    assert changed and all(f"layers.{layer}." in name and "bias" not in name for name in changed)


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


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ratio", "1.5"), r"ratio is 1.5; .* must lie between 0 and 1"),
        (("--ratio", "0.999"), r"--ratio 0.999: leaves .* parameters of a 32 x 80 x 192 stack, .*; lower the ratio"),
        (("--method", "nope"), "--method nope: is no method; give one of tdmoe, mobe, moe_svd"),
        (("--method", "tdmoe:rank=3"), "--method tdmoe:rank=3: has no option 'rank'; it has ratio_of, whitening,"),
        (("--method", "tdmoe:whitening=maybe"), "whitening is 'maybe'; give one of none, input, output, both"),
        (("--method", "tdmoe:damping=x"), "damping is 'x', a number is needed"),
        (("--method", "tdmoe:damping=-1"), "damping is -1.0; a number of at least 0 is needed"),
        (("--method", "tdmoe:damping=nan"), "damping is nan; a number of at least 0 is needed"),
        (("--method", "tdmoe:whitening=none,damping=0.1"), "damping is that of the correct metric only; give"),
        (("--method", "tdmoe:whitening=none,whitening_direction=inverse"), "says nothing where whitening=none; give"),
        (("--method", "tdmoe:whitening"), "'whitening' is no option; write NAME:key=value"),
        (("--method", "tdmoe:alignment=0"), "alignment is 0; a step of ranks of at least 1 is needed"),
        (("--whitening", "maybe"), "whitening is 'maybe'; give one of none"),
        (
            ("--whitening", "none", "--method", "tdmoe:whitening=both"),
            "--whitening none: --method says whitening=both",
        ),
        (("--allocation", "published", "--objective", "operator"), "objective says nothing where ranks are published"),
        (("--allocation", "published", "--across", "global"), "across=global chooses ranks by their error, .*; give"),
        (("--method", "tdmoe:weigh=sensitivity"), "weigh says nothing unless across=global; give"),
        (
            ("--refit", "expert", "--per-expert", "down"),
            "--per-expert down: tdmoe needs gate's",
        ),
        (("--statistics", "s", "--text", "enwik8"), "--statistics s: were collected already; leave out --text,"),
        (("--gate-up", "joint", "--projections", "gate,down"), "--gate-up joint: needs gate and up; add up to"),
        (
            ("--ratio", "0.97", "--ratio-of", "model"),
            "--ratio 0.97 --ratio-of model: the chosen experts are .*; give less",
        ),
        (
            ("--tokens", "0", "--method", "tdmoe:whitening=none", "--across", "activation"),
            "needs statistics of the inputs; give",
        ),
        (("--tokens", "0"), "--method tdmoe: needs statistics of the inputs; give --tokens or --statistics"),
        (("--statistics", "nowhere"), "--statistics nowhere: is no run folder of tdmoe-diag calibrate; give"),
        (("--text", "nowhere"), "--text nowhere: no text 'nowhere'"),
        (("--schedule", "middle-out:1", "--layers", "1"), "chooses the layers; give it or --layers, not both"),
        (("--schedule", "middle-out:3"), "3 layers; middle-out takes 1 to 2 of 4"),
        (("--projections", "left"), "'left' is none of gate, up, down"),
    ],
)
def test_wrong_options_are_refused_before_any_work(
    compress: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    refuses(compress("--to", tmp_path / "to", *arguments, "--out", tmp_path / "out"), message, tmp_path / "out")
    assert not (tmp_path / "to").exists()


def test_a_folder_that_is_not_ours_is_left_alone(compress: Callable[..., Result], tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "precious.txt").write_text("mine")
    options = ("--tokens", "0", "--method", "tdmoe:whitening=none", "--layers", "0", "--projections", "up")
    message = "--to .*: is not empty and holds no compressed checkpoint; give a new folder"
    refuses(compress("--to", to, *options, "--out", tmp_path / "out"), message, tmp_path / "out")
    (to / "precious.txt").unlink()
    assert compress("--to", to, *options, "--out", tmp_path / "a").code == 0
    other = compress("--to", to, *options, "--ratio", "0.3", "--out", tmp_path / "out")
    refuses(other, "--to .*: holds a checkpoint made from other weights or with other settings; give", tmp_path / "out")
    (to / "notes.txt").write_text("mine")
    assert compress("--to", to, *options, "--ratio", "0.3", "--fresh", "--out", tmp_path / "b").code == 0
    assert (to / "notes.txt").read_text() == "mine" and float(rows(tmp_path / "b")[0]["kept_ratio"]) > 0.6


def test_statistics_of_another_model_are_refused(
    compress: Callable[..., Result], tool: Callable[..., Result], tmp_path: Path
) -> None:
    where = tmp_path / "statistics"
    assert tool("calibrate", "--model", "mini", "--tokens", "512", "--layers", "0", "--out", where).code == 0
    command = ("--to", tmp_path / "to", "--statistics", where, "--out", tmp_path / "out")
    refuses(compress(*command), "--statistics .*: has nothing of layer 1; calibrate that layer too", tmp_path / "out")
    path = where / "results" / "calibrate-L000-experts.json"
    found = read_json(path)
    write_json(path, found | {"weights": "0"})
    message = r"--statistics .*: were collected on other weights \(mini\), or on another copy of them; calibrate this"
    refuses(compress(*command, "--layers", "0"), message, tmp_path / "out")
    write_json(path, found | {"probe_version": 1})
    message = "--statistics .*: were collected by another version of this tool; calibrate again"
    refuses(compress(*command, "--layers", "0"), message, tmp_path / "out")
    write_json(path, found)
    outputs = compress(*command, "--layers", "0", "--whitening", "both")
    refuses(outputs, "--statistics .*: hold no gradients at outputs; calibrate with --outputs", tmp_path / "out")
    own = compress(*command, "--layers", "0", "--refit", "expert")
    refuses(
        own,
        "--statistics .*: hold no inputs of each expert alone for gate; calibrate with --per-expert all",
        tmp_path / "out",
    )
    manifest = read_json(where / "run.json")
    write_json(where / "run.json", manifest | {"jobs": [{"key": "calibrate-L000-experts", "state": "pending"}]})
    refuses(compress(*command, "--layers", "0"), "is not finished; run its calibrate command again", tmp_path / "out")
    write_json(where / "run.json", manifest | {"command": "spectra"})
    refuses(compress(*command), "holds a run of 'spectra'; give one of 'calibrate'", tmp_path / "out")


def test_other_statistics_are_another_compression(
    compress: Callable[..., Result], tool: Callable[..., Result], tmp_path: Path
) -> None:
    """In the same folder, under the same name."""
    where, small = tmp_path / "s", ("--layers", "0", "--projections", "gate", "--out", tmp_path / "o")
    calibrate = ("calibrate", "--model", "mini", "--layers", "0", "--window", "128", "--out", where)
    assert tool(*calibrate, "--tokens", "2048").code == 0
    assert compress("--to", tmp_path / "to", "--statistics", where, *small).code == 0
    before = rows(tmp_path / "o")[0]
    assert tool(*calibrate, "--tokens", "512", "--text", "wikitext2").code == 0
    changed = compress("--to", tmp_path / "to", "--statistics", where, *small)
    assert changed.code == 2 and "made from other weights or with other settings" in changed.err
    again = compress("--to", tmp_path / "to", "--statistics", where, "--fresh", *small)
    assert again.code == 0 and rows(tmp_path / "o")[0]["functional_error"] != before["functional_error"]


def test_a_dead_expert_is_compressed_like_any_other(tool: Callable[..., Result], tmp_path: Path) -> None:
    config, tensors = plain_checkpoint(experts=6, hidden=24, width=16, moe_layers=(0,))
    tensors = {name: t * 0 if ".experts.3." in name else t for name, t in tensors.items()}
    model = write_checkpoint(tmp_path / "m", config, tensors)
    options = ("--tokens", "0", "--method", "tdmoe:whitening=none", "--ratio", "0.3")
    result = tool("compress", "--model", model, "--to", tmp_path / "to", *options, "--out", tmp_path / "o")
    assert result.code == 0, result
    assert all(0 < float(row["operator_error_max"]) < 1 for row in rows(tmp_path / "o"))


def test_a_damaged_shard_is_made_again_and_a_complete_run_is_left_alone(
    compress: Callable[..., Result], tmp_path: Path
) -> None:
    to, options = tmp_path / "to", ("--tokens", "0", "--method", "tdmoe:whitening=none", "--layers", "0")
    command = ("--to", to, "--out", tmp_path / "o", *options)
    assert compress(*command).code == 0
    before, times = files(to), {path.name: path.stat().st_mtime_ns for path in to.iterdir()}
    assert compress(*command).code == 0
    assert {path.name: path.stat().st_mtime_ns for path in to.iterdir()} == times, "nothing was written again"
    shard = to / "experts-L000-up.safetensors"
    shard.write_bytes(shard.read_bytes()[:100])
    assert compress(*command).code == 0
    after = files(to)
    assert {n: b for n, b in after.items() if n != "tdmoe.json"} == {
        n: b for n, b in before.items() if n != "tdmoe.json"
    }
    assert compress(*command, "--dense").code == 0 and (to / "dense" / "model-00001.safetensors").is_file()


def test_the_model_itself_and_foreign_folders_are_never_written_to(
    tool: Callable[..., Result], compress: Callable[..., Result], tmp_path: Path
) -> None:
    options = ("--tokens", "0", "--method", "tdmoe:whitening=none", "--fresh", "--out", tmp_path / "out")
    model = write_checkpoint(tmp_path / "m", *plain_checkpoint(experts=6, hidden=24, width=16, moe_layers=(0,)))
    before = files(model)
    refuses(tool("compress", "--model", model, "--to", model, *options), "is the model itself", tmp_path / "out")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    refuses(compress("--to", foreign, *options), "holds no compressed checkpoint; give a new", tmp_path / "out")
    assert files(model) == before and files(foreign) == {"config.json": b"{}"}
    message = "--to .*: .*config.json is a file; give a folder"
    refuses(compress("--to", foreign / "config.json" / "z", *options), message, tmp_path / "out")


def test_what_has_no_factor_form_or_is_compressed_already_is_refused(
    tool: Callable[..., Result], compress: Callable[..., Result], tmp_path: Path
) -> None:
    options = ("--tokens", "0", "--method", "tdmoe:whitening=none", "--out", tmp_path / "out")
    model = save(build(FAMILIES["llama4"]), tmp_path / "llama", fused=True)
    message = "Llama-4: its experts run in a way of their own that has no factor form; not supported"
    refuses(tool("compress", "--model", model, "--to", tmp_path / "to", *options), message, tmp_path / "out")
    done = ("--tokens", "0", "--method", "tdmoe:whitening=none", "--out", tmp_path / "o", "--layers", "0")
    assert compress("--to", tmp_path / "small", *done).code == 0
    message = "small: is compressed already and holds factors; give the original"
    refuses(
        tool("compress", "--model", tmp_path / "small", "--to", tmp_path / "to", *options), message, tmp_path / "out"
    )


def test_a_quantisation_that_is_not_read_is_refused(tool: Callable[..., Result], tmp_path: Path) -> None:
    config, tensors = plain_checkpoint(experts=6, hidden=24, width=16, moe_layers=(0,))
    model = write_checkpoint(tmp_path / "m", config | {"quantization_config": {"quant_method": "awq"}}, tensors)
    options = ("--tokens", "0", "--whitening", "none", "--out", tmp_path / "out", "--to", tmp_path / "to")
    message = "quantization_config.quant_method is 'awq'; compressing reads fp8 .*, use a bf16 version"
    refuses(tool("compress", "--model", model, *options), message, tmp_path / "out")


def test_a_fresh_process_generates_from_it(compress: Callable[..., Result], tmp_path: Path) -> None:
    assert compress("--to", tmp_path / "to", "--out", tmp_path / "o", *QUICK).code == 0
    code = (
        "import sys, tdmoe.hub; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        "t = T.from_pretrained(sys.argv[1]); m = M.from_pretrained(sys.argv[1]); "
        "print(len(m.generate(**t('The city of', return_tensors='pt'), max_new_tokens=5)[0]))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "to"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and int(done.stdout) > 5, done.stderr
    assert json.loads((tmp_path / "to" / "config.json").read_text())["quantization_config"]["quant_method"] == "tdmoe"


def test_a_shard_is_split_by_size(
    compress: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tdmoe.writer, "SHARD_BYTES", 1_000_000)
    options = ("--tokens", "0", "--method", "tdmoe:whitening=none", "--layers", "0", "--projections", "up")
    assert compress("--to", tmp_path / "to", "--out", tmp_path / "o", *options).code == 0
    assert len(list((tmp_path / "to").glob("rest-*.safetensors"))) > 3
    assert load_mini(tmp_path / "to") is not None
