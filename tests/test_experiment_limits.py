"""A file of `compare` is refused whatever the commands' own flags refuse, before anything runs, key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zoo
from damage import REMEDY, Result
from test_superweights import TEXT, write_tokenizer
from tiny import single_thread

from diag.declare.probe import probes
from diag.declare.setting import declared
from diag.experiment.experiment import Calibration, Experiment

WHOLE = "[[quality]]\ntexts = ['b.txt']\nwindow = 32\n"  # a part for what belongs to the whole experiment
SMALL = {
    "calibration": "",
    "superweights": "text = 'a.txt'\neval_text = 'b.txt'\nwindow = 32\ntokens = 96\n",
    "quality": "texts = ['b.txt']\nwindow = 32\n",
    "drift": "text = 'b.txt'\nwindow = 32\ntokens = 96\n",
    "attribution": "text = 'b.txt'\nwindow = 16\nwindows = 8\n",
    "injection": "text = 'b.txt'\nwindow = 32\ntokens = 96\n",
}
# Of every key what no flag takes; a pair is a value and what else has to be said with it.
BAD: dict[str, dict[str, list[Any]]] = {
    "": {
        "model": [3, "nowhere"],
        "ratios": [[], [0.4, 1.0], [-0.4], [float("nan")], 0.4],
        "methods": [[], ["mobi"], ["rtn:bits=99"]],
        "projections": ["", "gate,dawn"],
        "layers": ["1", "x", 0],
        "schedule": ["middle-out:9", "outwards"],
        "task_data": [True],
        "device": ["gpu", "cuda:99"],
        "memory": ["much", "0", "-1GB", 4],
        "engine": ["rai"],
        "seed": [-1, 1.0, 2**64],
        "revision": [1],
    },
    "calibration": {"text": ["nowhere.txt", "b.txt"], "tokens": [0, -5, 3, 1.5]},
    "spectra": {"fit_range": ["1:0", "-1:1"], "jackknife": [-1, 1, 99, 10**30]},
    "operator": {
        "ranks": [[0.0], [1.5], [-0.5]],
        "methods": [["mobi"], ["tdmoe:gate_up=joint"]],
        "ratios": [[0.4, 2.0], [-1.0]],
        "per_expert": [1],
    },
    "superweights": {
        "prompt": [""],
        "text": ["nowhere.txt"],
        "tokens": [0, -1, 5],
        "window": [-1, 1, 65],
        "threshold": [-1.0, float("inf"), float("nan")],
        "most": [0, -1],
        "entries": [0, -3],
        "ranks": [1, -2],
        "control_layer": [-2, 99],
        "methods": [["mobi"]],
        "ratios": [[-0.2], [2.0]],
        "eval_text": ["a.txt"],
        "eval_windows": [0, -1],
        "draws": [-1],
    },
    "experts": {
        "ratios": [[1.0], [-0.2]],
        "whitening": ["output"],
        "jackknife": [-1, 1],
        "directions": [0.0, -0.1, 0.6, float("nan")],
        "draws": [0, -4],
    },
    "quality": {
        "texts": [[], ["nowhere.txt"]],
        "windows": [-1],
        "window": [-1, 65],
        "stride": [-1, 33],
        "join": ["lines"],
        "bos": ["everywhere"],
        "tasks": [["no_such_task"]],
        "limit": [-1],
        "dtype": ["int8"],
        "methods": [["mobi"]],
        "ratios": [[-0.4], [1.0]],
    },
    "drift": {
        "text": ["nowhere.txt"],
        "tokens": [0, -1, 5],
        "window": [-1, 65],
        "scope": ["two"],
        "dtype": ["int8"],
        "methods": [["mobi"]],
        "ratios": [[-0.4], [1.0]],
    },
    "attribution": {
        "ratio": [-0.4, 1.0, float("nan")],
        "ladder": ["half"],
        "shapley": ["-1", "some"],
        "mobe_steps": [0, -1],
        "fit_steps": [-1],
        "text": ["nowhere.txt", "a.txt"],
        "windows": [-1, 1],
        "window": [-1, 65],
        "dtype": ["int8"],
    },
    "injection": {
        "designs": ["nuclear"],
        "families": ["round"],
        "methods": [["mobi"]],
        "ratio": [-0.4, 1.0],
        "sizes": [[-0.1], [0.0], [float("nan")]],
        "seeds": [0, -1],
        "scopes": ["two"],
        "alone": ["1"],
        "apart": [1],
        "text": ["nowhere.txt", "a.txt"],
        "tokens": [0, -1, 5],
        "window": [0, 65],
    },
}
CASES = [(table, key, value) for table, keys in BAD.items() for key, values in keys.items() for value in values]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a pico Qwen3-MoE and two texts."""
    home = tmp_path_factory.mktemp("limits")
    zoo.save(zoo.build(zoo.FAMILIES["qwen3_moe"], torch.float32), home / "pico", fused=False)
    write_tokenizer(home / "pico")
    for name, text in (("a", TEXT), ("b", TEXT[::-1])):
        (home / f"{name}.txt").write_text(text * 8)
    with single_thread():
        yield home


def toml_value(value: Any) -> str:
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


def written(table: str, key: str, value: Any) -> str:
    """The experiment with this entry."""
    top = {"model": "'pico'", "methods": "['rtn']", "projections": "'gate,up'"}
    if not table:
        top[key] = toml_value(value)
    calibration = {"text": "'a.txt'", "tokens": "128"} | ({key: toml_value(value)} if table == "calibration" else {})
    methods = "methods = ['svd_llm']\n" if table == "calibration" else ""
    found = [f"{name} = {said}" for name, said in top.items()]
    found += ["[calibration]", *(f"{name} = {said}" for name, said in calibration.items())]
    if table in ("", "calibration"):
        return "\n".join(found) + "\n" + WHOLE + methods
    lines = [line for line in SMALL.get(table, "").splitlines() if line.partition(" ")[0] != key]
    return "\n".join([*found, f"[{table}]", *lines, f"{key} = {toml_value(value)}"]) + "\n"


@pytest.mark.parametrize(("table", "key", "value"), CASES)
def test_what_no_flag_takes_no_file_says(
    tool: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch, table: str, key: str, value: Any
) -> None:
    monkeypatch.chdir(home)
    # the real one reads thousands of files
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda: SimpleNamespace(all_subtasks=["piqa"]))
    (home / "bad.toml").write_text(written(table, key, value))
    before = set(home.rglob("*"))
    result = tool("compare", "--config", "bad.toml")
    assert (result.code, result.out) == (2, "") and set(home.rglob("*")) == before
    assert result.err.startswith("tdmoe-diag: --config bad.toml: ") and result.err.count("\n") == 1, result.err
    assert REMEDY.search(result.err) or re.search(r"\b(evaluate on|leave)\b", result.err), result.err
    flag = key.replace("_", "-")
    named = rf"\b{table}\.{key}\b" if table else rf"bad.toml: {key}\b"
    flag = flag.replace("-", "[-_]")
    by_plan = rf"({table}|quality): .*\b({flag}s?|{flag.removesuffix('s')}|{flag.removeprefix('eval[-_]')})\b"
    assert re.search(f"{named}|{by_plan}|bad.toml: --{flag.removesuffix('s')}", result.err), result.err
    if isinstance(value, int | float) and not isinstance(value, bool):
        assert re.search(rf"{value}\b|{value:g}\b", result.err), result.err


def test_every_key_is_tried() -> None:
    kinds = {"": Experiment, "calibration": Calibration, **{name: probe.settings for name, probe in probes().items()}}
    settings = {name: declared(kind) for name, kind in kinds.items()}
    known = {name: {n for n, each in found.items() if not each.declared.shared} for name, found in settings.items()}
    assert {name: set(keys) for name, keys in BAD.items()} == known


FLAGS = [
    (table, key, values[0])
    for table, keys in BAD.items()
    for key, values in keys.items()
    if table in probes() and type(values[0]) in (int, float) and key not in ("per_expert", "apart")
]


@pytest.mark.parametrize(("table", "key", "value"), FLAGS)
def test_the_flags_themselves_refuse_it(
    tool: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch, table: str, key: str, value: Any
) -> None:
    monkeypatch.chdir(home)
    said = dict(line.split(" = ") for line in SMALL.get(table, "").splitlines())
    said = {name: text.strip("[]").strip("'") for name, text in said.items()} | {key: str(value)}
    options = [f"--{name.replace('_', '-')}={text}" for name, text in said.items()]
    result = tool(table, "--model", "pico", *options, "--quiet")
    assert result.code == 2 and not (home / "runs").exists()
