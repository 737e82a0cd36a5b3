"""Fixtures of the tests that go through the command line on a small checkpoint."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from damage import (
    SHARDS,
    Result,
)
from tiny import (
    plain_checkpoint,
    single_thread,
    write_checkpoint,
)

from diag import cli


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


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, tensors = plain_checkpoint()
    return write_checkpoint(tmp_path_factory.mktemp("good") / "model", config, tensors, SHARDS)


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    """A copy to damage. Shards: layer 0 and expert 0 of layer 1; the rest of layer 1; layer 2 but for one tensor."""
    return Path(shutil.copytree(good, tmp_path / "model"))


@pytest.fixture(scope="session")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of mini, of everything that an option may ask for."""
    out = tmp_path_factory.mktemp("statistics") / "s"
    collected = ("--per-expert", "all", "--outputs", "--quiet")
    command = (sys.executable, "-m", "diag.cli", "calibrate", "--model", "mini", "--tokens", "4096", *collected)
    subprocess.run([*command, "--out", str(out)], check=True)
    return out
