"""The command `quality` against checkpoints that transformers loads and plain loops over their forward pass."""

from __future__ import annotations

import copy
import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import Result
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file
from tiny import single_thread

import tdmoe.hub  # noqa: F401
from diag.cli import app as cli
from diag.declare import parse
from diag.inputs.texts import load_text
from diag.models.model import resolve
from diag.probes.quality.measure import COLUMNS, DataSet, Saved, Subject, macro_row, part_of, perplexity_row

DATA = Path(__file__).parent / "data" / "tasks"
WINDOWS, WINDOW = 4, 96
MINI = str(resolve("mini").folder)
ASKED = (
    *("quality", "--model", "mini", "--texts", "web.txt", "--windows", WINDOWS, "--window", WINDOW),
    *("--methods", "rtn:bits=3,svd", "--ratios", "0.5", "--schedule", "middle-out:2", "--projections", "gate,up"),
    *("--calibration-text", "calibration.txt", "--calibration-tokens", 512, "--dtype", "float32"),
    *("--task-data", DATA, "--tasks", "piqa,winogrande", "--limit", 3),
    *("--compressed", "small,foreign", "--out", "run", "--quiet"),
)
SMALL = ("compress", "--model", "mini", "--method", "rtn:bits=3", "--layers", "1,2", "--projections", "gate,up")
FROZEN = "method,ratio,compressed_layers,bits_saved,dataset,metric,value,stderr,samples,status"

Rows = list[dict[str, str]]


def command(patch: pytest.MonkeyPatch, *arguments: object) -> int:
    patch.setattr("sys.argv", ["tdmoe-diag", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def table(folder: Path) -> Rows:
    with (folder / "tables" / "quality.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run, the checkpoint `small` and `foreign`, mini with other experts in layer 3."""
    folder = tmp_path_factory.mktemp("quality")
    with pytest.MonkeyPatch.context() as patch, single_thread():
        patch.chdir(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        write_texts()
        assert command(patch, *SMALL, "--tokens", "0", "--to", "small", "--quiet") == 0
        model = copy.deepcopy(load(MINI))
        with torch.no_grad():
            model.model.layers[3].mlp.experts.down_proj *= 0.5
        model.save_pretrained(folder / "foreign")
        assert command(patch, *ASKED) == 0
        yield folder


def write_texts() -> None:
    """Short ones, into the working folder: tokenising a whole built-in text takes a second."""
    for name, source in (("web.txt", "c4-eval"), ("calibration.txt", "c4-calibration")):
        Path(name).write_text(load_text(source)[:30_000], encoding="utf-8", newline="")


@cache
def load(folder: object) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def losses_of(model: Any) -> np.ndarray[Any, Any]:
    """By window, a plain loop over the model's own forward."""
    from transformers import AutoTokenizer

    text = load_text("c4-eval")[:30_000]
    tokens = torch.tensor(AutoTokenizer.from_pretrained(MINI)(text, verbose=False)["input_ids"])
    found = []
    for w in range(WINDOWS):
        ids_T = tokens[w * WINDOW : (w + 1) * WINDOW]
        with torch.no_grad():
            log_p_TV = model(ids_T[None]).logits[0, :-1].double().log_softmax(-1)
        found.append(-float(log_p_TV.gather(1, ids_T[1:, None]).mean()))
    return np.array(found)


def row_of(rows: Rows, method: str, dataset: str, layers: str = "", checkpoint: str = "") -> dict[str, str]:
    (row,) = (
        row
        for row in rows
        if (row["method"], row["dataset"], row["compressed_layers"], row["checkpoint"])
        == (method, dataset, layers, checkpoint)
    )
    return row


def test_rows_and_columns(work: Path) -> None:
    rows = table(work / "run")
    header = (work / "run" / "tables" / "quality.csv").read_text().splitlines()[0]
    assert header == ",".join(COLUMNS) and header.startswith(FROZEN + ",")
    models = [(row["method"], row["ratio"], row["compressed_layers"], row["checkpoint"]) for row in rows]
    svd = [("svd", "0.5", "2", ""), ("svd", "0.5", "1-2", "")]
    rtn = [("rtn:bits=3", "", "2", ""), ("rtn:bits=3", "", "1-2", ""), ("rtn:bits=3", "", "1-2", "small")]
    assert set(models) == {("dense", "", "", ""), *rtn, *svd, ("foreign", "", "", "foreign")}
    assert len(rows) == 7 * 4
    assert {row["dataset"] for row in rows} == {"web.txt", "piqa", "winogrande", "macro average"}
    assert {row["status"] for row in rows} == {"ok"}
    assert (work / "run" / "report.html").is_file()
    stated = row_of(rows, "dense", "web.txt")["protocol"]
    assert stated == ("web.txt: text as it is, windows of 96 tokens, 95 of each scored, no BOS, float32 weights")
    assert row_of(rows, "dense", "web.txt")["tokens"] == str(WINDOWS * (WINDOW - 1))


@pytest.mark.parametrize(
    ("method", "layers", "checkpoint", "folder"),
    [("dense", "", "", MINI), ("rtn:bits=3", "1-2", "", "small"), ("rtn:bits=3", "1-2", "small", "small"),
     ("foreign", "", "foreign", "foreign")],
)  # fmt: skip
def test_perplexity_is_that_of_a_plain_loop_over_the_loaded_checkpoint(
    work: Path, method: str, layers: str, checkpoint: str, folder: str
) -> None:
    """Factors put into the dense model, and the checkpoint that `compress` writes, are one model."""
    row = row_of(table(work / "run"), method, "web.txt", layers, checkpoint)
    expected, dense = losses_of(load(work / folder)), losses_of(load(MINI))
    assert float(row["value"]) == pytest.approx(math.exp(expected.mean()), rel=1e-4)
    spread = expected.std(ddof=1) / math.sqrt(WINDOWS)
    assert float(row["stderr"]) == pytest.approx(float(row["value"]) * spread, rel=1e-3)
    assert float(row["loss_nats"]) == pytest.approx(expected.mean(), abs=1e-5)
    assert row["samples"] == str(WINDOWS)
    if method == "dense":
        assert row["loss_difference_nats"] == ""
    else:
        differences = expected - dense
        assert float(row["loss_difference_nats"]) == pytest.approx(differences.mean(), abs=2e-5)
        stderr = differences.std(ddof=1) / math.sqrt(WINDOWS)
        assert float(row["loss_difference_nats_stderr"]) == pytest.approx(stderr, abs=2e-5)


def test_bits_saved_are_those_of_the_written_checkpoint(work: Path) -> None:
    rows, about = table(work / "run"), json.loads((work / "small" / "tdmoe.json").read_text())
    for checkpoint in ("", "small"):
        row = row_of(rows, "rtn:bits=3", "web.txt", "1-2", checkpoint)
        assert float(row["bits_saved"]) == pytest.approx(about["bits_saved"], abs=1e-9)
        assert float(row["bits_saved_bf16"]) == pytest.approx(about["bits_saved_bf16"], abs=1e-9)
    half = row_of(rows, "rtn:bits=3", "web.txt", "2")
    assert float(half["bits_saved"]) == pytest.approx(about["bits_saved"] / 2, abs=1e-9)
    assert float(row_of(rows, "dense", "web.txt")["bits_saved"]) == 0


def test_a_smaller_set_of_the_schedule_uses_the_factors_of_the_larger(work: Path) -> None:
    """Layer 2 alone: the dense model with layer 2 of the written checkpoint."""
    model, small = copy.deepcopy(load(MINI)), load(work / "small")
    model.model.layers[2].mlp.experts = small.model.layers[2].mlp.experts
    row = row_of(table(work / "run"), "rtn:bits=3", "web.txt", "2")
    assert float(row["loss_nats"]) == pytest.approx(losses_of(model).mean(), abs=1e-5)
    made = list((work / "runs").glob("mini-factors-*/run/results/*.json"))
    assert len(made) == 2 * 4  # methods, and gate and up of two layers: one factorisation a stack for all sets


def test_accuracy_and_its_paired_difference_are_those_of_the_documents(work: Path) -> None:
    rows, found = table(work / "run"), {}
    for name in ("dense", "foreign"):
        for task in ("piqa", "winogrande"):
            path = next((work / "run" / "results").glob(f"quality-{name}-{task}-*.safetensors"))
            from safetensors.numpy import load_file

            found[name, task] = load_file(path)["correct"]
    for task in ("piqa", "winogrande"):
        row = row_of(rows, "foreign", task, checkpoint="foreign")
        difference = found["foreign", task] - found["dense", task]
        assert row["samples"] == "3" and row["metric"] == "acc"
        assert float(row["value"]) == pytest.approx(found["foreign", task].mean())
        assert float(row["accuracy_difference"]) == pytest.approx(difference.mean())
        assert float(row["accuracy_difference_stderr"]) == pytest.approx(difference.std(ddof=1) / math.sqrt(3))
    macro = row_of(rows, "foreign", "macro average", checkpoint="foreign")
    assert macro["samples"] == "6"
    assert float(macro["value"]) == pytest.approx(np.mean([found["foreign", t].mean() for t in ("piqa", "winogrande")]))


def test_the_macro_average_weighs_tasks_alike() -> None:
    """Tasks of 4 and 100 documents; errors add in squares."""
    one, two = np.array([1.0, 0.0, 1.0, 1.0]), np.tile([0.0, 1.0], 50)
    data = DataSet("macro average", "acc", "", "")
    row = macro_row(Subject("x", checkpoint="x"), data, [one, two], [one * 0, two], Saved(0.1, 0.1))
    assert row["value"] == pytest.approx((0.75 + 0.5) / 2) and row["samples"] == 104
    stderrs = one.std(ddof=1) / 2, two.std(ddof=1) / 10
    assert row["stderr"] == pytest.approx(math.hypot(*stderrs) / 2)
    assert row["accuracy_difference"] == pytest.approx(0.75 / 2)
    assert row["accuracy_difference_stderr"] == pytest.approx(stderrs[0] / 2)


def test_what_is_missing_is_measured_again_and_nothing_else(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    before, results = (work / "run" / "tables" / "quality.csv").read_bytes(), work / "run" / "results"
    lost = [next(results.glob(f"quality-{name}-*.json")) for name in ("rtn-l2-web.txt", "foreign-piqa", "dense-macro")]
    for path in lost:
        path.unlink()
    times = {path: path.stat().st_mtime_ns for path in results.iterdir() if path.suffix == ".json"}
    assert command(monkeypatch, *ASKED) == 0
    assert (work / "run" / "tables" / "quality.csv").read_bytes() == before
    changed = [path for path in results.glob("*.json") if times.get(path) != path.stat().st_mtime_ns]
    assert sorted(changed) == sorted(lost)


def test_a_model_that_knows_nothing_has_the_vocabulary_as_its_perplexity(tmp_path: Path, tool: Any) -> None:
    """mini with zero (tied) embeddings: every logit is 0, whatever its experts are."""

    folder = Path(shutil.copytree(MINI, tmp_path / "blank"))
    tensors = load_tensors(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"].zero_()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    write_texts()
    asked = ("--texts", "web.txt", "--windows", 2, "--window", 64, "--methods", "rtn:bits=2", "--layers", 0)
    asked += ("--calibration-text", "calibration.txt", "--calibration-tokens", 512, "--out", "run")
    result = tool("quality", "--model", folder, *asked, "--quiet")
    assert result.code == 0, result.err
    dense, variant = table(Path("run"))
    for row in (dense, variant):
        assert float(row["value"]) == pytest.approx(4096, rel=1e-6)
        assert float(row["stderr"]) == pytest.approx(0, abs=1e-6)
    assert float(variant["loss_difference_nats"]) == 0 and float(variant["bits_saved"]) > 0.05


def test_a_checkpoint_that_cannot_run_fails_alone(tmp_path: Path, tool: Any) -> None:
    broken = Path(shutil.copytree(MINI, tmp_path / "broken"))
    weights = load_tensors(broken / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    write_texts()
    asked = ("--texts", "web.txt", "--windows", 2, "--window", 32, "--compressed", broken, "--out", "run", "--quiet")
    result = tool("quality", "--model", "mini", *asked)
    message = "model.norm.weight: holds weights that are NaN or infinite"
    assert result.code == 1 and "quality-broken-web.txt" in result.err and message in result.err
    dense, failed = table(Path("run"))
    assert dense["status"] == "ok" and float(dense["value"]) > 1
    assert (failed["status"], failed["value"], failed["dataset"]) == ("failed", "", "web.txt")
    assert "did not finish" in Path("run/report.html").read_text()
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "none_such", "architectures": []}))
    result = tool("quality", "--model", "mini", *asked)
    assert result.code == 2 and f"--compressed {broken}: config.json: transformers cannot use it" in result.err


@pytest.mark.parametrize("command", ["quality", "drift"])
@pytest.mark.parametrize("says", [True, False])
def test_a_checkpoint_that_was_made_of_other_weights_is_refused(
    tool: Callable[..., Result], work: Path, tmp_path: Path, command: str, says: bool
) -> None:
    """The source is told by what compress wrote, or by what it copied; a copy of the model will do."""
    shutil.copytree(MINI, "copy")
    small = Path(shutil.copytree(work / "small", tmp_path / "small"))
    if not says:
        about = json.loads((small / "tdmoe.json").read_text())
        assert about.pop("source")
        (small / "tdmoe.json").write_text(json.dumps(about))
    text = {"quality": "--texts", "drift": "--text"}[command]
    write_texts()
    asked = (text, "web.txt", "--window", 32, "--compressed", small, "--dry-run")
    result = tool(command, "--model", work / "foreign", *asked)
    assert result.code == 2 and "was made of mini, whose weights are not those of --model" in result.err, result.err
    assert tool(command, "--model", "copy", *asked).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--texts", "c4-calibration"), "--texts c4-calibration: is a calibration text; evaluate on another"),
        (("--texts", "copy.txt"), "--texts copy.txt: is a calibration text"),
        (
            ("--texts", "own.txt", "--methods", "svd_llm", "--calibration-text", "own.txt"),
            "--texts own.txt: is a calibration text",
        ),
        (("--texts", "nowhere"), "--texts nowhere: no text 'nowhere'"),
        (("--texts", "own.txt,sub/own.txt"), "--texts sub/own.txt: there is another own.txt"),
        (("--texts", ""), "--texts: nothing to measure"),
        (("--window", 4096), "--window 4096: this model takes 2 to 512 tokens"),
        (("--stride", 513), "--stride 513: a window has 512 tokens"),
        (("--bos", "text"), "--bos text: the tokenizer has no beginning-of-sequence token"),
        (("--schedule", "middle-out:2", "--layers", "1"), "give it or --layers, not both"),
        (("--schedule", "middle-out:9"), "middle-out takes 1 to 2 of 4"),
        (("--methods", "tdmo"), "--methods tdmo: is no method"),
        (("--methods", "rtn:bits=1"), "--methods rtn: bits is 1; give 2 to 8"),
        (("--compressed", "sub"), "--compressed sub: has no config.json; give what `compress --to` wrote"),
        (("--methods", "svd", "--ratios", "1.5"), "'1.5' is no fraction"),
        (("--methods", "svd", "--layers", "7"), "layer 7 is not a Mixture-of-Experts layer"),
        (("--compressed", "nowhere"), "--compressed nowhere: no such folder"),
        (("--compressed", "unfinished"), "--compressed unfinished: is unfinished; run its compress command again"),
        (("--compressed", "words"), "--compressed words: has a vocabulary of 99 tokens, the model 4096"),
        (("--compressed", "words,sub/words"), "--compressed sub/words: no such folder; give"),
        (("--task-data", "sub", "--tasks", "piqa"), "has no file of piqa"),
        (("--task-data", DATA, "--tasks", "chess"), "--tasks chess: --task-data works for"),
        (("--model", "none"), "--model none"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused_before_anything_is_run(tool: Any, arguments: tuple[object, ...], message: str) -> None:
    Path("sub").mkdir()
    Path("copy.txt").write_text(load_text("c4-calibration"), encoding="utf-8", newline="")
    for name in ("own.txt", "sub/own.txt"):
        Path(name).write_text("Of cabbages and kings. " * 500)
    for name, about in (("unfinished", {"state": "unfinished"}), ("words", None)):
        Path(name).mkdir()
        for file in ("model.safetensors", "tokenizer.json"):
            (Path(name) / file).symlink_to(Path(MINI) / file)
        config = json.loads((Path(MINI) / "config.json").read_text())
        (Path(name) / "config.json").write_text(json.dumps(config | {"vocab_size": 99}))
        if about:
            (Path(name) / "tdmoe.json").write_text(json.dumps(about))
    model = () if "--model" in arguments else ("--model", "mini")
    model += () if "--texts" in arguments else ("--texts", "own.txt")
    result = tool("quality", *model, *arguments)
    assert result.code == 2, result.err
    assert message in " ".join(result.err.split())
    assert not list(Path().glob("runs/mini-quality-*"))


def test_a_dry_run_says_what_would_be_done(tool: Callable[..., Result]) -> None:
    write_texts()
    asked = (
        "--methods",
        "svd",
        "--calibration-text",
        "calibration.txt",
        "--calibration-tokens",
        512,
        "--schedule",
        "middle-out:2",
    )
    result = tool("quality", "--model", "mini", "--texts", "web.txt", "--windows", 8, *asked, "--dry-run")
    assert result.code == 0
    assert "3 parts, 24 windows and documents; nothing was run" in result.out
    assert "quality-svd-0.4-l1-2-web.txt-" in result.out
    assert not Path("runs").exists()


def test_files_of_parts_have_names_that_are_safe() -> None:
    subject = Subject("tdmoe:whitening=none", 0.25, parse.spans([1, 2, 5]), "gate,up")
    assert part_of(subject, "My text/é.txt", "perplexity").key.startswith("quality-tdmoe-0.25-l1-2-5-my-text-.txt-")
    assert part_of(Subject("é", checkpoint="é"), "x" * 200, "acc").name.startswith("xxx")


def test_losses_that_are_not_finite_are_told_and_empty() -> None:
    data = DataSet("t", "perplexity", "", "")
    subject = Subject("svd", 0.5, "1")
    broken = perplexity_row(subject, data, np.array([1.0, math.nan]), np.ones(2), Saved(0.1, 0.1))
    assert (broken["status"], broken["value"], broken["loss_nats"]) == ("not_finite", None, None)
    huge = perplexity_row(subject, data, np.array([900.0, 900.0]), np.ones(2), Saved(0.1, 0.1))
    assert (huge["status"], huge["value"], huge["loss_nats"]) == ("overflow", None, 900.0)
    assert huge["loss_difference_nats"] == 899


def test_report_of_the_finished_run_writes_the_same_page(tool: Callable[..., Result], work: Path) -> None:
    assert tool("report", work / "run", "--out", "page.html").code == 0
    assert Path("page.html").read_bytes() == (work / "run" / "report.html").read_bytes()
