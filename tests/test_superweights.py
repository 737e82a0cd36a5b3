"""The command `superweights` on models with planted super weights, on a dense model, and on mini as it is."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from damage import Result
from safetensors.torch import save as serialized
from test_page import words
from tiny import read_tensors

from diag.inputs.texts import load_text
from diag.probes.superweights import known as known_models
from diag.probes.superweights.known import published

pytestmark = pytest.mark.usefixtures("one_thread")
Tool = Callable[..., Result]
COLUMN, ROW, EXPERT = 11, 6, 3
TEXT = "the quick brown fox jumps over the lazy dog while seven wizards watch it from the hill. "
SMALL = ("--prompt", "a fox.", "--window", 32, "--tokens", 96, "--eval-windows", 3, "--draws", 2, "--entries", 9)


@pytest.fixture
def texts(tmp_path: Path) -> tuple[object, ...]:
    """Two different texts of characters that the tokenizer knows."""
    (tmp_path / "a.txt").write_text(TEXT * 4)
    (tmp_path / "b.txt").write_text(TEXT[::-1] * 4)
    return "--text", tmp_path / "a.txt", "--eval-text", tmp_path / "b.txt"


@pytest.fixture
def short(tmp_path: Path) -> tuple[object, ...]:
    """The beginnings of two built-in texts: tokenising all of one takes seconds."""
    for name in ("c4-calibration", "wikitext2"):
        (tmp_path / f"{name}.txt").write_text(load_text(name)[:9000])
    return "--text", tmp_path / "c4-calibration.txt", "--eval-text", tmp_path / "wikitext2.txt", "--tokens", 1024


def write_tokenizer(folder: Path) -> None:
    """A token a character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: n for n, word in enumerate(["[PAD]", "[BOS]", "[EOS]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz ."])}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)


def plant(gate_up: tuple[torch.Tensor, ...], W_OI: torch.Tensor, value: float) -> None:
    """A hidden channel that is very large, and one weight that passes it on."""
    W_OI[:, COLUMN] = 1e-4
    W_OI[ROW, COLUMN] = value
    for row_I in gate_up:
        row_I.mul_(300.0)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DeepSeek-V2 with a super weight in its dense layer 0 and one in an expert of layer 2 to which all tokens go."""
    model = zoo.build(zoo.FAMILIES["deepseek_v2"], torch.float32)
    layers = model.model.layers
    with torch.no_grad():
        mlp = layers[0].mlp
        plant((mlp.gate_proj.weight[COLUMN], mlp.up_proj.weight[COLUMN]), mlp.down_proj.weight, 9.0)
        experts = layers[2].mlp.experts
        up = experts.gate_up_proj[EXPERT]
        plant((up[COLUMN], up[zoo.WIDTH + COLUMN]), experts.down_proj[EXPERT], -7.0)
    folder = zoo.save(model, tmp_path_factory.mktemp("planted") / "model", fused=False)
    write_tokenizer(folder)
    return folder


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    """A Llama, all layers dense, with a super weight in layer 1."""
    import transformers

    fields = {**zoo.COMMON, "num_key_value_heads": 1, "intermediate_size": 20, "head_dim": 12}
    fields.pop("num_experts_per_tok")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        mlp = model.model.layers[1].mlp
        plant((mlp.gate_proj.weight[COLUMN], mlp.up_proj.weight[COLUMN]), mlp.down_proj.weight, 9.0)
    model.save_pretrained(tmp_path / "tiny-llama")
    write_tokenizer(tmp_path / "tiny-llama")
    return tmp_path / "tiny-llama"


def tables(out: Path) -> dict[str, list[dict[str, str]]]:
    return {p.stem: list(csv.DictReader(p.read_text().splitlines())) for p in sorted((out / "tables").glob("*.csv"))}


def states(out: Path) -> dict[str, str]:
    return {job["key"]: job["state"] for job in json.loads((out / "run.json").read_text())["jobs"]}


def explicit(W_OI: torch.Tensor, row: int, column: int) -> int:
    """The rank from which on the entry stays recovered, by numpy."""
    U, s, Vt = np.linalg.svd(W_OI.double().numpy(), full_matrices=False)
    estimates = np.cumsum(U[row] * s * Vt[:, column])
    w = float(W_OI[row, column])
    lost = np.flatnonzero(np.abs(estimates - w) > max(1e-6, 0.05 * abs(w)))
    return int(lost[-1]) + 2 if len(lost) else 1


def test_planted_ones_are_found_followed_and_zeroed(
    tool: Tool, planted: Path, texts: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("superweights", "--model", planted, *SMALL, *texts, "--out", out, "--methods", "rtn:bits=3,svd")
    command = (*command, "--ratios", 0.3, "--quiet", "--device", "cpu")
    result = tool(*command)
    assert result.code == 0, result.err
    assert set(states(out).values()) == {"done"}
    found = tables(out)
    rows = found["superweights"]
    assert [(r["layer"], r["projection"], r["expert"], r["row"], r["column"], r["status"]) for r in rows] == [
        ("0", "down", "", str(ROW), str(COLUMN), "found"),
        ("2", "down", str(EXPERT), str(ROW), str(COLUMN), "found"),
    ]
    assert [float(r["value"]) for r in rows] == [9.0, -7.0]
    tensors = read_tensors(planted)
    for row in rows:
        expert = f"experts.{row['expert']}." if row["expert"] else ""
        W_OI = tensors[f"model.layers.{row['layer']}.mlp.{expert}down_proj.weight"]
        ours = [r for r in found["entries"] if (r["layer"], r["expert"]) == (row["layer"], row["expert"])]
        assert {r["role"] for r in ours} == {"superweight"}
        assert sorted({r["group"] for r in ours}) == [
            *("activation_weighted", "random_inlier", "superweight", "top_magnitude"),
        ]
        for entry in ours:
            place = int(entry["row"]), int(entry["column"])
            assert float(entry["value"]) == pytest.approx(float(W_OI[place]))
            assert int(entry["stays_from_rank"]) == explicit(W_OI, *place)
    roles = {(r["layer"], r["expert"] != "", r["role"]) for r in found["recovery"]}
    assert roles == {("0", False, "superweight"), ("2", True, "superweight"), ("1", True, "control")}
    methods = {(r["layer"], r["method"]) for r in found["recovery"] if r["method"] != "svd" or r["ratio"]}
    assert methods == {(layer, method) for layer in "012" for method in ("rtn:bits=3", "svd")}
    zeroed = [r for r in found["ablation"] if r["layer"] == ""]
    assert [(r["group"], r["zeroed"]) for r in zeroed] == [
        *(("dense", "0"), ("superweight", "2"), ("random", "2"), ("random", "2"), ("random_mean", "2")),
    ]
    assert abs(float(zeroed[1]["loss_change"])) > 20 * max(abs(float(r["loss_change"])) for r in zeroed[2:])
    said = words((out / "report.html").read_text())
    assert "Super weights found: 2." in said and "layer 0 down [6, 11] 9 (input" in said

    before = {path: path.stat().st_mtime_ns for path in sorted((out / "results").glob("*.json"))}
    shutil.rmtree(out / "tables")
    (out / "results" / "superweights-recovery-l002-down-e003.json").unlink()
    assert tool(*command).code == 0
    assert tables(out) == found
    again = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert again == ["superweights-recovery-l002-down-e003.json"]


@pytest.mark.parametrize("layers", ["0", "0,2"])
def test_without_a_control_the_first_matrix_alone_is_zeroed(
    tool: Tool, planted: Path, texts: tuple[object, ...], tmp_path: Path, layers: str
) -> None:
    out = tmp_path / "out"
    asked = ("--layers", layers, "--methods", "", "--out", out, "--quiet", "--device", "cpu")
    assert tool("superweights", "--model", planted, *SMALL, *texts, *asked).code == 0
    found = tables(out)
    assert {r["role"] for r in found["entries"]} == {"superweight"}
    groups = [(r["group"], r["layer"]) for r in found["ablation"] if r["layer"] and r["draw"] == ""]
    assert groups == [
        (group, "0") for group in ("top_magnitude", "activation_weighted", "random_inlier", "random_mean")
    ]


def test_a_dense_model_and_the_published_list(
    tool: Tool, dense: Path, texts: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ((1, ROW, COLUMN), (2, 3, 4), (2, 500, 4))  # the last lies outside
    monkeypatch.setitem(known_models.PUBLISHED, "tiny-llama", known)
    out = tmp_path / "out"
    asked = ("--methods", "svd,tdmoe,rtn:bits=4,mobe:whitening=none,bases=4,rank=2", "--ratios", "0.2")
    result = tool("superweights", "--model", dense, *SMALL, *texts, "--out", out, *asked, "--quiet", "--device", "cpu")
    assert result.code == 0, result.err
    found = tables(out)
    assert [(r["layer"], r["row"], r["column"], r["status"], r["published"]) for r in found["superweights"]] == [
        ("1", str(ROW), str(COLUMN), "found", "True"),
        ("2", "3", "4", "published", "True"),
    ]
    assert {(r["layer"], r["role"]) for r in found["entries"]} == {
        *(("1", "superweight"), ("2", "superweight"), ("0", "control")),
    }
    assert {(r["method"], r["status"]) for r in found["recovery"] if r["role"] == "control" and r["group"] == ""} == {
        *(("tdmoe", "not_calibrated"), ("mobe:whitening=none,bases=4,rank=2", "not_applicable")),
    }
    W_OI = read_tensors(dense)["model.layers.1.mlp.down_proj.weight"]
    top = [r for r in found["entries"] if r["layer"] == "1" and r["group"] == "top_magnitude"]
    made = [r for r in found["recovery"] if r["layer"] == "1" and r["group"] == "top_magnitude" and r["ratio"]]
    (row,) = (r for r in made if r["method"] == "svd")
    rank = int(row["rank"])
    U, s, Vt = np.linalg.svd(W_OI.numpy().astype(np.float64), full_matrices=False)
    best = (U[:, :rank] * s[:rank]) @ Vt[:rank]
    errors = [abs(best[int(r["row"]), int(r["column"])] - float(r["value"])) for r in top]
    inside = [error <= 0.05 * abs(float(r["value"])) for error, r in zip(errors, top, strict=True)]
    assert float(row["recovered_fraction"]) == pytest.approx(np.mean(inside))
    assert int(row["stored_bits"]) == 32 * rank * sum(W_OI.shape)


def test_mini_has_none_and_says_so(tool: Tool, short: tuple[object, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = (*short, "--eval-windows", 2, "--draws", 1, "--methods", "rtn:bits=3", "--layers", "1-3")
    result = tool("superweights", "--model", "mini", *small, "--out", out, "--quiet", "--control-layer", 1)
    assert result.code == 0, result.err
    found = tables(out)
    ends = ("input_activation", "output_activation")
    best = max(found["spikes"], key=lambda r: (r["same_token"] == "True", min(abs(float(r[end])) for end in ends)))
    place = f"layer {best['layer']} down expert {best['expert']} [{best['row']}, {best['column']}]"
    assert f"Strongest spike, the smaller magnitude of its input and output: {place} " in " ".join(result.out.split())
    (row,) = found["superweights"]
    assert (row["status"], row["layer"], row["value"]) == ("none_found", "", "")
    assert [r["layer"] for r in found["spikes"]] == ["1", "2", "3"]
    assert {r["status"] for r in found["spikes"]} == {"below"}
    assert {(r["layer"], r["role"]) for r in found["entries"]} >= {("1", "control")}
    missing = [r for r in found["recovery"] if r["group"] == "superweight" and r["method"] == "svd"]
    assert {(r["status"], r["recovered_fraction"], r["entries"]) for r in missing} == {("none_found", "", "0")}
    control = [r for r in found["recovery"] if r["role"] == "control" and r["group"] == "top_magnitude"]
    assert [r["stays_recovered_fraction"] for r in control if r["rank"] == "80"] == ["1.0"]
    (none,) = [r for r in found["ablation"] if r["group"] == "superweight"]
    assert (none["status"], none["loss"]) == ("none_found", "")
    assert "Super weights found: 0." in words((out / "report.html").read_text())
    assert len(list((out / "figures").glob("*.svg"))) == 5


def test_broken_weights_fail_with_a_message(tool: Tool, dense: Path, texts: tuple[object, ...], tmp_path: Path) -> None:
    """Everything that was written says so, and nothing looks like a result."""
    (path,) = dense.glob("*.safetensors")
    tensors = read_tensors(dense)
    tensors["model.layers.1.mlp.down_proj.weight"][3, 4] = float("nan")
    path.write_bytes(serialized(tensors, {"format": "pt"}))
    out = tmp_path / "out"
    result = tool("superweights", "--model", dense, *SMALL, *texts, "--out", out, "--quiet", "--device", "cpu")
    assert result.code == 1
    assert "model.layers.1.mlp.down_proj.weight: holds weights that are NaN or infinite; download" in result.err
    assert [row["status"] for row in tables(out)["superweights"]] == ["failed"]
    assert states(out) == {"superweights-discovery": "failed"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", "9"), "--layers 9: layer 9 is not a decoder layer of this model; it has 0-3"),
        (("--control-layer", "7"), "--control-layer 7: is none of the layers, 0-3; give one"),
        (("--text", "wikitext2"), "--eval-text wikitext2: is the --text"),
        (("--text", "nothing"), "--text nothing: no text"),
        (("--tokens", "12"), "--tokens 12: a window takes 512 tokens"),
        (("--window", "9999"), "--window 9999: this model takes 2 to 512"),
        (("--methods", "tdmo"), "--methods tdmo: is no method"),
        (("--methods", "rtn:bits=1"), "--methods rtn: bits is 1"),
        (("--ratios", "1.5"), "--ratios 1.5: '1.5' is no fraction"),
        (("--methods", "tdmoe", "--ratios", "0.99999"), "leaves"),
        (("--memory", "much"), "--memory much: not a size"),
        (("--threshold", "-3"), "--threshold"),
        (("--threshold", "inf"), "--threshold inf: is no finite number"),
    ],
)
def test_wrong_input(tool: Tool, options: tuple[str, ...], message: str) -> None:
    result = tool("superweights", "--model", "mini", *options)
    assert result.code == 2
    assert message in " ".join(result.err.split())
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--eval-text", "nothing"), "--eval-text nothing: no text"),
        (("--prompt", ""), "--prompt: has no tokens"),
    ],
)
def test_wrong_input_behind_the_texts(
    tool: Tool, short: tuple[object, ...], options: tuple[str, ...], message: str
) -> None:
    result = tool("superweights", "--model", "mini", *short, *options)
    assert result.code == 2
    assert message in " ".join(result.err.split())


def test_a_copy_of_the_text_is_no_held_out_text(tool: Tool, texts: tuple[object, ...], tmp_path: Path) -> None:
    """What is compared is what the texts hold, not their names."""
    (tmp_path / "copy.txt").write_text((tmp_path / "a.txt").read_text())
    result = tool("superweights", "--model", "mini", *texts, "--eval-text", tmp_path / "copy.txt")
    assert result.code == 2
    assert f"--eval-text {tmp_path / 'copy.txt'}: is the --text that entries are chosen by" in result.err


def test_dry_run_does_nothing(tool: Tool, short: tuple[object, ...]) -> None:
    result = tool("superweights", "--model", "mini", "--dry-run", *short, "--eval-windows", 2)
    assert result.code == 0
    assert "nothing was run" in result.out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("model", "first"),
    [
        ("Llama-2-7b-hf", (1, 2533, 7890)),
        ("llama-7b", (2, 3968, 7003)),
        ("Meta-Llama-3-8B", (1, 788, 2427)),
        ("Mistral-7B-v0.1", (1, 2070, 7310)),
        ("OLMo-7B-0724-hf", (1, 269, 7467)),
        ("Phi-3-mini-4k-instruct", (2, 525, 808)),
        ("Llama-2-13b-hf", None),
        ("OLMoE-1B-7B-0924", None),
        ("OLMo-2-1124-7B", None),
        ("mini", None),
    ],
)
def test_published_by_name(model: str, first: Any) -> None:
    assert next(iter(published(model)), None) == first
