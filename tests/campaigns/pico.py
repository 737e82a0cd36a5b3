"""A pico model with a tokenizer, a text, and every command that writes something at its smallest settings on them."""

from __future__ import annotations

import json
import random
import string
from dataclasses import dataclass
from pathlib import Path

from tiny import write_json
from zoo import FAMILIES, build, save

LETTERS = string.ascii_lowercase + " .,"
SHARD_BYTES = 24_000  # three shards


def pico(folder: Path) -> Path:
    """A Qwen3-MoE of three layers, the second dense, in three shards, with a tokenizer of letters."""
    save(build(FAMILIES["qwen3_moe"]), folder, fused=False, shard_size=SHARD_BYTES)
    return with_letters(folder)


def with_letters(folder: Path) -> Path:
    """A tokenizer of letters into that folder."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    words = {"[UNK]": 0, **{letter: 3 + i for i, letter in enumerate(LETTERS)}}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    return folder


def fused_pico(folder: Path) -> Path:
    """The same weights in one file, the experts of a layer in one tensor each."""
    save(build(FAMILIES["qwen3_moe"]), folder, fused=True, shard_size=10**9)
    return folder


def text(path: Path, seed: int, letters: int = 1500) -> Path:
    draw = random.Random(seed)
    path.write_text("".join(draw.choice(LETTERS) for _ in range(letters)))
    return path


@dataclass(frozen=True)
class Bench:
    """Where the model and the texts lie that all cases read."""

    home: Path

    @property
    def model(self) -> Path:
        return self.home / "pico"

    @property
    def held_out(self) -> Path:
        return self.home / "held-out.txt"

    @property
    def calibration(self) -> Path:
        return self.home / "calibration.txt"


def make_bench(home: Path) -> Bench:
    bench = Bench(home)
    pico(bench.model)
    text(bench.held_out, 1)
    text(bench.calibration, 2)
    (home / "experiment.toml").write_text(_experiment(bench), encoding="utf-8")
    return bench


def commands(bench: Bench) -> dict[str, list[str]]:
    """{name: arguments} of every command that writes something, which write into the working folder only."""
    model, out = ["--model", str(bench.model)], ["--out", "run", "--quiet"]
    held, calibrated = str(bench.held_out), str(bench.calibration)
    calibration = ["--calibration-text", calibrated, "--calibration-tokens", "64"]
    on_text = ["--text", held, "--tokens", "32", "--window", "16"]
    methods = ["--methods", "tdmoe,rtn", *calibration]
    few = ["--ranks", "0.5", "--methods", "tdmoe:whitening=none", "--ratios", "0.4"]
    return {
        "spectra": ["spectra", *model, *out, "--projections", "up,down"],
        "operator": ["operator", *model, *out, "--layers", "0", *few],
        "experts": [
            "experts",
            *model,
            *out,
            "--ratios",
            "0.4",
            "--jackknife",
            "2",
            "--draws",
            "1",
            "--projections",
            "up",
        ],
        "superweights": [
            *("superweights", *model, *out, "--text", held, "--tokens", "32", "--window", "16", "--threshold", "0.5"),
            *("--most", "2", "--entries", "4", "--ranks", "3", "--methods", "rtn", "--ratios", "0.4"),
            *("--eval-text", calibrated, "--eval-windows", "1", "--draws", "1"),
        ],
        "calibrate": ["calibrate", *model, *out, "--text", calibrated, "--tokens", "64", "--window", "16"],
        "compress": [
            *("compress", *model, *out, "--method", "tdmoe", "--ratio", "0.4", "--to", "small", "--text", calibrated),
            *("--tokens", "64", "--window", "16"),
        ],
        "round": ["compress", *model, *out, "--method", "rtn:bits=4", "--tokens", "0", "--to", "small", "--dense"],
        "quality": ["quality", *model, *out, "--texts", held, "--windows", "2", "--window", "16", *methods],
        "drift": ["drift", *model, *out, *on_text, *methods, "--scope", "one,all"],
        "injection": [
            *("injection", *model, *out, *on_text, *calibration, "--families", "flat,along", "--methods", "rtn"),
            *("--sizes", "0.1,0.3", "--seeds", "1", "--scopes", "all", "--designs", "frobenius"),
            *("--layers", "0", "--projections", "up"),
        ],
        "attribution": [
            *("attribution", *model, *out, "--text", held, "--windows", "8", "--window", "16", *calibration),
            *(
                "--ladder",
                "quick",
                "--mobe-steps",
                "3",
                "--fit-steps",
                "3",
                "--ratio",
                "0.4",
                "--layers",
                "0",
                "--projections",
                "up",
            ),
        ],
        "compare": ["compare", *model, *out, "--config", str(bench.home / "experiment.toml")],
    }


def _experiment(bench: Bench) -> str:
    held, calibrated = json.dumps(str(bench.held_out)), json.dumps(str(bench.calibration))
    return f"""
methods = ["tdmoe", "rtn"]
projections = "gate,up"
calibration = {{ text = {calibrated}, tokens = 64 }}
[[spectra]]
[[quality]]
texts = [{held}]
windows = 1
window = 16
[[drift]]
text = {held}
tokens = 16
window = 16
scope = "all"
"""
