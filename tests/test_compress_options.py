"""`tdmoe-diag compress`: what each option does on the built-in model, and which are refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compressed import MINI, QUICK, load_mini, rebuilt, rows
from damage import Result, refuses, signed
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file
from tiny import read_json, read_tensors, write_json
from transformers import AutoTokenizer

import diag.compression.compressing
import diag.compression.sensitivity
from diag.compression.calibrating import from_arrays
from diag.inputs.texts import load_text
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.locate import open_stack

pytestmark = pytest.mark.usefixtures("one_thread")


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
    monkeypatch.setattr(diag.compression.sensitivity, "TOKENS", 2048)
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


def test_without_calibration_the_functional_errors_are_empty(compress: Callable[..., Result], tmp_path: Path) -> None:
    options = ("--schedule", "middle-out:1", "--projections", "up", "--tokens", "0", "--whitening", "none")
    assert compress("--to", tmp_path / "to", "--out", tmp_path / "o", *options).code == 0
    (row,) = rows(tmp_path / "o")
    assert row["functional_error"] == "" and row["status"] == "not_calibrated" and float(row["weight_error"]) > 0
    assert float(row["operator_error"]) <= float(row["operator_error_upper"])
    again = compress("--to", tmp_path / "few", "--out", tmp_path / "p", *options, "--errors", "weight")
    (few,) = rows(tmp_path / "p")
    left_out = {"operator_error": "", "operator_error_max": "", "operator_error_upper": "", "status": "not_measured"}
    changed = {name: value for name, value in few.items() if value != row[name] and name != "seconds"}
    assert again.code == 0 and changed == left_out
    wrong = compress("--to", tmp_path / "none", *options, "--errors", "weight,norm")
    assert wrong.code == 2 and "--errors weight,norm: 'norm' is none of weight, functional, operator" in wrong.err
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


def test_statistics_of_another_model_are_refused(
    compress: Callable[..., Result], tool: Callable[..., Result], tmp_path: Path
) -> None:
    where = tmp_path / "statistics"
    assert tool("calibrate", "--model", "mini", "--tokens", "512", "--layers", "0", "--out", where).code == 0
    command = ("--to", tmp_path / "to", "--statistics", where, "--out", tmp_path / "out")
    refuses(compress(*command), "--statistics .*: has nothing of layer 1; calibrate that layer too", tmp_path / "out")
    path = where / "results" / "calibrate-L000-experts.json"
    found = read_json(path)
    write_json(path, signed(found | {"weights": "0"}))
    message = r"--statistics .*: were collected on other weights \(mini\), or on another copy of them; calibrate this"
    refuses(compress(*command, "--layers", "0"), message, tmp_path / "out")
    write_json(path, signed(found | {"probe_version": 1}))
    message = "--statistics .*: were collected by another version of this tool; calibrate again"
    refuses(compress(*command, "--layers", "0"), message, tmp_path / "out")
    write_json(path, found | {"seconds": found["seconds"] + 1})
    refuses(compress(*command, "--layers", "0"), "--statistics .*SHA-256 does not match.; calibrate", tmp_path / "out")
    write_json(path, found)
    sums = path.with_suffix(".safetensors").read_bytes()
    path.with_suffix(".safetensors").write_bytes(sums[:-1] + bytes([sums[-1] ^ 1]))
    other = compress("--to", tmp_path / "t", "--statistics", where, "--layers", "0", "--out", tmp_path / "o")
    assert other.code == 1 and "the SHA-256 of its arrays does not match); calibrate again" in other.err
    path.with_suffix(".safetensors").write_bytes(sums)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ratio", "1.5"), r"--ratio 1\.5: give a fraction to remove, more than 0 and less than 1"),
        (("--ratio", "0.999"), r"--ratio 0.999: leaves .* parameters of a 32 x 80 x 192 stack, .*; lower the ratio"),
        (("--method", "nope"), "--method nope: is no method; give one of cast, d2_moe, drop"),
        (("--method", "tdmoe:rank=3"), "--method tdmoe:rank=3: has no option 'rank'; it has ratio_of, whitening,"),
        (("--method", "tdmoe:whitening=maybe"), "whitening is 'maybe'; give one of none, input, output, both"),
        (("--method", "tdmoe:damping=x"), "damping is 'x'; a number is needed"),
        (("--method", "tdmoe:damping=-1"), "damping is -1.0; a number of at least 0 is needed"),
        (("--method", "tdmoe:damping=nan"), "damping is nan; a number of at least 0 is needed"),
        (("--method", "tdmoe:whitening=none,damping=0.1"), "damping is that of the correct metric only; give"),
        (("--method", "tdmoe:whitening=none,whitening_direction=inverse"), "says nothing where whitening=none; give"),
        (("--method", "tdmoe:whitening"), "'whitening' is no option; write NAME:key=value"),
        (("--method", "tdmoe:alignment=0"), "alignment is 0; a step of ranks of at least 1 is needed"),
        (("--whitening", "maybe"), "whitening is 'maybe'; give one of none"),
        (
            ("--whitening", "none", "--method", "tdmoe:whitening=both"),
            "--whitening none: the method says whitening=both",
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


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_run(
    compress: Callable[..., Result], tmp_path: Path
) -> None:
    result = compress("--to", "/proc/x", "--text", "wikitext2", "--tokens", "512", "--out", tmp_path / "out")
    refuses(result, "--to /proc/x: cannot be written \\(.*\\); give another folder", tmp_path / "out")
