"""The models, texts and experiments that cases read, made in code and the same every time.

qwen3    Qwen3-MoE, bf16, an expert a tensor, the middle layer dense
gpt_oss  GPT-OSS, bf16, all experts of a layer in one tensor, input-major, gate and up interleaved
fp8      DeepSeek-V3, FP8 in blocks, the first layer dense
Those that are refused: `empty` of files, `cut` in a shard, `lacking` a tensor, with a `nan`, `dense` without experts.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from campaigns.pico import pico, text, with_letters
from test_quantised import deepseek
from tiny import read_json, read_tensors, write_checkpoint, write_json
from torch import Tensor
from zoo import FAMILIES, build, save

HERE = Path(__file__).parent
LICENSE = HERE.parents[1] / "LICENSE"  # English that nobody edits
EXPERT = "model.layers.2.mlp.experts.3.up_proj.weight"

EXPERIMENT = """
model = "../qwen3"
ratios = [0.4]
methods = ["tdmoe", "mobe:steps=3", "svd_llm", "rtn:bits=3", "identity"]
projections = "gate,up"

[calibration]
text = "../calibration.txt"
tokens = 256

[spectra]

[operator]
ranks = [0.5]
methods = ["tdmoe", "rtn"]

[superweights]
text = "../calibration.txt"
eval_text = "../held-out.txt"
tokens = 64
window = 16
threshold = 0.5
most = 2
entries = 4
ranks = 3
eval_windows = 2
draws = 1

[experts]
jackknife = 2
draws = 1

[[quality]]
texts = ["../held-out.txt"]
window = 16
windows = 4

[[quality]]
texts = ["../other.txt"]
window = 16
windows = 2
methods = ["svd_llm", "rtn:bits=3"]

[drift]
text = "../held-out.txt"
tokens = 64
window = 16
scope = "all"

[attribution]
text = "../held-out.txt"
ladder = "quick"
windows = 8
window = 16
mobe_steps = 3
fit_steps = 3

[injection]
text = "../held-out.txt"
tokens = 32
window = 16
families = "flat,along"
methods = ["rtn"]
seeds = 1
scopes = "all"
"""

SMALL = """
model = "../qwen3"

[[quality]]
texts = ["../held-out.txt"]
window = 16
windows = 2
"""


def make(home: Path) -> None:
    """All of it into that empty folder."""
    pico(home / "qwen3")
    with_letters(save(build(FAMILIES["gpt_oss"]), home / "gpt_oss", fused=True))
    _fp8(home)
    for name, seed in (("held-out", 1), ("calibration", 2), ("other", 3)):
        text(home / f"{name}.txt", seed)
    english = LICENSE.read_text(encoding="utf-8")
    (home / "english.txt").write_text(english[: len(english) // 2], encoding="utf-8")
    (home / "prose.txt").write_text(english[len(english) // 2 :], encoding="utf-8")
    (home / "experiment.toml").write_text(EXPERIMENT, encoding="utf-8")
    (home / "small.toml").write_text(SMALL, encoding="utf-8")
    (home / "metods.toml").write_text('model = "../qwen3"\nmetods = ["svd"]\n', encoding="utf-8")
    shutil.copytree(HERE.parent / "data" / "tasks", home / "tasks")
    _refused(home)


def _fp8(home: Path) -> None:
    made, _ = deepseek(home / "made")
    with_letters(made.rename(home / "fp8"))
    shutil.rmtree(home / "made")


def _refused(home: Path) -> None:
    (home / "empty").mkdir()
    for name in ("cut", "lacking", "nan", "dense"):
        shutil.copytree(home / "qwen3", home / name)
    shard = min((home / "cut").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-100])
    _changed(home / "lacking", lambda tensors: tensors.pop(EXPERT))
    _changed(home / "nan", lambda tensors: tensors[EXPERT].view(-1)[7].fill_(float("nan")))
    llama = {"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 24}
    write_json(home / "dense" / "config.json", llama)


def _changed(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in read_tensors(folder).items()}
    change(tensors)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    with torch.no_grad():
        write_checkpoint(folder, read_json(folder / "config.json"), tensors, shards=3)
