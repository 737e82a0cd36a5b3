"""Fixtures of the tests that go through the command line on a small checkpoint."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is there; of workers side by side, and of what they start

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from damage import (
    SHARDS,
    Result,
)
from filelock import FileLock
from tiny import (
    plain_checkpoint,
    single_thread,
    whole,
    write_checkpoint,
)

from diag.cli import app as cli
from diag.inputs import windows
from reports import theme
from tdmoe import methods

theme.name_methods(methods.described())  # as commands do: tests draw pages without them, some when they are collected


@pytest.fixture(scope="session", autouse=True)
def tokenised_once() -> Iterator[None]:
    """The same text by the same tokenizer, for all commands of this process: one of mini takes a second."""
    real = windows.tokenised
    memory: dict[tuple[str, str], list[int]] = {}

    def remembered(tokenizer: Any, text: str) -> list[int]:
        if not hasattr(tokenizer, "backend_tokenizer"):
            return real(tokenizer, text)
        key = tokenizer.backend_tokenizer.to_str(), text
        if key not in memory:
            memory[key] = real(tokenizer, text)
        return memory[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "tokenised", remembered)
        yield


@pytest.fixture(scope="session", autouse=True)
def disk_not_waited_for() -> Iterator[None]:
    """In this process; those that tests start and kill do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """`tdmoe-diag ARGS` in this process, in an empty working folder, without a network."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read from the environment at its import
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def command(*arguments: object) -> Result:
        monkeypatch.setattr("sys.argv", ["tdmoe-diag", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Result(int(end.value.code or 0), out, err)

    return command


@pytest.fixture
def run(tool: Callable[..., Result]) -> Callable[..., Result]:
    """`tdmoe-diag spectra ARGS`, likewise."""
    return lambda *arguments: tool("spectra", *arguments)


@pytest.fixture
def compress(tool: Callable[..., Result]) -> Callable[..., Result]:
    """`tdmoe-diag compress --model mini ARGS`, likewise."""
    return lambda *arguments: tool("compress", "--model", "mini", *arguments)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, tensors = plain_checkpoint()
    return write_checkpoint(tmp_path_factory.mktemp("good") / "model", config, tensors, SHARDS)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good` with attention and head, so that transformers loads it."""
    return write_checkpoint(tmp_path_factory.mktemp("complete") / "model", *whole(*plain_checkpoint()), SHARDS)


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    """A copy to damage. Shards: layer 0 and expert 0 of layer 1; the rest of layer 1; layer 2 but for one tensor."""
    return Path(shutil.copytree(good, tmp_path / "model"))


@pytest.fixture(scope="session")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of mini, of everything that an option may ask for; workers of one session share it."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "statistics"
    collected = ("--per-expert", "all", "--outputs", "--quiet")
    arguments = ("calibrate", "--model", "mini", "--tokens", "4096", *collected, "--out", str(out))
    with FileLock(f"{out}.lock"):
        if not (out / "tables" / "calibration.csv").exists():
            subprocess.run([sys.executable, "-m", "diag.cli.app", *arguments], check=True)
    return out
