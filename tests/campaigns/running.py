"""Mutated models that are run: numbers are those of transformers by itself, loaded strictly, or there is a message."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny import INDEX

from campaigns import written
from campaigns.forked import forked
from campaigns.frame import REFUSED, RIGHT, Verdict
from campaigns.mutations import WEIRD, as_text, damage_bytes, damage_json, regular
from campaigns.pico import Bench
from campaigns.tool import Fault, attempt, faults_of, learn, refused

WINDOWS, WINDOW = 2, 16
TOLERANCE = 1e-4  # of a perplexity in float32, of batches put together otherwise
EXECUTED = "executed"  # a file that code in a checkpoint would write
CODE = f"open({EXECUTED!r}, 'w').close()\nclass Model: pass\nclass Config: pass\n"


class Running:
    name, share = "running", 0.16

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        held, calibration = str(bench.held_out), str(bench.calibration)
        common = ["--model", "../model", "--out", "run", "--quiet"]
        texts = ["--texts", held, "--windows", str(WINDOWS), "--window", str(WINDOW), "--dtype", "float32"]
        drifting = ["--text", held, "--tokens", "16", "--window", str(WINDOW), "--methods", "rtn:bits=4"]
        drifting += ["--calibration-text", calibration, "--calibration-tokens", "64", "--scope", "all"]
        self.commands = {
            "quality": ["quality", *common, *texts],
            "hollow": ["quality", *common, *texts, "--memory", "20kB"],
            "calibrate": ["calibrate", *common, "--text", calibration, "--tokens", "32", "--window", str(WINDOW)],
            "drift": ["drift", *common, *drifting],
        }
        self.expected: dict[str, written.Tables] = {}

    def case(self, draw: random.Random, folder: Path) -> Verdict:
        name = draw.choice(("quality", "quality", "quality", "calibrate", "calibrate", "drift", "hollow"))
        expected = self._expected(name)
        model = folder / "model"
        shutil.copytree(self.bench.model, model)
        done = f"{name}, {draw.choice(MUTATIONS)(draw, model)}"
        ended = attempt(self.commands[name], folder / "work")
        faults, said = faults_of(ended, folder), " ".join(self.commands[name])
        if list(folder.rglob(EXECUTED)):
            faults.append(Fault("code executed", "a file of the checkpoint was run"))
        if refused(ended) or faults:
            return Verdict(done, REFUSED, faults, command=said)
        found = written.tables(folder / "work")
        if written.differences(expected, found):
            faults = [*_infinite(found), *self._judged(name, found, folder)]
        return Verdict(done, RIGHT, [Fault(f"silent {kind}", text) for kind, text in faults], command=said)

    def _expected(self, name: str) -> written.Tables:
        if name not in self.expected:
            folder = self.bench.home / f"expected-{name}-{os.getpid()}"
            folder.mkdir()
            shutil.copytree(self.bench.model, folder / "model")
            ended = learn(self.commands[name], folder / "work")
            assert ended.code == 0, f"{name}: {ended}"
            self.expected[name] = written.tables(folder / "work")
            found = self._independent(folder)
            assert not isinstance(found, str), found
            right = _perplexity(self.expected[name])
            assert right is None or math.isclose(found, right, rel_tol=TOLERANCE), f"{found} is not {right}"
            shutil.rmtree(folder)
        return self.expected[name]

    def _judged(self, name: str, found: written.Tables, folder: Path) -> list[Fault]:
        """Numbers other than the unmutated model's have to be those of the model as it is now."""
        right = self._independent(folder)
        if isinstance(right, str):
            return [Fault("wrong number", f"transformers by itself does not load it: {right}")]
        value = _perplexity(found)
        if value is not None and not math.isclose(value, right, rel_tol=TOLERANCE):
            return [Fault("wrong number", f"perplexity {value}, transformers by itself: {right}")]
        return []

    def _independent(self, folder: Path) -> float | str:
        """The perplexity by transformers alone, or why it has none."""
        answer = folder / "independent.json"
        ended = forked(lambda: _measure(folder / "model", self.bench.held_out, answer), folder, 30)
        if ended.code or not answer.exists():
            return ended.err.strip().rsplit("\n", 1)[-1][:200] or f"exit code {ended.code}"
        return float(json.loads(answer.read_text()))


def _measure(model: Path, text: Path, answer: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    ids = tokenizer(text.read_text(), add_special_tokens=False)["input_ids"][: WINDOWS * WINDOW]
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    wrong = {kind: found for kind, found in info.items() if found and kind in ("missing_keys", "mismatched_keys")}
    if wrong:
        raise ValueError(f"not strictly: {wrong}")
    loaded.eval().set_experts_implementation("eager")
    windows_WT = torch.tensor(ids).view(WINDOWS, WINDOW)
    with torch.no_grad():
        logits = loaded(windows_WT, use_cache=False).logits[:, :-1].double()
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows_WT[:, 1:].flatten())
    answer.write_text(json.dumps(float(nats.exp())))


def _perplexity(tables: written.Tables) -> float | None:
    """Of the dense model in a run of `quality`."""
    for row in tables.get("run/tables/quality.csv", ()):
        if row["metric"] == "perplexity" and row["method"] == "dense" and row["value"]:
            return float(row["value"])
    return None


def _infinite(tables: written.Tables) -> list[Fault]:
    return [
        Fault("wrong number", f"{name}: {column} is {value}")
        for name, rows in tables.items()
        for row in rows
        for column, value in row.items()
        if str(value).lower() in ("nan", "inf", "-inf")
    ][:1]


# ---- mutations -----------------------------------------------------------------------------------------------------


def _config(draw: random.Random, model: Path) -> str:
    return damage_json(draw, model / "config.json")


def _tokenizer(draw: random.Random, model: Path) -> str:
    return damage_json(draw, model / "tokenizer.json")


def _beside(draw: random.Random, model: Path) -> str:
    return damage_json(draw, model / draw.choice(("tokenizer_config.json", "generation_config.json")))


def _bytes(draw: random.Random, model: Path) -> str:
    return damage_bytes(draw, draw.choice([path for path in sorted(model.iterdir()) if regular(path)]))


def _added(draw: random.Random, model: Path) -> str:
    """A file beside the model that others read: code, templates, adapters, another index."""
    name = draw.choice(
        ("adapter_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.json")
        + ("processor_config.json", "quantization_config.json", "pytorch_model.bin", "custom.py", "tokenizer.model")
    )
    content = draw.choice(
        (b"", b"{}", b"[]", b"null", b"\xff\xfe", as_text(draw.choice(WEIRD)).encode("utf-8", "replace"))
    )
    if name == "custom.py":
        (model / "custom.py").write_text(CODE)
        config = json.loads((model / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"}
        config["model_type"] = draw.choice((config["model_type"], "mine"))
        (model / "config.json").write_text(json.dumps(config))
        return f"code of its own, model type {config['model_type']}"
    (model / name).write_bytes(content)
    return f"{name} beside it: {content[:20]!r}"


VALUES = ("not a number", "infinite", "float32", "int8", "zero", "scaled")


def _dense(draw: random.Random, model: Path) -> str:
    """A tensor outside of the experts is gone, of another shape or type, or holds what is no number."""
    paths = {name: path for path in sorted(model.glob("*.safetensors")) for name in load_file(path)}
    name = draw.choice([n for n in sorted(paths) if ".experts." not in n])
    tensors = load_file(paths[name])
    how = draw.choice(("gone", "gone", "renamed", "one row less", "one row more", "transposed", "flattened", *VALUES))
    tensor = tensors.pop(name)
    noise = torch.Generator().manual_seed(draw.randrange(2**31))
    changed = {
        "one row less": tensor[:-1],
        "one row more": torch.cat([tensor, tensor[:1]]),
        "not a number": tensor.clone().fill_(math.nan),
        "infinite": tensor.clone().fill_(math.inf),
        "float32": tensor.float() + 1e-3 * torch.randn(tensor.shape, generator=noise),
        "transposed": tensor.transpose(0, -1),
        "int8": tensor.to(torch.int8),
        "zero": torch.zeros_like(tensor),
        "scaled": tensor * draw.choice((0.5, 3.0, -1.0, 1e4)),
        "flattened": tensor.flatten(),
    }
    if how in changed:
        tensors[name] = changed[how].contiguous()
    elif how == "renamed":
        tensors[name + "x"] = tensor
    save_file(tensors, paths[name], {"format": "pt"})
    if name not in tensors and draw.random() < 0.7:
        table = json.loads((model / INDEX).read_text())
        shard = table["weight_map"].pop(name)
        if how == "renamed":
            table["weight_map"][name + "x"] = shard
        (model / INDEX).write_text(json.dumps(table))
        how += ", in the index too"
    return f"{name} {how}"


MUTATIONS = (_config, _config, _config, _tokenizer, _tokenizer, _beside, _bytes, _added, _dense, _dense, _dense)
