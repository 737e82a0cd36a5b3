"""Mutated checkpoints, and what their tensors say through the safetensors library alone.

Where a command ends with numbers, an unmutated checkpoint of the tensors that are really there must give the same ones.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tiny import INDEX, write_checkpoint
from torch import Tensor

from campaigns import written
from campaigns.frame import REFUSED, RIGHT, Verdict
from campaigns.mutations import WEIRD, as_text, changed_json, damage_bytes, damage_json
from campaigns.pico import Bench, fused_pico
from campaigns.tool import Fault, attempt, faults_of, learn, refused

LAYERS, PROJECTIONS = (0, 2), ("gate", "up", "down")
DTYPES = ("F16", "F32", "F64", "F8_E4M3", "U8", "I64", "BOOL", "I32", "C64", "BF17", "", "bf16", 3, None, [])
Named = dict[str, Tensor]


class Checkpoints:
    name, share = "checkpoints", 0.24

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        fused = bench.home / f"fused-{os.getpid()}"
        self.originals = {"original": bench.model, "fused": fused_pico(fused)}
        self.tensors = {name: _all_tensors(folder) for name, folder in self.originals.items()}
        self.expected: dict[tuple[str, ...], written.Tables] = {}

    def case(self, draw: random.Random, folder: Path) -> Verdict:
        layout = draw.choice(("original", "original", "fused"))
        model = folder / "model"
        shutil.copytree(self.originals[layout], model)
        layer, projection = draw.choice(LAYERS), draw.choice(PROJECTIONS)
        arguments = draw.choice((_spectra, _spectra, _spectra, _compress, _models))(layer, projection)
        expected = self._expected(layout, arguments)
        done = f"{layout}, {draw.choice(MUTATIONS)(draw, model)}"
        ended = attempt(arguments, folder / "work")
        faults = faults_of(ended, folder)
        said = " ".join(arguments)
        if refused(ended) or faults:
            return Verdict(done, REFUSED, faults, command=said)
        found = written.tables(folder / "work")
        true = _read(model, _names(layout, layer, projection))
        own = {name: self.tensors[layout][name] for name in _names(layout, layer, projection)}
        same = true is not None and _equal(true, own)
        if arguments[0] == "models":
            return Verdict(done, RIGHT, command=said)
        wrong = written.differences(expected, found)
        if true is None:
            # what cannot be read by others may be of no concern here, but then the numbers are the old ones
            faults = wrong
        elif same:
            faults = wrong
        else:
            faults = self._beside(layout, true, arguments, found, folder)
        if arguments[0] == "compress" and not faults:
            faults = _copied(model, folder / "work" / "small", self.tensors[layout])
        faults = [Fault(f"silent {kind}", text) for kind, text in faults]
        return Verdict(done, RIGHT, faults, command=said)

    def _expected(self, layout: str, arguments: list[str]) -> written.Tables:
        key = (layout, *arguments)
        if key not in self.expected:
            folder = self.bench.home / f"expected-{os.getpid()}-{len(self.expected)}"
            folder.mkdir()
            shutil.copytree(self.originals[layout], folder / "model")
            ended = learn(arguments, folder / "work")
            assert ended.code == 0, f"{arguments}: {ended}"
            self.expected[key] = written.tables(folder / "work")
            shutil.rmtree(folder)
        return self.expected[key]

    def _beside(
        self, layout: str, true: Named, arguments: list[str], found: written.Tables, folder: Path
    ) -> list[Fault]:
        """Against a whole checkpoint of the same tensors, which must give the same numbers."""
        twin = folder / "twin" / "model"
        config = json.loads((self.originals[layout] / "config.json").read_text())
        write_checkpoint(twin, config, self.tensors[layout] | true)
        ended = attempt(arguments, folder / "twin" / "work")
        if ended.code:
            return [Fault("wrong number", f"the same tensors, written anew, are refused: {ended.err.strip()[-200:]}")]
        return written.differences(written.tables(folder / "twin" / "work"), found)


def _spectra(layer: int, projection: str) -> list[str]:
    chosen = ["--layers", str(layer), "--projections", projection]
    return ["spectra", "--model", "../model", "--out", "run", "--quiet", *chosen]


def _compress(layer: int, projection: str) -> list[str]:
    chosen = ["--layers", str(layer), "--projections", projection, "--method", "rtn:bits=4", "--tokens", "0"]
    return ["compress", "--model", "../model", "--out", "run", "--quiet", "--to", "small", *chosen]


def _models(layer: int, projection: str) -> list[str]:
    return ["models", "--model", "../model"]


def _names(layout: str, layer: int, projection: str) -> list[str]:
    prefix = f"model.layers.{layer}.mlp.experts."
    if layout == "original":
        return [f"{prefix}{e}.{projection}_proj.weight" for e in range(7)]
    return [prefix + ("down_proj" if projection == "down" else "gate_up_proj")]


def _all_tensors(folder: Path) -> Named:
    found: Named = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    return found


def _read(folder: Path, names: list[str]) -> Named | None:
    """These tensors as index and library say; None where one cannot be read so."""
    try:
        index = folder / INDEX
        shards = json.loads(index.read_bytes())["weight_map"] if index.is_file() else {}
        found = {}
        for name in names:
            path = folder / shards.get(name, "model.safetensors")
            if not path.is_file():
                return None
            with safe_open(path, "pt") as file:
                found[name] = file.get_tensor(name)
    except Exception:  # the library's own errors share no base; a mutated index holds anything
        return None
    return found


def _equal(some: Named, others: Named) -> bool:
    """Bit for bit, so that NaN is itself."""
    return all(
        some[name].dtype == tensor.dtype
        and some[name].shape == tensor.shape
        and torch.equal(some[name].contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8))
        for name, tensor in others.items()
    )


def _copied(model: Path, small: Path, original: Named) -> list[Fault]:
    """What a compressed checkpoint holds under a name of the original is the original's tensor, where that is known."""
    try:
        stored = _all_tensors(small)
    except Exception as error:
        return [Fault("wrong number", f"--to cannot be read: {error}")]
    wrong = []
    for name in [name for name in stored if ".experts." not in name]:
        true = _read(model, [name]) or {known: tensor for known, tensor in original.items() if known == name}
        if true and not _equal(true, {name: stored[name]}):
            wrong.append(name)
    return [Fault("wrong number", f"copied otherwise than it is: {', '.join(wrong[:3])}")] if wrong else []


# ---- mutations: each changes the checkpoint, and says how --------------------------------------------------------


def _shard(draw: random.Random, model: Path) -> Path:
    return draw.choice(sorted(model.glob("*.safetensors")))


def _file(draw: random.Random, model: Path) -> str:
    files = [path for path in sorted(model.iterdir()) if "tokenizer" not in path.name]
    return damage_bytes(draw, draw.choice(files))


def _config(draw: random.Random, model: Path) -> str:
    return damage_json(draw, model / "config.json")


def _index(draw: random.Random, model: Path) -> str:
    path = model / INDEX
    if not path.exists():
        return _header(draw, model)
    if draw.random() < 0.4:
        return damage_json(draw, path)
    table = json.loads(path.read_text())
    name = draw.choice(sorted(table["weight_map"]))
    shards = sorted(set(table["weight_map"].values()))
    table["weight_map"][name] = draw.choice([*shards, "gone.safetensors", "../model/" + shards[0], *WEIRD])
    path.write_bytes(as_text(table).encode("utf-8", "surrogatepass"))
    return f"index: {name} in {str(table['weight_map'][name])[:40]!r}"


def _swap(draw: random.Random, model: Path) -> str:
    first, second = _shard(draw, model), _shard(draw, model)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    return f"{first.name} and {second.name} exchanged"


def _header(draw: random.Random, model: Path) -> str:
    """Something in the header of a shard, which a whole tensor's bytes follow as before."""
    path = _shard(draw, model)
    header, data = _parts(path)
    name = draw.choice([entry for entry in header if entry != "__metadata__"])
    entry = header[name]
    how = draw.choice(
        ("dtype", "shape", "shape", "shape", "offsets", "offsets", "any", "rename", "order", "length", "extra")
    )
    said: bytes | None = None
    length: int | None = None
    what = f"{name} {how}"
    if how == "dtype":
        entry["dtype"] = draw.choice(DTYPES)
        what += f" {entry['dtype']!r}"
    elif how == "shape":
        shape = entry["shape"]
        entry["shape"] = draw.choice(
            [shape[::-1], [*shape, 1], [1, *shape], shape[1:], [-n for n in shape], [str(n) for n in shape]]
            + [[float(n) for n in shape], [n * 2 for n in shape], [2**62, 2**62], [], "x", None, [[n] for n in shape]]
            + [[shape[0] * shape[-1]], [0], [True] * len(shape), {"0": 1}]
        )
        what += f" {entry['shape']!r}"
    elif how == "offsets":
        begin, end = entry["data_offsets"]
        other = header[draw.choice([n for n in header if n != "__metadata__"])]["data_offsets"]
        entry["data_offsets"] = draw.choice(
            ([end, begin], [begin + 2, end + 2], [begin, end + 2], [begin - 2, end], other, [begin], [str(begin), end])
            + ([float(begin), float(end)], [-1, end], [begin, 2**63], None, [begin, begin], [0, end - begin])
        )
        what += f" {entry['data_offsets']!r}"
    elif how == "any":
        header, what = changed_json(draw, header)
    elif how == "rename":
        header[draw.choice((name + "x", name.replace("0", "1"), name.replace(".", "_"), "", "__metadata__"))] = (
            header.pop(name)
        )
    elif how == "order":
        names = list(header)
        draw.shuffle(names)
        header = {n: header[n] for n in names}
        said = json.dumps(header, indent=draw.choice((None, 1))).encode() + b" " * draw.randrange(20)
    elif how == "length":
        length = draw.choice((0, 1, 7, 2**20, 2**31, 2**63, 2**64 - 1, len(json.dumps(header)) - 1, 100_000_001))
        what = f"{path.name}: header of {length} bytes"
    else:
        header[draw.choice(("extra", "model.layers.0.mlp.experts.7.up_proj.weight", "__metadata__"))] = draw.choice(
            (entry, {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}, *WEIRD)
        )
    raw = as_text(header).encode("utf-8", "surrogatepass") if said is None else said
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return f"header: {what}"


def _parts(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def _value(draw: random.Random, model: Path) -> str:
    """A value of a tensor, in place."""
    path = _shard(draw, model)
    header, data = _parts(path)
    name = draw.choice([n for n in header if ".experts." in n] or [n for n in header if n != "__metadata__"])
    begin, end = header[name]["data_offsets"]
    at = begin + 2 * draw.randrange((end - begin) // 2)
    value = draw.choice((0x7FC0, 0x7F80, 0xFF80, 0x7F7F, 0x0001, 0x0000, 0x8000, draw.randrange(65536)))
    changed = bytearray(data)
    changed[at : at + 2] = struct.pack("<H", value)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) - len(data)] + bytes(changed))
    return f"{name}: bits {value:04x} at {(at - begin) // 2}"


def _rewritten(draw: random.Random, model: Path) -> str:
    """A whole tensor of the model is another one, in files that are as good as before."""
    index = model / INDEX
    tensors = _all_tensors(model)
    name = draw.choice([n for n in sorted(tensors) if ".experts." in n])
    tensor = tensors[name]
    noise = torch.Generator().manual_seed(draw.randrange(2**31))
    changes: dict[str, Callable[[], Tensor | None]] = {
        "gone": lambda: None,
        "float32": lambda: tensor.float(),
        "float16": lambda: tensor.half(),
        "float64": lambda: tensor.double(),
        "int8": lambda: (10 * tensor).to(torch.int8),
        "FP8": lambda: tensor.to(torch.float8_e4m3fn),
        "zero": lambda: torch.zeros_like(tensor),
        "one row less": lambda: tensor[:-1],
        "transposed": lambda: tensor.transpose(-1, -2),
        "flattened": lambda: tensor.flatten(),
        "huge": lambda: tensor * 1e38,
        "tiny": lambda: tensor * 1e-38,
        "random": lambda: torch.randn(tensor.shape, generator=noise).to(tensor.dtype),
        "empty": lambda: tensor[:0],
    }
    how = draw.choice(list(changes))
    changed = changes[how]()
    if changed is None:
        del tensors[name]
    else:
        tensors[name] = changed
    config = json.loads((model / "config.json").read_text())
    for path in [*model.glob("*.safetensors"), *([index] if index.exists() else [])]:
        path.unlink()
    write_checkpoint(model, config, tensors, draw.choice((1, 2, 5)))
    return f"{name} {how}"


MUTATIONS = (_file, _file, _config, _config, _index, _swap, _header, _header, _header, _value, _value, _rewritten)
