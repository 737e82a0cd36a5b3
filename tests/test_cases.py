"""Inputs that went wrong in use (tests/cases.py) through the commands that met them, and what else could not be run."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import CALIBRATE, CASES, COMPRESS, QUALITY, QUERY, ROUNDED, Case, notes_of
from damage import SHARDS, Result, drop
from safetensors.torch import load_file
from test_superweights import TEXT, write_tokenizer
from tiny import plain_checkpoint, read_json, read_tensors, single_thread, whole, write_checkpoint
from zoo import FAMILIES, build, save

from diag.compression.calibrating import Calibration
from diag.experiment import toml
from diag.models.model import resolve
from diag.models.transformer import load_model
from tdmoe.methods.mobe import MoBE
from tdmoe.problems import InputError

Tool = Callable[..., Result]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture(scope="module")
def good_pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pico")
    made = save(build(FAMILIES["qwen3_moe"], torch.float32), home / "made", fused=False)
    write_tokenizer(made)
    folder = write_checkpoint(home / "pico", read_json(made / "config.json"), read_tensors(made), SHARDS)
    for path in made.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture
def pico(good_pico: Path, tmp_path: Path, tool: Tool) -> Path:
    """A copy to damage, and two texts in the working folder."""
    Path("a.txt").write_text(TEXT * 6)
    Path("b.txt").write_text(TEXT[::-1] * 6)
    return Path(shutil.copytree(good_pico, tmp_path / "pico"))


def rows(out: Path, table: str) -> list[dict[str, str]]:
    with (out / "tables" / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def nothing_with_nan_is_saved() -> None:
    for path in (path for folder in ("out", "to", "runs") for path in Path(folder).rglob("*")):
        if path.suffix == ".safetensors":
            assert all(t.isfinite().all() for t in load_file(path).values() if t.is_floating_point()), path
        elif path.suffix in (".csv", ".json"):
            assert not re.search(
                r"\b(nan|NaN|inf|Infinity)\b(?! or)", re.sub(r"NaN or infinite", "", path.read_text())
            ), path


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_inputs_that_went_wrong(case: Case, pico: Path, tool: Tool) -> None:
    folder = case.change(pico)
    folder = folder if isinstance(folder, Path) else pico
    before = set(Path.cwd().iterdir())
    for command in case.commands:
        name, *options = command
        result = tool(name, "--model", folder, *options)
        assert result.code == case.code, (command, result)
        assert re.search(case.said, f"{result.out}\n{result.err}\n{notes_of(Path('out'))}", re.MULTILINE), result
        assert "\x1b" not in result.out + result.err and "\u202e" not in result.out + result.err
        reasons = re.findall(r"^failed: \S+(?: and \d+ more)?: (.*)", result.err, re.MULTILINE)
        assert len(set(reasons)) == len(reasons), "each is told once"
        if case.code == 2:
            assert result.err.count("\n") == (result.err != "") and len(result.err) < 340
            assert set(Path.cwd().iterdir()) == before, "before any work"
        nothing_with_nan_is_saved()
        for folder_made in ("out", "to", "runs"):
            shutil.rmtree(folder_made, ignore_errors=True)
    assert not Path("ran").exists()


def test_hollow_models_are_loaded_whole_too(pico: Path) -> None:
    drop(re.escape(QUERY))(pico)
    model = resolve(str(pico))
    with pytest.raises(InputError, match=re.escape(f"'{QUERY}' is missing from the checkpoint")):
        load_model(model, model.files(), "cpu", "float32", hollow=True)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to"),
        RuntimeError("alloc_cpu: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_fails_the_jobs(
    error: Exception, pico: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: object, *_: object) -> Any:
        raise error

    monkeypatch.setattr(Calibration, "load", load)
    result = tool("calibrate", "--model", pico, *CALIBRATE[1:])
    assert result.code == 1 and re.search(
        r"failed: calibrate-L000-experts and 1 more: out of memory \(.*\); give less", result.err
    )


def test_what_cannot_be_made_leaves_the_rest(pico: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, *_: object, **__: object) -> Any:
        raise RuntimeError("no step helps")

    monkeypatch.setattr(MoBE, "compress", fails)
    methods = "mobe:whitening=none,alignment=1,rtn:bits=4,group=4"
    result = tool("quality", "--model", pico, *[methods if "rtn" in option else option for option in QUALITY[1:]])
    assert result.code == 1 and re.search(r"failed: quality-mobe.*no step helps", result.err), result
    found = {row["method"].partition(":")[0]: row["status"] for row in rows(Path("out"), "quality")}
    assert found["dense"] == found["rtn"] == "ok"


def one_expert(folder: Path, change: Callable[[str], float] = lambda name: 1.0, experts: int = 1) -> Path:
    config, tensors = whole(*plain_checkpoint(experts=experts, hidden=24, width=16, moe_layers=(0, 1)))
    config = {**config, "num_experts_per_tok": min(2, experts)}
    return write_checkpoint(folder, config, {name: change(name) * t for name, t in tensors.items()})


def test_a_model_of_one_expert_is_rebuilt(tmp_path: Path, tool: Tool) -> None:
    model = one_expert(tmp_path / "one")
    result = tool("compress", "--model", model, *ROUNDED[1:-2], "--method", "rtn:bits=8,group=8", "--dense")
    assert result.code == 0, result
    before, after = read_tensors(model), read_tensors(Path("to", "dense"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.shape == after[name].shape
        assert (tensor - after[name]).abs().max() <= (0.03 * tensor.abs().max() if ".experts." in name else 0)
    cut = tool("compress", "--model", model, *COMPRESS[1:], "tdmoe:whitening=none,expert_mode=compress,alignment=1")
    assert cut.code == 2 and "has one expert; give preserve or auto" in cut.err


def test_one_dead_expert_of_two_is_fitted(tmp_path: Path, tool: Tool) -> None:
    model = one_expert(tmp_path / "two", lambda name: 0.0 if ".experts.1." in name else 1.0, experts=2)
    result = tool("compress", "--model", model, *COMPRESS[1:], "mobe:whitening=none,steps=20,alignment=1")
    assert result.code == 0, result
    assert all(0 < float(row["weight_error"]) < 1 for row in rows(Path("out"), "compression"))


def test_names_that_are_nearly_known(tool: Tool) -> None:
    assert "Qwen3-30B-A3B is meant?" in tool("spectra", "--model", "qwen3-30b-a3b").err


def test_experiment_files(tmp_path: Path) -> None:
    path = tmp_path / "e.toml"
    path.write_bytes(b"\xef\xbb\xbfmodel = 'mini'\n")
    assert toml.read(path) == {"model": "mini"}
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(InputError, match="is not TOML"):
        toml.read(path)


def test_help_and_completion(tool: Tool) -> None:
    assert "--projections" in tool("spectra", "-h").out
    assert "--install-completion" in tool("-h").out
    done = subprocess.run([sys.executable, "-m", "diag", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tdmoe-diag ")
