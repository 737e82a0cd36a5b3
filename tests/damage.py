"""What can be wrong with a checkpoint: each damage is a function of its folder. And what a refusal must look like."""

import hashlib
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tiny import (
    INDEX,
    read_json,
    read_tensors,
    write_checkpoint,
    write_json,
    write_shard,
)
from torch import Tensor

SHARDS = 3
SHARD = "model-{}-of-00003.safetensors"
FIRST, SECOND, THIRD = (SHARD.format(f"{i:05d}") for i in (1, 2, 3))
EXPERT = "model.layers.{}.mlp.experts.{}.{}_proj.weight"
GATE = EXPERT.format(1, 0, "gate")
# Every message must also say what to do, or at least what would have been right.
REMEDY = re.compile(
    r"\b(download|check|correct|keep|run|give|use|write|[Cc]onvert|needs?|needed|implies|supported|readable|see|must|"
    r"it has|like|lower|calibrate|works)\b"
)
SECONDS = 8  # a refusal reads headers only

Damage = Callable[[Path], object]


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Case(NamedTuple):
    """`damage` is done to a good checkpoint in three shards; `message` must be found on stderr."""

    id: str
    damage: Damage
    message: str
    options: tuple[str, ...] = ()


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Fails the test instead of hanging it: absurd numbers in a file must not become loops or memory."""

    def stop(*_: object) -> None:
        raise AssertionError(f"no answer after {seconds} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refuses(result: Result, message: str, out: Path) -> None:
    """Exit code 2, the message in one piece on stderr with a remedy, nothing on stdout, nothing in `out`."""
    assert result.code == 2, result
    assert re.search(message, result.err, re.DOTALL), result.err
    assert REMEDY.search(result.err), f"no way out is named: {result.err}"
    assert result.err.startswith("tdmoe-diag: ") and result.err.count("\n") == 1
    assert result.out == ""
    assert not out.exists() and not any(Path.cwd().iterdir())


def config(**fields: Any) -> Damage:
    return lambda folder: write_json(folder / "config.json", read_json(folder / "config.json") | fields)


def without(field: str) -> Damage:
    def change(folder: Path) -> None:
        write_json(folder / "config.json", {k: v for k, v in read_json(folder / "config.json").items() if k != field})

    return change


def text(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def delete(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Damage:
    """Rewrites the shards with a changed table of tensors."""

    def rewrite(folder: Path) -> None:
        table = read_tensors(folder)
        change(table)
        settings = read_json(folder / "config.json")
        write_checkpoint(folder, settings, table, SHARDS)

    return rewrite


def put(name: str, make: Callable[[Tensor], Tensor]) -> Damage:
    return tensors(lambda table: table.update({name: make(table[name])}))


def as_fp8(table: dict[str, Tensor]) -> None:
    """Every expert weight as FP8, without its scales."""
    table.update({name: t.to(torch.float8_e4m3fn) for name, t in table.items() if ".experts." in name})


def drop(pattern: str) -> Damage:
    return tensors(lambda table: [table.pop(name) for name in list(table) if re.search(pattern, name)])


def add(name: str, *shape: int) -> Damage:
    return tensors(lambda table: table.update({name: torch.zeros(shape, dtype=torch.bfloat16)}))


def index(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Edits the index; `change` gets it as a table."""

    def rewrite(folder: Path) -> None:
        table = read_json(folder / INDEX)
        change(table)
        write_json(folder / INDEX, table)

    return rewrite


def mapped(name: str, shard: object) -> Damage:
    return index(lambda table: table["weight_map"].update({name: shard}))


def unmapped(shard: str) -> Damage:
    """The index no longer names `shard`; the file stays."""

    def change(table: dict[str, Any]) -> None:
        table["weight_map"] = {k: v for k, v in table["weight_map"].items() if v != shard}

    return index(change)


def unnamed(part: str) -> Damage:
    """The index no longer names any tensor with `part` in its name."""

    def change(table: dict[str, Any]) -> None:
        table["weight_map"] = {k: v for k, v in table["weight_map"].items() if part not in k}

    return index(change)


def cut(name: str, count: int) -> Damage:
    """The last `count` bytes are lost; for a negative count, as many are added."""

    def change(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[:-count] if count > 0 else raw + bytes(-count))

    return change


def header(content: Any, data: bytes = b"", length: int | None = None) -> Damage:
    return lambda folder: write_shard(folder / SECOND, content, data, length)


def entry(begin: int, end: int, shape: tuple[Any, ...] = (4,), dtype: str = "BF16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def signed(result: dict[str, Any]) -> dict[str, Any]:
    """A job's result with the SHA-256 that belongs to what it says."""
    rest = {name: value for name, value in result.items() if name != "sha256"}
    return rest | {"sha256": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def replace_weights(name: str) -> Damage:
    """All safetensors and the index give way to one file that must not be opened."""

    def change(folder: Path) -> None:
        for path in folder.glob("model*"):
            path.unlink()
        (folder / name).write_bytes(b"\x80\x04.")

    return change


def mxfp4_without_scales(folder: Path) -> None:
    settings = {"model_type": "gpt_oss", "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32}
    table = {}
    for projection, rows in (("gate_up", 64), ("down", 32)):
        prefix = f"model.layers.0.mlp.experts.{projection}_proj"
        table[f"{prefix}_blocks"] = torch.zeros(4, rows, 1, 16, dtype=torch.uint8)
        table[f"{prefix}_bias"] = torch.zeros(4, rows, dtype=torch.bfloat16)
    shutil.rmtree(folder)
    write_checkpoint(folder, settings | {"num_local_experts": 4}, table)


def fused(experts_on_disk: int, **fields: int) -> Damage:
    """The fused layout of transformers 5, where the number of experts is a dimension and not a count of names."""

    def change(folder: Path) -> None:
        settings = read_json(folder / "config.json") | fields
        table = {}
        for layer in (1, 2):
            prefix = f"model.layers.{layer}.mlp.experts."
            table[prefix + "gate_up_proj"] = torch.zeros(experts_on_disk, 12, 8, dtype=torch.bfloat16)
            table[prefix + "down_proj"] = torch.zeros(experts_on_disk, 8, 6, dtype=torch.bfloat16)
        shutil.rmtree(folder)
        write_checkpoint(folder, settings, table)

    return change
