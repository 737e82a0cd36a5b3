"""`tdmoe-diag compress`: from the built-in model to a checkpoint that transformers loads and runs in factor form."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed import MINI, QUICK, files, fill, fill_any, linear_weights, load_mini, rebuilt, rows
from damage import Result, refuses
from tiny import plain_checkpoint, read_json, read_tensors, whole, write_checkpoint
from zoo import FAMILIES, build, experts_of, load, save

import diag.compression.compressing
import diag.compression.sensitivity
import tdmoe.checkpoint.writer
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.runtime.calibration import experts_modules
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.families import PROJECTIONS
from tdmoe.stacks.locate import open_stack

pytestmark = pytest.mark.usefixtures("one_thread")


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
    counted = 8 * sum(t.nbytes for t in original.values())  # tied: the embeddings are the head
    assert about["bits_saved"] == pytest.approx(8 * saved / counted)
    assert f"{8 * saved / counted:.1%} of the model's bits saved (all: the tied" in result.out
    assert about["state"] == "complete" and about["stacks"][0]["ranks"] == table[0]["ranks"]
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= {p.name for p in to.iterdir()}


def test_killed_and_started_again_it_ends_with_the_same_bytes(
    compress: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compress("--to", tmp_path / "whole", "--out", tmp_path / "a", *QUICK)
    assert whole.code == 0
    original, calls = diag.compression.compressing.write_stack, []

    def stop(*arguments: Any) -> str:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(diag.compression.compressing, "write_stack", stop)
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


def test_a_folder_that_is_not_ours_is_left_alone(compress: Callable[..., Result], tmp_path: Path) -> None:
    to = tmp_path / "to"
    to.mkdir()
    (to / "precious.txt").write_text("mine")
    options = ("--tokens", "0", "--method", "tdmoe:whitening=none", "--layers", "0", "--projections", "up")
    message = "--to .*: is not empty and holds no compressed checkpoint; give another folder"
    refuses(compress("--to", to, *options, "--out", tmp_path / "out"), message, tmp_path / "out")
    (to / "precious.txt").unlink()
    assert compress("--to", to, *options, "--out", tmp_path / "a").code == 0
    other = compress("--to", to, *options, "--ratio", "0.3", "--out", tmp_path / "out")
    refuses(other, "--to .*: holds a checkpoint made from other weights or with other settings; give", tmp_path / "out")
    (to / "notes.txt").write_text("mine")
    assert compress("--to", to, *options, "--ratio", "0.3", "--fresh", "--out", tmp_path / "b").code == 0
    assert (to / "notes.txt").read_text() == "mine" and float(rows(tmp_path / "b")[0]["kept_ratio"]) > 0.6


ONE = ("--tokens", "0", "--method", "rtn:bits=4", "--layers", "0", "--projections", "up", "--out")


def test_what_a_killed_process_left_half_written_is_removed(compress: Callable[..., Result], tmp_path: Path) -> None:
    """Before there was anything else in --to, and later; with --fresh too."""
    to = tmp_path / "to"
    to.mkdir()
    for fresh in ((), (), ("--fresh",)):
        (to / ".tdmoe.json.1.tmp").touch()
        assert compress("--to", to, *ONE, tmp_path / "o", *fresh).code == 0
        assert not list(to.glob(".*")) and (to / "tdmoe.json").is_file()
    refuses(compress("--to", "x" * 300, *ONE, tmp_path / "out"), "--to .*: cannot be used", tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the names of open files")
def test_a_disk_that_is_full_is_named(
    compress: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a shard, or the rest of the checkpoint, is written: not the run folder."""
    to, shard = tmp_path / "to", "experts-L000-up.safetensors"
    for full, said in ((shard, f"failed: compress-L000-up: {to / shard}: No space left"),
                       ("rest-00001", f"tdmoe-diag: {to / 'rest-00001.safetensors'}: No space left")):  # fmt: skip

        def fsync(descriptor: int, full: str = full) -> None:
            if full in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fsync)
        result = compress("--to", to, *ONE, tmp_path / "o")
        assert result.code == 1 and said in result.err, result
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    assert compress("--to", to, *ONE, tmp_path / "o").code == 0


def test_a_dead_expert_is_compressed_like_any_other(tool: Callable[..., Result], tmp_path: Path) -> None:
    config, tensors = whole(*plain_checkpoint(experts=6, hidden=24, width=16, moe_layers=(0,)))
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
    model = write_checkpoint(tmp_path / "m", *whole(*plain_checkpoint(experts=6, hidden=24, width=16, moe_layers=(0,))))
    before = files(model)
    refuses(tool("compress", "--model", model, "--to", model, *options), "is the model itself", tmp_path / "out")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    refuses(compress("--to", foreign, *options), "holds no compressed checkpoint; give another", tmp_path / "out")
    assert files(model) == before and files(foreign) == {"config.json": b"{}"}
    message = "--to .*: .*config.json is a file; give another folder"
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
    config, tensors = whole(*plain_checkpoint(experts=6, hidden=24, width=16, moe_layers=(0,)))
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
    monkeypatch.setattr(tdmoe.checkpoint.writer, "SHARD_BYTES", 1_000_000)
    options = ("--tokens", "0", "--method", "tdmoe:whitening=none", "--layers", "0", "--projections", "up")
    assert compress("--to", tmp_path / "to", "--out", tmp_path / "o", *options).code == 0
    assert len(list((tmp_path / "to").glob("rest-*.safetensors"))) > 3
    assert load_mini(tmp_path / "to") is not None
