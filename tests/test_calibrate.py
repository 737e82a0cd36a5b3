"""`tdmoe-diag calibrate` on the built-in model and real text: what it saves, resuming, and wrong input."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import Result, refuses
from zoo import FAMILIES, build, save

import diag.compression.calibrating
from diag.compression.calibrating import Calibration, Request, Settings, from_arrays
from diag.models.model import resolve
from diag.models.transformer import load_model
from tdmoe.runtime.calibration import calibrate as calibrate_model
from tdmoe.runtime.calibration import experts_modules

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ("--tokens", "1024", "--window", "128")


@pytest.fixture
def calibrate(tool: Callable[..., Result]) -> Callable[..., Result]:
    return lambda *arguments: tool("calibrate", "--model", "mini", *arguments)


def results(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "results").glob("*.safetensors")}


def stamps(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "results").iterdir()}


def test_it_saves_the_moments_of_every_layer(calibrate: Callable[..., Result], tmp_path: Path) -> None:
    """Against the mean of x x^T of the recorded inputs of the first layer, on the same windows."""
    out = tmp_path / "o"
    result = calibrate(*SMALL, "--text", "enwik8", "--out", out)
    assert result.code == 0, result
    rows = list(csv.DictReader((out / "tables" / "calibration.csv").open()))
    assert [row["layer"] for row in rows] == ["0", "1", "2", "3"]
    assert {(row["tokens"], row["routed"], row["experts"], row["status"]) for row in rows} == {
        ("1024", "4096", "32", "ok")
    }
    with Calibration(Request("mini", Settings("enwik8", 1024, 128), out=out)) as calibration:
        assert calibration.folder.open() == ["4 of 4 jobs are done already"]
        sums = from_arrays(calibration.folder.arrays(calibration.folder.jobs[0]))
        model = calibration.load()
        seen = []
        module = experts_modules(model)[0]
        module.register_forward_pre_hook(lambda _, a: seen.append(a[0]))
        with torch.no_grad():
            for window in calibration.windows_WT.split(3):
                model(window)
    x = torch.cat([call.reshape(-1, 192) for call in seen]).double()
    assert len(x) == 1024
    torch.testing.assert_close(sums.moment("gate"), x.T @ x / len(x), rtol=1e-3, atol=1e-6 * float(x.square().mean()))
    assert sums.down_II.shape == (80, 80) and sums.tokens_E.sum() == 4096


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(
    calibrate: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diag.compression.calibrating, "BATCH_TOKENS", 256)
    whole = calibrate(*SMALL, "--out", tmp_path / "whole")
    assert whole.code == 0
    monkeypatch.setattr(diag.compression.calibrating, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(diag.compression.calibrating, "SAVE_SPACING", 0.0)
    original, calls = Calibration._save_partial, []

    def stop(self: Calibration, moments: object) -> None:
        original(self, moments)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Calibration, "_save_partial", stop)
    stopped = calibrate(*SMALL, "--out", tmp_path / "o")
    assert stopped.code == 130 and (tmp_path / "o" / "partial.safetensors").is_file() and not results(tmp_path / "o")
    again = calibrate(*SMALL, "--out", tmp_path / "o")
    assert again.code == 0 and len(calls) == 4, "two of the four batches were left"
    assert results(tmp_path / "o") == results(tmp_path / "whole")
    assert not (tmp_path / "o" / "partial.safetensors").exists()
    (gone := tmp_path / "o" / "results" / "calibrate-L001-experts.json").unlink()
    before = stamps(tmp_path / "o")
    assert calibrate(*SMALL, "--out", tmp_path / "o").code == 0
    after = stamps(tmp_path / "o")
    assert {name for name in after if after[name] != before.get(name)} == {gone.name, f"{gone.stem}.safetensors"}
    assert results(tmp_path / "o") == results(tmp_path / "whole")


def test_per_expert_and_gate_weighting_are_other_runs(calibrate: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert (
        calibrate(*SMALL, "--layers", "1", "--per-expert", "down", "--weighting", "gate_squared", "--out", out).code
        == 0
    )
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["config"]["per_expert"] == "down" and manifest["config"]["weighting"] == "gate_squared"
    row = next(csv.DictReader((out / "tables" / "calibration.csv").open()))
    assert 0 < float(row["shrinkage_largest"]) < 1
    other = calibrate(*SMALL, "--layers", "1", "--out", out)
    assert other.code == 0 and "settings changed" in other.err


def test_a_dry_run_says_what_it_would_do(calibrate: Callable[..., Result], tmp_path: Path) -> None:
    result = calibrate(*SMALL, "--dry-run", "--out", tmp_path / "o")
    assert result.code == 0 and "8 windows of 128 tokens, 4 layers, 1.4 MB of sums; nothing was run" in result.out
    assert not (tmp_path / "o").exists()


def test_a_short_text_is_used_whole_and_said_so(calibrate: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    short = ("--text", tmp_path / "short.txt", "--window", "64", "--layers", "0", "--out", tmp_path / "o")
    for result in (calibrate(*short), calibrate(*short, "--tokens", 10**21, "--dry-run")):
        assert result.code == 0 and re.search(r"tokens in whole windows, fewer than --tokens [\d,]+\n", result.err)


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "glm4v_moe", "qwen3_moe"])
def test_models_of_images_and_text_load_too(name: str, tmp_path: Path) -> None:
    folder = save(build(FAMILIES[name]), tmp_path / "m", fused=True)
    model = resolve(str(folder))
    loaded = load_model(model, model.files(), "cpu")
    assert sorted(experts_modules(loaded)) == list(FAMILIES[name].moe_layers)
    moments = calibrate_model(loaded, [torch.arange(3, 40)[None]])
    assert moments.tokens == 37 and all(sums.tokens_E.sum() > 0 for sums in moments.layers.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--text", "no-such-text"), "--text no-such-text: no text 'no-such-text': it is neither a built-in name"),
        (("--tokens", "10", "--window", "64"), "--tokens 10: a window takes 64 tokens; give at least that"),
        (("--window", "100000"), "--window 100000: this model takes 2 to 512 tokens"),
        (("--layers", "7"), "--layers 7: layer 7 is not a Mixture-of-Experts layer"),
        (("--device", "cuda:9"), "--device cuda:9: this machine has"),
    ],
)
def test_wrong_input_is_refused(
    calibrate: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    refuses(calibrate(*arguments, "--out", tmp_path / "out"), message, tmp_path / "out")


def test_a_checkpoint_without_a_tokenizer_is_refused(
    tool: Callable[..., Result], complete: Path, tmp_path: Path
) -> None:
    message = "--model model: has no tokenizer; its tokenizer.json .* needed"
    refuses(tool("calibrate", "--model", complete, "--out", tmp_path / "out"), message, tmp_path / "out")
