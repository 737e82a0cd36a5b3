"""`tdmoe-diag drift`: variants against separately loaded checkpoints, by layer, over a schedule, resumed, refused."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import REMEDY, Result
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_drift import plain_loop
from test_page import words
from tiny import read_json, single_thread, write_json
from torch import Tensor

import tdmoe.hub  # noqa: F401
from diag.cli import app as cli
from diag.inputs.texts import load_text
from diag.lockstep import runner
from diag.probes.drift.statistics import Sums
from diag.runs import partial

SHORT = ("--model", "mini", "--window", 64, "--tokens", 512, "--quiet", "--device", "cpu")
METHOD = ("--methods", "rtn:bits=3", "--projections", "gate,up")
MINI = Path(str(resources.files("diag") / "assets" / "mini"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """Options with the beginnings of built-in texts: the whole ones take long to tokenise."""
    home, options = tmp_path_factory.mktemp("texts"), list[Any]()
    for option, name in (("--text", "wikitext2"), ("--calibration-text", "c4-calibration")):
        (home / f"{name}.txt").write_text(load_text(name)[:12_000], encoding="utf-8")
        options += [option, home / f"{name}.txt"]
    return (*SHORT, *options, "--calibration-tokens", 1024)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """mini in factor form in layers 1 and 3, a plain copy of it, and one with other attention and embeddings."""
    home = tmp_path_factory.mktemp("folders")
    options = ("--layers", "1,3", "--tokens", "0", "--device", "cpu", "--quiet")
    command = ("compress", "--model", "mini", "--method", "rtn:bits=3", "--projections", "gate,up", *options)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr("sys.argv", ["tdmoe-diag", *command, "--to", "factors"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
    shutil.copytree(MINI, home / "same")
    shutil.copytree(MINI, home / "other")
    tensors = load_file(MINI / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    for name in tensors:
        if "q_proj" in name or "embed_tokens" in name or "layers.2.mlp.experts" in name:
            noise = torch.randn(tensors[name].shape, generator=generator)
            tensors[name] = (tensors[name] * (1 + 0.3 * noise)).to(tensors[name].dtype)
    save_file(tensors, home / "other" / "model.safetensors", {"format": "pt"})
    return {name: home / name for name in ("factors", "same", "other")}


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "tables" / "drift.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def angles_of(rows: list[dict[str, str]], **wanted: str) -> list[float]:
    return [float(row["angle_deg"]) for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_variants_checkpoints_and_a_plain_loop_agree(
    tool: Callable[..., Result], folders: dict[str, Path], texts: tuple[Any, ...], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    compressed = ",".join(str(folder) for folder in folders.values())
    out = tmp_path / "out"
    options = (*texts, *METHOD, "--layers", "1,3", "--compressed", compressed, "--out", out)
    result = tool("drift", *options)
    assert result.code == 0, result.err
    said = result.out.splitlines()[1]
    assert said.startswith("Angle to the dense model's stream after the last compressed layer: same 0.0°")
    assert "RTN (bits=3) (factors)" in said
    rows = rows_of(out)
    assert list(rows[0])[:12] == [
        *("method", "ratio", "scope", "compressed_layers", "layer", "angle_deg", "angle_stderr", "norm_ratio"),
        *("routing_agreement", "routing_js", "tokens", "status"),
    ]
    assert {row["status"] for row in rows} == {"ok"} and {row["tokens"] for row in rows} == {"512"}
    same = [row for row in rows if row["checkpoint"] == "same"]
    for column, value in {"angle_deg": 0, "norm_ratio": 1, "routing_agreement": 1, "routing_js": 0}.items():
        assert [float(row[column]) for row in same] == [value] * 4
    ours, theirs = (angles_of(rows, scope="all", method="rtn:bits=3", checkpoint=c) for c in ("", "factors"))
    assert ours == pytest.approx(theirs, rel=1e-3) and ours[0] == 0 < min(ours[1:])
    assert {row["compressed_layers"] for row in rows if row["checkpoint"] == "factors"} == {"1,3"}
    saved = {float(row["bits_saved"]) for row in rows if row["scope"] == "all" and row["method"] == "rtn:bits=3"}
    assert max(saved) == pytest.approx(min(saved), abs=1e-9) and min(saved) > 0
    alone = [row for row in rows if row["scope"] == "one"]
    assert {row["compressed_layers"] for row in alone} == {"1", "3"}
    assert [row["layer"] for row in rows if row["after_last"] == "1" and row["scope"] == "one"] == ["1", "3"]
    assert (
        angles_of(alone, compressed_layers="1", layer="1") == angles_of(rows, scope="all", checkpoint="", layer="1")[:1]
    )
    rounded = angles_of(rows, method="cast:dtype=bfloat16")
    assert 0 < rounded[0] < rounded[3] < 2

    tokenizer = AutoTokenizer.from_pretrained(MINI)
    ids = tokenizer(load_text("wikitext2")[:6000], add_special_tokens=False)["input_ids"][:512]
    ids_WT = torch.tensor(ids).view(8, 64)

    def collect(model: Any, ids: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        hook = model.model.norm.register_forward_pre_hook(lambda module, arguments: found.append(arguments[0]))
        with torch.no_grad():
            states = model.model(input_ids=ids, output_hidden_states=True).hidden_states
        hook.remove()
        return [*states[1:-1], *found]  # transformers' last one is after the final norm

    models = [AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32) for f in (MINI, *folders.values())]
    for (name, _), model in zip(folders.items(), models[1:], strict=True):
        expected = plain_loop(models[0], model, ids_WT, collect)
        np.testing.assert_allclose(angles_of(rows, checkpoint=name), expected, rtol=1e-3, atol=0.03)
    other = [row for row in rows if row["checkpoint"] == "other"]
    assert min(float(row["angle_deg"]) for row in other) > 1 and float(other[0]["routing_agreement"]) < 1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Local against accumulated" in page and "other: " not in page and str(tmp_path) not in page
    assert {path.stem for path in (out / "figures").glob("*.svg")} == {
        "drift-depth",
        "drift-routing",
        "drift-accumulated",
    }

    small = tool("drift", *options[:-1], tmp_path / "by-layer", "--memory", "12MB")
    assert small.code == 0, small.err
    for expected_row, row in zip(rows, rows_of(tmp_path / "by-layer"), strict=True):
        for column, value in expected_row.items():
            if column in ("angle_deg", "norm_ratio", "routing_agreement", "routing_js"):
                assert float(row[column]) == pytest.approx(float(value), rel=1e-3, abs=1e-4), column
            elif not column.endswith("stderr"):
                assert row[column] == value, column


def test_a_schedule_measures_all_its_sets_with_the_factors_of_one_run(
    tool: Callable[..., Result], texts: tuple[Any, ...], tmp_path: Path
) -> None:
    result = tool("drift", *texts, *METHOD, "--schedule", "middle-out:2", "--out", tmp_path / "nested")
    assert result.code == 0, result.err
    rows = rows_of(tmp_path / "nested")
    variants = dict.fromkeys((row["scope"], row["compressed_layers"]) for row in rows)
    assert list(variants) == [("one", "1"), ("one", "2"), ("all", "2"), ("all", "1-2"), ("all", "")]
    assert angles_of(rows, scope="one", compressed_layers="2") == angles_of(rows, scope="all", compressed_layers="2")
    made = list(Path("runs").glob("mini-factors-*"))
    assert len(made) == 1
    jobs = [path.name for path in (made[0] / "run" / "results").glob("*.json")]
    assert len(jobs) == 4  # gate and up of two layers, not of three
    result = tool("drift", *texts, *METHOD, "--layers", "1-2", "--scope", "all", "--out", tmp_path / "alone")
    assert result.code == 0, result.err
    alone = angles_of(rows_of(tmp_path / "alone"), compressed_layers="1-2")
    assert alone == pytest.approx(angles_of(rows, scope="all", compressed_layers="1-2"), rel=1e-6)
    assert "drift-sets.svg" in {path.name for path in (tmp_path / "nested" / "figures").iterdir()}
    page = (tmp_path / "nested" / "report.html").read_text(encoding="utf-8")
    assert "Angle of the largest set of layers, beside the smallest: RTN (bits=3)" in words(page)


def test_a_run_that_was_stopped_goes_on_where_it_was(
    tool: Callable[..., Result], texts: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("drift", *texts, *METHOD, "--layers", "2", "--scope", "all", "--memory", "1MB")
    assert tool(*options, "--out", tmp_path / "whole").code == 0
    expected = rows_of(tmp_path / "whole")
    calls: list[int] = []
    observe = Sums.observe

    def stopping(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        observe(*arguments)

    monkeypatch.setattr(runner, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(runner, "SAVE_SPACING", 0.0)
    monkeypatch.setattr(Sums, "observe", stopping)
    assert tool(*options, "--out", tmp_path / "out").code == 130
    with safe_open(tmp_path / "out" / partial.FILE, "np") as file:
        done = int(file.metadata()["done"])
    assert 0 < done < 8
    before = len(calls)
    assert tool(*options, "--out", tmp_path / "out").code == 0
    assert len(calls) - before == 4 * (8 - done)  # only windows that were left, one at a time
    assert rows_of(tmp_path / "out") == expected
    assert not list((tmp_path / "out").glob("partial*"))
    next((tmp_path / "out" / "results").glob("*cast*.json")).unlink()
    before = len(calls)
    assert tool(*options, "--out", tmp_path / "out").code == 0
    assert len(calls) - before > 0
    again = rows_of(tmp_path / "out")
    assert again[:4] == expected[:4]
    assert angles_of(again) == pytest.approx(angles_of(expected), rel=1e-3)  # alone it is walked in other batches
    before = len(calls)
    assert tool(*options, "--out", tmp_path / "out").code == 0
    assert len(calls) == before and rows_of(tmp_path / "out") == again


WRONG = {
    "calibration text": (("--text", "c4-calibration"), "--text c4-calibration: is the calibration text"),
    "no such text": (("--text", "nothing.txt"), "--text nothing.txt: no text"),
    "too few tokens": (("--tokens", "63"), "--tokens 63: a window takes 64"),
    "no such method": (("--methods", "tdmo"), "--methods tdmo: is no method"),
    "no such scope": (("--scope", "some"), "--scope some: 'some' is none of one, all"),
    "layers and schedule": (("--schedule", "middle-out:2", "--layers", "1"), "give it or --layers, not both"),
    "long schedule": (
        (
            "--schedule",
            "middle-out:9",
        ),
        "middle-out takes 1 to 2 of 4",
    ),
    "no schedule": (("--schedule", "outwards:2"), "write middle-out:N"),
    "no folder": (("--compressed", "nowhere"), "--compressed nowhere: no such folder"),
    "empty folder": (("--compressed", "{}"), "/empty: has no config.json; give what `compress --to` wrote"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_with_one_message(tool: Callable[..., Result], tmp_path: Path, case: str) -> None:
    options, message = WRONG[case]
    (tmp_path / "empty").mkdir()
    given = [option.format(tmp_path / "empty") for option in options]
    result = tool("drift", *SHORT, *given)
    assert result.code == 2 and message in result.err and REMEDY.search(result.err), result.err
    assert len(result.err.strip().splitlines()) == 1 and not list(Path("runs").glob("*drift*"))


CHANGED = {
    "vocab_size": (lambda c: c | {"vocab_size": 5000}, r"has 5000 tokens in the vocabulary, the model 4096"),
    "depth": (lambda c: c | {"num_hidden_layers": 3}, r"has 3 layers, the model 4"),
    "hidden": (lambda c: c | {"hidden_size": 96}, r"has 96 as hidden size, the model 192"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_checkpoints_of_another_model_are_refused(tool: Callable[..., Result], tmp_path: Path, case: str) -> None:
    change, message = CHANGED[case]
    other = Path(shutil.copytree(MINI, tmp_path / "changed"))
    write_json(other / "config.json", change(read_json(other / "config.json")))
    result = tool("drift", *SHORT, "--compressed", other)
    assert result.code == 2 and re.search(message, result.err) and REMEDY.search(result.err), result.err


def test_another_tokenizer_is_refused(tool: Callable[..., Result], texts: tuple[Any, ...], tmp_path: Path) -> None:
    other = Path(shutil.copytree(MINI, tmp_path / "changed"))
    tokenizer = read_json(other / "tokenizer.json")
    vocabulary = tokenizer["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.get)
    places = [vocabulary[token] for token in ordered[-2000:]]
    tokenizer["model"]["vocab"] |= dict(zip(ordered[-2000:], reversed(places), strict=True))
    write_json(other / "tokenizer.json", tokenizer)
    result = tool("drift", *texts, "--compressed", other)
    assert result.code == 2 and "its tokenizer reads the text as other tokens" in result.err, result.err


def test_a_dry_run_does_nothing(tool: Callable[..., Result], texts: tuple[Any, ...]) -> None:
    result = tool("drift", *texts, *METHOD, "--dry-run")
    assert result.code == 0 and "6 variants, 8 windows of 64 tokens of wikitext2.txt" in result.out, result
    assert "held whole; nothing was run" in result.out and not Path("runs").exists()
