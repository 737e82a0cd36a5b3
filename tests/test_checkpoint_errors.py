"""Bad input ends with one message that names the culprit and the way out, exit code 2, and nothing written.

Every case damages a good checkpoint, or one option, and goes through the real command line.
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny import (
    INDEX,
    plain_checkpoint,
    read_json,
    read_tensors,
    single_thread,
    write_checkpoint,
    write_json,
    write_shard,
)
from torch import Tensor

from diag import cli
from tdmoe.checkpoint import Checkpoint
from tdmoe.families import architecture
from tdmoe.problems import WeightError
from tdmoe.stack import open_stack

SHARDS = 3
SHARD = "model-{}-of-00003.safetensors"
FIRST, SECOND, THIRD = (SHARD.format(f"{i:05d}") for i in (1, 2, 3))
EXPERT = "model.layers.{}.mlp.experts.{}.{}_proj.weight"
GATE = EXPERT.format(1, 0, "gate")
# Every message must also say what to do, or at least what would have been right.
REMEDY = re.compile(
    r"\b(download|check|correct|keep|run|give|use|write|[Cc]onvert|needs?|needed|implies|supported|readable|see|must|"
    r"it has|like)\b"
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


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """`tdmoe-diag spectra ARGS` in this process, in an empty working folder, without a network."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def command(*arguments: object) -> Result:
        monkeypatch.setattr("sys.argv", ["tdmoe-diag", "spectra", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Result(int(end.value.code or 0), out, err)

    return command


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, tensors = plain_checkpoint()
    return write_checkpoint(tmp_path_factory.mktemp("good") / "model", config, tensors, SHARDS)


@pytest.fixture
def model(good: Path, tmp_path: Path) -> Path:
    """A copy to damage. Shards: layer 0 and expert 0 of layer 1; the rest of layer 1; layer 2 but for one tensor."""
    return Path(shutil.copytree(good, tmp_path / "model"))


def refuses(result: Result, message: str, out: Path) -> None:
    """Exit code 2, the message in one piece on stderr with a remedy, nothing on stdout, nothing in `out`."""
    assert result.code == 2, result
    assert re.search(message, result.err, re.DOTALL), result.err
    assert REMEDY.search(result.err), f"no way out is named: {result.err}"
    assert result.err.startswith("tdmoe-diag: ") and result.err.count("\n") == 1
    assert result.out == ""
    assert not out.exists() and not any(Path.cwd().iterdir())


# Damages


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


def replace_weights(name: str) -> Damage:
    """All safetensors and the index give way to one file that must not be opened."""

    def change(folder: Path) -> None:
        for path in folder.glob("model*"):
            path.unlink()
        (folder / name).write_bytes(b"\x80\x04.")

    return change


def gpt_oss_mxfp4(folder: Path) -> None:
    settings = {"model_type": "gpt_oss", "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32}
    table = {}
    for projection, rows in (("gate_up", 64), ("down", 32)):
        prefix = f"model.layers.0.mlp.experts.{projection}_proj"
        table[f"{prefix}_blocks"] = torch.zeros(4, rows, 1, 16, dtype=torch.uint8)
        table[f"{prefix}_scales"] = torch.zeros(4, rows, 1, dtype=torch.uint8)
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


NUMBER = r"config\.json: {} is {}, a positive whole number is needed"
EXPERT_FIELDS = "num_experts / num_local_experts / n_routed_experts"
HUGE = 1_000_000_000

CONFIG_CASES = [
    Case("family unknown", config(model_type="llama"), r"config\.json: model_type is 'llama'; supported are .*mixtral"),
    Case("family missing", without("model_type"), r"config\.json: model_type is None; supported are .*qwen3_moe"),
    Case("family a list", config(model_type=["mixtral"]), r"config\.json: model_type is \['mixtral'\]; supported are"),
    Case("no config", delete("config.json"), r"model: has no config\.json; --model needs a Hugging Face checkpoint"),
    Case(
        "not JSON", text("config.json", "{'a': 1}"), r"config\.json: cannot be read as JSON \(.*\); download it again"
    ),
    Case("empty", text("config.json", ""), r"config\.json: cannot be read as JSON \(.*\); download it again"),
    Case("not UTF-8", text("config.json", b"\xff\xfe{}"), r"config\.json: cannot be read as JSON .*download it again"),
    Case("deep", text("config.json", "[" * 100_000), r"config\.json: cannot be read as JSON .*download it again"),
    Case("a list", text("config.json", "[1]"), r"config\.json: holds a JSON list, not an object; download it again"),
    Case("null", text("config.json", "null"), r"config\.json: holds a JSON NoneType, not an object; download"),
    Case(
        "no num_experts",
        without("num_experts"),
        r"config\.json: has none of num_experts, num_local_experts, n_routed_experts; one of them is needed",
    ),
    *(
        Case(f"no {field}", without(field), rf"config\.json: .*{field}.* needed")
        for field in ("num_hidden_layers", "hidden_size", "moe_intermediate_size")
    ),
    *(
        Case(f"num_experts {value!r}", config(num_experts=value), NUMBER.format(EXPERT_FIELDS, re.escape(repr(value))))
        for value in (0, -1, "6", True, 3.0, 1e9, [3], {"a": 3})
    ),
    *(
        Case(f"{field} {value!r}", config(**{field: value}), NUMBER.format(field, re.escape(repr(value))))
        for field in ("num_hidden_layers", "hidden_size", "moe_intermediate_size", "decoder_sparse_step")
        for value in (-1, "6", True)
    ),
    Case("num_experts 10^9", config(num_experts=HUGE), r"num_experts .* is 1000000000, the limit is 10,000"),
    Case("num_experts 10^9, fused", fused(3, num_experts=HUGE), r"num_experts .* the limit is 10,000"),
    Case("num_hidden_layers 10^9", config(num_hidden_layers=HUGE), r"num_hidden_layers is .* the limit is 10,000"),
    Case("hidden_size 10^9", config(hidden_size=HUGE), rf"hidden_size is {HUGE}, the limit is 1,000,000"),
    Case("width 10^9", config(moe_intermediate_size=HUGE), rf"moe_intermediate_size is {HUGE}, the limit is 1,000,000"),
    Case(
        "mlp_only_layers 1", config(mlp_only_layers=1), r"config\.json: mlp_only_layers is 1, a list of layer numbers"
    ),
    Case("no MoE layer", config(mlp_only_layers=[0, 1, 2]), r"config\.json: no layer is a Mixture-of-Experts layer"),
    Case("spellings", config(num_local_experts=4), r"num_experts = 3 and num_local_experts = 4 disagree; keep one"),
]

TENSOR_CASES = [
    Case(
        "expert lost",
        drop(re.escape(EXPERT.format(2, 1, "up"))),
        rf"{re.escape(EXPERT.format(2, 1, 'up'))}' is missing from the checkpoint",
    ),
    Case("last expert lost", drop(r"layers\.2\..*experts\.2\."), r"layers\.2\.mlp\.experts\.2\.gate.*' is missing"),
    Case("down lost", drop(r"layers\.1\..*down"), rf"{re.escape(EXPERT.format(1, 0, 'down'))}' is missing"),
    Case("config counts too many", config(num_experts=4), rf"{re.escape(EXPERT.format(1, 3, 'gate'))}' is missing"),
    Case("config counts too few", config(num_experts=2), r"config\.json: 2 experts, but layer 1 holds expert 2 too"),
    Case("extra expert", add(EXPERT.format(2, 3, "up"), 6, 8), r"3 experts, but layer 2 holds expert 3 too"),
    Case("dense layer", add(EXPERT.format(0, 0, "up"), 6, 8), r"layer 0 should be dense, but .* holds experts for it"),
    Case("listed as dense", config(mlp_only_layers=[0, 1]), r"config\.json: layer 1 should be dense, but .* experts"),
    Case(
        "layer lost", drop(r"layers\.2\.mlp\.experts"), r"layer 2: no expert weights.*'model\.layers\.2\.mlp\.experts"
    ),
    Case("fewer layers on disk", config(num_hidden_layers=4), r"layer 3: no expert weights.*model\.layers\.3\.mlp"),
    Case("more layers on disk", config(num_hidden_layers=2), r"num_hidden_layers is 2, but layer 2 holds experts too"),
    Case("no experts", drop("experts"), r"layer 1: no expert weights of Qwen3-MoE .* looked for .*; .*download"),
    Case(
        "other family", config(model_type="mixtral", mlp_only_layers=[0, 2]), r"layer 1: no expert weights|width|dense"
    ),
    Case(
        "shape", put(GATE, lambda t: t[:5]), rf"{re.escape(GATE)}: shape is \[5, 8\], but config\.json implies \[6, 8\]"
    ),
    Case("rank", put(GATE, lambda t: t[None]), rf"{re.escape(GATE)}: shape is \[1, 6, 8\], .*implies \[6, 8\]"),
    Case("flat", put(GATE, Tensor.flatten), rf"{re.escape(GATE)}: shape is \[48\], but .*implies \[6, 8\]"),
    Case("transposed", put(GATE, lambda t: t.T), rf"{re.escape(GATE)}: shape is \[8, 6\], but .*implies \[6, 8\]"),
    Case(
        "last expert's shape",
        put(EXPERT.format(2, 2, "down"), lambda t: t.T),
        rf"{re.escape(EXPERT.format(2, 2, 'down'))}: shape is \[6, 8\], but config\.json implies \[8, 6\]",
    ),
    Case("fused, experts", fused(4), r"experts\.gate_up_proj: shape is \[4, 12, 8\], but .*implies \[3, 12, 8\]"),
    *(
        Case(
            f"dtype {dtype}", put(GATE, lambda t, d=dtype: t.to(d)), rf"{re.escape(GATE)}: stored as {stored}; readable"
        )
        for dtype, stored in (
            (torch.float8_e4m3fn, "F8_E4M3"),
            (torch.int8, "I8"),
            (torch.uint8, "U8"),
            (torch.float64, "F64"),
        )
    ),
    Case(
        "mixed dtypes",
        put(EXPERT.format(1, 2, "gate"), Tensor.float),
        rf"{re.escape(EXPERT.format(1, 2, 'gate'))}: stored as F32, but {re.escape(GATE)} as BF16; .* share a dtype",
    ),
    Case("MXFP4", gpt_oss_mxfp4, r"model\.layers\.0\.mlp\.experts\.\w+_proj_blocks': MXFP4.*convert to bf16"),
]

INDEX_CASES = [
    Case("shard not on disk", delete(SECOND), rf"{SECOND}: named in {INDEX} but not in folder model; download"),
    Case("first shard not on disk", delete(FIRST), rf"{FIRST}: named in {INDEX} but not in folder model; download"),
    Case("part of a layer unnamed", unmapped(SECOND), rf"{SECOND} is on disk but {INDEX} does not name it, download"),
    Case("most of a layer unnamed", unmapped(THIRD), rf"{THIRD} is on disk but {INDEX} does not name it, download"),
    Case("a layer unnamed", unnamed("layers.2."), rf"layer 2: .*{THIRD} is on disk but {INDEX} does not name it"),
    Case("wrong shard", mapped(GATE, THIRD), rf"{INDEX}: .*'{re.escape(GATE)}' is in {THIRD}, but that file does not"),
    Case("no weight_map", text(INDEX, '{"metadata": {}}'), rf"{INDEX}: field 'weight_map' is missing .*download"),
    Case("weight_map a list", text(INDEX, '{"weight_map": []}'), rf"{INDEX}: field 'weight_map' is .*download"),
    Case("weight_map empty", text(INDEX, '{"weight_map": {}}'), rf"{INDEX}: field 'weight_map' is .*empty; download"),
    Case("index not JSON", text(INDEX, "<html>"), rf"{INDEX}: cannot be read as JSON .*download it again"),
    Case("index a list", text(INDEX, "[]"), rf"{INDEX}: holds a JSON list, not an object; download"),
    Case(
        "a git-lfs pointer",
        text(SECOND, "version https://git-lfs\noid sha256:0\nsize 1\n"),
        rf"{SECOND}: is a git-lfs pointer.*git lfs pull",
    ),
    *(
        Case(
            f"shard {shard!r}",
            mapped(GATE, shard),
            rf"{INDEX}: tensor '{re.escape(GATE)}' is said to be in {re.escape(repr(shard))}; a shard must be a plain",
        )
        for shard in (
            *(7, None, ["x.safetensors"], "", "..", "model.bin", "../x.safetensors", "/etc/x.safetensors"),
            *("a/b.safetensors", "..\\x.safetensors", "C:\\x.safetensors", ".hidden.safetensors", "x\0.safetensors"),
        )
    ),
    *(
        Case(f"only {name}", replace_weights(name), rf"model: holds only pickled weights \({name}\);.*Convert with")
        for name in ("pytorch_model.bin", "model.pt", "consolidated.00.pth")
    ),
    Case("no weights", replace_weights("readme.txt"), rf"model: has neither model\.safetensors nor {INDEX}; --model"),
]

HEADER_CASES = [
    Case(
        "truncated",
        cut(SECOND, 10),
        rf"{SECOND}: [\d,]+ bytes on disk, the header needs [\d,]+; .* truncated, download",
    ),
    Case("trailing", cut(SECOND, -1), rf"{SECOND}: [\d,]+ bytes on disk, .* longer than its header says, download"),
    Case("0 bytes", text(SECOND, b""), rf"{SECOND}: 0 bytes, too short for a safetensors header; download"),
    Case("7 bytes", text(SECOND, bytes(7)), rf"{SECOND}: 7 bytes, too short for a safetensors header; download"),
    Case("8 zeros", text(SECOND, bytes(8)), rf"{SECOND}: the header is not JSON .*; the file is damaged"),
    Case("claims 2^60", header({}, length=2**60), rf"{SECOND}: header claims {2**60:,} bytes, the limit is"),
    Case("claims 2^64-1", header({}, length=2**64 - 1), rf"{SECOND}: header claims {2**64 - 1:,} bytes, the limit is"),
    Case("claims 200 MB", header({}, length=200_000_000), rf"{SECOND}: header claims 200,000,000 bytes, the limit is"),
    Case("claims 90 MB", header({}, length=90_000_000), rf"{SECOND}: header claims 90,000,000 .*truncated, download"),
    Case(
        "claims 1 more",
        header({}, length=3),
        rf"{SECOND}: header claims 3 bytes but the file ends after 10; .*download",
    ),
    Case("not JSON", header(b"{nonsense}"), rf"{SECOND}: the header is not JSON .*; the file is damaged"),
    Case("not UTF-8", header(b"\xff\xfe\xfd"), rf"{SECOND}: the header is not JSON .*; the file is damaged"),
    Case("deep", header(b'{"a":' * 50_000), rf"{SECOND}: the header is not JSON .*; the file is damaged"),
    Case("a list", header([1]), rf"{SECOND}: the header is a JSON list, not an object; the file is damaged"),
    Case("entry a list", header({GATE: []}), rf"{SECOND}: tensor '{re.escape(GATE)}' has no dtype, shape and data"),
    Case(
        "no dtype",
        header({GATE: {"shape": [1], "data_offsets": [0, 2]}}, b"12"),
        rf"{SECOND}: tensor '.*gate.*' has no",
    ),
    Case(
        "dtype a number", header({GATE: entry(0, 8) | {"dtype": 7}}, bytes(8)), rf"{SECOND}: tensor '.*' has no dtype"
    ),
    Case(
        "three offsets", header({GATE: entry(0, 8) | {"data_offsets": [0, 4, 8]}}, bytes(8)), rf"{SECOND}: tensor '.*'"
    ),
    Case(
        "negative shape", header({GATE: entry(0, 8, (-2, -2))}, bytes(8)), rf"'{re.escape(GATE)}' has shape \[-2, -2\]"
    ),
    Case(
        "shape of floats", header({GATE: entry(0, 8, (2.0, 2))}, bytes(8)), rf"'{re.escape(GATE)}' has shape \[2.0, 2\]"
    ),
    Case("shape of bools", header({GATE: entry(0, 2, (True,))}, bytes(2)), rf"'{re.escape(GATE)}' has shape \[True\]"),
    Case("huge shape", header({GATE: entry(0, 8, (2**62, 4))}, bytes(8)), rf"'{re.escape(GATE)}' of shape .* needs"),
    Case("negative offset", header({GATE: entry(-8, 0)}, bytes(8)), rf"'{re.escape(GATE)}' .* at bytes -8:0; the file"),
    Case("backward offsets", header({GATE: entry(8, 0)}, bytes(8)), rf"'{re.escape(GATE)}' .* at bytes 8:0; the file"),
    Case("size", header({GATE: entry(0, 6)}, bytes(6)), rf"'{re.escape(GATE)}' of shape \[4\] .* needs 8 .* span 6;"),
    Case(
        "overlap", header({"a": entry(0, 8), GATE: entry(4, 12)}, bytes(12)), rf"'{re.escape(GATE)}' starts .* overlap"
    ),
    Case(
        "gap", header({"a": entry(0, 8), GATE: entry(10, 18)}, bytes(18)), rf"'{re.escape(GATE)}' starts .* leave a gap"
    ),
    Case("out of file", header({GATE: entry(0, 8)}, bytes(4)), rf"{SECOND}: .* on disk, the header needs .*truncated"),
    Case("far out", header({GATE: entry(2**40, 2**40 + 8)}, bytes(8)), rf"{SECOND}: tensor '{re.escape(GATE)}' starts"),
]


CASES = {"config": CONFIG_CASES, "tensor": TENSOR_CASES, "index": INDEX_CASES, "header": HEADER_CASES}


@pytest.mark.parametrize("case", [pytest.param(c, id=f"{g}: {c.id}") for g, cases in CASES.items() for c in cases])
def test_damaged_checkpoints_are_refused(case: Case, model: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    case.damage(model)
    with time_limit(SECONDS):
        result = run("--model", model, "--out", tmp_path / "out", *case.options)
    refuses(result, case.message, tmp_path / "out")


def test_the_undamaged_checkpoint_is_accepted(model: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    """Guards all of the above: the damage is what is refused. A dry run writes nothing either."""
    result = run("--model", model, "--out", tmp_path / "out", "--dry-run")
    assert result.code == 0 and "6 jobs" in result.out and "nothing was run" in result.out
    assert not (tmp_path / "out").exists()


OPTION_CASES: list[tuple[tuple[str, str], str]] = [
    (("--layers", "0"), r"--layers 0: layer 0 is not a Mixture-of-Experts layer of this model; it has 1-2"),
    (("--layers", "1-3"), r"--layers 1-3: layer 3 is not .*; it has 1-2"),
    (("--layers", "0-999999"), r"--layers 0-999999: layer 0 is not .*; it has 1-2"),
    (("--layers", "1,x"), r"--layers 1,x: 'x' is neither a layer nor a range; write for instance 0,12,24-30"),
    (("--layers", "2-1"), r"--layers 2-1: '2-1' is neither .*; write for instance"),
    (("--layers", "-1"), r"--layers -1: '-1' is neither .*; write for instance"),
    (("--layers", ""), r"--layers : '' is neither .*; write for instance"),
    (("--layers", "1,"), r"--layers 1,: '' is neither .*; write for instance"),
    (("--layers", "1" * 400), r"--layers 1+: '1+' is neither .*; write for instance"),
    (("--projections", "gate,upp"), r"--projections gate,upp: 'upp' is none of gate, up, down"),
    (("--projections", ""), r"--projections : '' is none of gate, up, down"),
    (("--memory", "10"), r"--memory 10 bytes: the smallest block of layer 1 gate takes 96 bytes; give at least that"),
    (("--memory", "95B"), r"--memory 95 bytes: the smallest block of layer 1 gate takes 96 bytes; give at least that"),
    (("--memory", "lots"), r"--memory lots: not a size; write for instance 4GB"),
    (("--memory", "0"), r"--memory 0: not a size; write for instance 4GB"),
    (("--memory", "-1GB"), r"--memory -1GB: not a size; write for instance 4GB"),
    (("--memory", "4XB"), r"--memory 4XB: not a size; write for instance 4GB"),
    (("--memory", "inf"), r"--memory inf: not a size; write for instance 4GB"),
    (("--memory", "9" * 400), r"--memory 9+: not a size; write for instance 4GB"),
    (("--fit-range", "0.9:0.1"), r"--fit-range 0\.9:0\.1: not a range of fractions .*; write for instance 0\.1:0\.9"),
    (("--fit-range", "0.5:0.5"), r"--fit-range 0\.5:0\.5: not a range of fractions .*; write for instance"),
    (("--fit-range", "0:2"), r"--fit-range 0:2: not a range of fractions .*; write for instance"),
    (("--fit-range", "-1:1"), r"--fit-range -1:1: not a range of fractions .*; write for instance"),
    (("--fit-range", "half"), r"--fit-range half: not a range of fractions .*; write for instance"),
    (("--fit-range", "nan:1"), r"--fit-range nan:1: not a range of fractions .*; write for instance"),
    (("--device", "cuda:99"), r"--device cuda:99: this machine has \d+ CUDA devices?; use --device cpu"),
    (("--device", "gpu"), r"--device gpu: is none of auto, cpu, cuda, cuda:N"),
    (("--device", "cuda:x"), r"--device cuda:x: is none of auto, cpu, cuda, cuda:N"),
    (("--device", "cuda:-1"), r"--device cuda:-1: is none of auto, cpu, cuda, cuda:N"),
    (("--device", "cuda:"), r"--device cuda:: is none of auto, cpu, cuda, cuda:N"),
    (("--device", "CPU"), r"--device CPU: is none of auto, cpu, cuda, cuda:N"),
]


@pytest.mark.parametrize("mode", [(), ("--dry-run",)], ids=["run", "dry-run"])
@pytest.mark.parametrize(
    ("option", "message"), OPTION_CASES, ids=lambda v: " ".join(v)[:40] if type(v) is tuple else ""
)
def test_bad_options_are_refused(
    option: tuple[str, str], message: str, mode: tuple[str, ...], good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    result = run("--model", good, "--out", tmp_path / "out", *option, *mode)
    assert result.code == 2, result
    assert re.search(message, result.err), result.err
    assert result.out == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", "-1"), ("--seed", "x"), ("--jackknife", "-1"), ("--engine", "slurm"), ("--nope", "1")],
)
def test_usage_errors_of_the_parser(
    option: str, value: str, good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    result = run("--model", good, "--out", tmp_path / "out", option, value)
    assert result.code == 2 and option in result.err
    assert not (tmp_path / "out").exists()


MODEL_CASES = [
    ("no such model!", r"--model no such model!: neither a built-in model \(mini\), nor a folder, nor a hub id like"),
    ("nowhere/to/be/found", r"--model nowhere/to/be/found: neither a built-in model .*, nor a folder, nor a hub id"),
    (
        "some-org/some-model",
        r"--model some-org/some-model: not a folder here and not in .*cache; download it first \(hf",
    ),
    ("-org/..", r"--model -org/\.\.: not a (valid hub id|folder here)"),
    ("x" * 300, r"--model x+: not a usable path .*; give a folder or a model name"),
    ("~no-such-user-here", r"--model ~no-such-user-here: "),
    ("", r"--model : neither a built-in model .*, nor a folder, nor a hub id"),
    (".", r"work: has no config\.json; --model needs a Hugging Face checkpoint folder"),
]


@pytest.mark.parametrize(("text_", "message"), MODEL_CASES, ids=lambda v: v[:20])
def test_models_that_cannot_be_found(text_: str, message: str, run: Callable[..., Result], tmp_path: Path) -> None:
    refuses(run(f"--model={text_}", "--out", tmp_path / "out"), message, tmp_path / "out")


def test_a_file_is_not_a_model(model: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("--model", model / FIRST, "--out", tmp_path / "out")
    refuses(result, rf"--model .*{FIRST}: is a file; give the folder of config\.json", tmp_path / "out")


# --out


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fresh", [(), ("--fresh",)], ids=["", "fresh"])
def test_a_foreign_folder_is_never_written_to(
    fresh: tuple[str, ...], good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "thesis"
    (out / "results").mkdir(parents=True)
    (out / "results" / "mine.txt").write_text("three years of work")
    before = tree(out)
    result = run("--model", good, "--out", out, *fresh)
    assert result.code == 2
    assert re.search(r"--out .*thesis: the folder is not empty and holds no run; give a new folder", result.err)
    assert tree(out) == before


@pytest.mark.parametrize("manifest", ['{"experiment": 1}', "[]", '"a string"'])
@pytest.mark.parametrize("fresh", [(), ("--fresh",)], ids=["", "fresh"])
def test_a_run_json_of_another_tool_is_not_ours(
    manifest: str, fresh: tuple[str, ...], good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "thesis"
    (out / "results").mkdir(parents=True)
    (out / "results" / "mine.txt").write_text("three years of work")
    (out / "run.json").write_text(manifest)
    before = tree(out)
    result = run("--model", good, "--out", out, *fresh)
    assert result.code == 2 and re.search(r"--out .*thesis: .*run.*; .*new folder", result.err), result
    assert tree(out) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", r"--out .*file: is a file; give a folder"),
        ("file/below", r"--out .*file/below: .*(cannot be written|is a file)"),
        ("x" * 300, r"--out .*x+: cannot be written \(.*\)"),
    ],
    ids=["file", "below a file", "long"],
)
def test_out_that_cannot_be_a_folder(
    name: str, message: str, good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    result = run("--model", good, "--out", tmp_path / name)
    assert result.code == 2 and re.search(message, result.err), result
    assert (tmp_path / "file").read_text() == "mine"


# What must work


def test_shards_that_are_symbolic_links_work(model: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    """The hub cache: snapshots/REVISION/NAME -> ../../blobs/HASH, config and index too."""
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "abc", tmp_path / "cache" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for i, path in enumerate(sorted(model.iterdir())):
        shutil.copy(path, blobs / f"{i:x}")
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", f"{i:x}"))
    result = run("--model", snapshot, "--dry-run")
    assert result.code == 0 and "6 jobs" in result.out


@pytest.mark.parametrize("damage", [cut(THIRD, 10), delete(THIRD), text(THIRD, b"")], ids=["cut", "absent", "empty"])
def test_shards_of_other_layers_are_not_looked_at(
    damage: Damage, model: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    """Only the shards that the asked layers need have to be there."""
    damage(model)
    result = run("--model", model, "--layers", "1", "--dry-run")
    assert result.code == 0 and "3 jobs" in result.out


# One bad weight among good ones


def spoil(folder: Path, name: str, value: float) -> Tensor:
    """Puts `value` into one weight of `name`; returns the tensor as it was."""
    before = read_tensors(folder)[name]
    put(name, lambda t: t.clone().index_fill_(1, torch.tensor([3]), value))(folder)
    return before


FAST = ("--device", "cpu", "--quiet")


@pytest.mark.parametrize(("value", "memory"), [("nan", "1GB"), ("inf", "100B"), ("-inf", "1GB")])
def test_one_bad_weight_fails_its_job_and_no_other(
    value: str, memory: str, model: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    bad = EXPERT.format(2, 1, "up")
    spoil(model, bad, float(value))
    out = tmp_path / "out"
    result = run("--model", model, "--out", out, "--layers", "2", "--memory", memory, *FAST)
    assert result.code == 1
    pattern = rf"failed: spectra-L002-up: {re.escape(bad)}: 6 weights of expert 1 are NaN or inf.*; download .*--layers"
    assert re.search(pattern, result.err), result.err
    with (out / "tables" / "spectra.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["projection"] for row in rows] == ["gate"] * 3 + ["up"] + ["down"] * 3
    assert {k: v for k, v in rows[3].items() if v} == {"layer": "2", "projection": "up", "status": "failed"}
    assert all(row["sigma_max"] for row in rows if row["projection"] != "up")
    jobs = {job["key"]: job for job in read_json(out / "run.json")["jobs"]}
    assert {key: job["state"] for key, job in jobs.items()} == {
        "spectra-L002-gate": "done",
        "spectra-L002-up": "failed",
        "spectra-L002-down": "done",
    }
    assert bad in jobs["spectra-L002-up"]["message"]
    page = (out / "report.html").read_text()
    assert bad in page, "the page names what is missing"


@pytest.mark.parametrize("folder", ["default", "out"])
def test_after_a_repair_the_same_command_does_what_is_missing(
    folder: str, model: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    """What was measured from shards that did not change is kept; everything else is measured from the new bytes."""
    bad = EXPERT.format(2, 1, "up")
    whole = spoil(model, bad, float("nan"))
    options = ("--out", tmp_path / "out") if folder == "out" else ()
    arguments = ("--model", model, "--projections", "up", "--device", "cpu", *options)
    assert run(*arguments).code == 1
    (out,) = Path("runs").iterdir() if folder == "default" else [tmp_path / "out"]
    kept = (out / "results" / "spectra-L001-up.json").stat()
    assert (out / "errors" / "spectra-L002-up.txt").is_file()

    put(bad, lambda _: whole)(model)
    again = run(*arguments)
    assert again.code == 0 and "failed" not in again.err
    after = (out / "results" / "spectra-L001-up.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns), "what was done is kept"
    assert folder == "out" or list(Path("runs").iterdir()) == [out], "the same command finds its run again"
    assert [job["state"] for job in read_json(out / "run.json")["jobs"]] == ["done", "done"]
    rows = [line.split(",")[0] for line in (out / "tables" / "spectra.csv").read_text().splitlines()[1:]]
    assert rows == ["1"] * 3 + ["2"] * 3
    assert bad not in (out / "report.html").read_text()
    assert not list((out / "errors").glob("*")), "the error of a job that is done now is gone"


def test_other_weights_of_the_same_shape_are_measured_again(
    model: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    arguments = ("--model", model, "--out", tmp_path / "out", "--projections", "up", "--device", "cpu")
    table = tmp_path / "out" / "tables" / "spectra.csv"
    assert run(*arguments).code == 0
    before = table.read_text().splitlines()
    put(EXPERT.format(2, 2, "up"), lambda t: 3 * t)(model)
    again = run(*arguments)
    after = table.read_text().splitlines()
    assert again.code == 0 and re.search(r"spectra-L002-up: measured again, weights changed", again.err)
    assert "spectra-L001-up" not in again.err
    assert after[:4] == before[:4], "layer 1"
    assert not set(after[4:]) & set(before[4:]), "layer 2"


def test_a_file_that_shrinks_during_the_run_fails_its_job_by_name(model: Path) -> None:
    with Checkpoint(model) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 2, "down")
        cut(THIRD, 250)(model)  # into the last expert
        with pytest.raises(
            WeightError, match=rf"{THIRD}: ends inside tensor '.*2.down_proj.*'; the file changed during the run"
        ):
            stack.read(0, 3, torch.empty(stack.shape, dtype=stack.dtype))


# As a process of its own


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (cut(SECOND, 10), 2, rf"tdmoe-diag: {SECOND}: .*truncated, download it again\n"),
        (
            lambda folder: spoil(folder, GATE, float("nan")),
            1,
            rf"failed: spectra-L001-gate: {re.escape(GATE)}: 6 weights",
        ),
    ],
    ids=["refused", "failed"],
)
def test_exit_codes_of_the_process(damage: Damage, code: int, message: str, model: Path, tmp_path: Path) -> None:
    damage(model)
    arguments = [
        "spectra",
        "--model",
        str(model),
        "--out",
        str(tmp_path / "out"),
        "--layers",
        "1",
        "--projections",
        "gate",
    ]
    command = [sys.executable, "-m", "diag.cli", *arguments, *FAST]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr, re.DOTALL) and "Traceback" not in done.stderr
    assert (tmp_path / "out").exists() == (code == 1)
