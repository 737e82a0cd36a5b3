"""A damaged checkpoint is refused with one message that names the culprit and the way out, before any work.

Every case damages a good checkpoint and goes through the real command line.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damage import (
    EXPERT,
    FIRST,
    GATE,
    SECOND,
    SECONDS,
    THIRD,
    Case,
    Result,
    add,
    as_fp8,
    config,
    cut,
    delete,
    drop,
    entry,
    fused,
    header,
    mapped,
    mxfp4_without_scales,
    put,
    refuses,
    replace_weights,
    tensors,
    text,
    time_limit,
    unmapped,
    unnamed,
    without,
)
from tiny import (
    INDEX,
)
from torch import Tensor

from tdmoe.stacks.architecture import EXPERTS

pytestmark = pytest.mark.usefixtures("one_thread")

NUMBER = r"config\.json: {} is {}, a positive whole number is needed"
EXPERT_FIELDS = " / ".join(EXPERTS)
SPELLINGS = {"num_hidden_layers": "num_hidden_layers / num_layers"}
HUGE = 1_000_000_000

CONFIG_CASES = [
    Case("family unknown", config(model_type="llama"), r"config\.json: model_type is 'llama'; supported are .*mixtral"),
    Case("family missing", without("model_type"), r"config\.json: model_type is None; supported are .*qwen3_moe"),
    Case("family a list", config(model_type=["mixtral"]), r"config\.json: model_type is \['mixtral'\]; supported are"),
    Case("no config", delete("config.json"), r"model: has no config\.json; give a Hugging Face checkpoint"),
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
        rf"config\.json: has none of {', '.join(EXPERTS)}; one of them is needed",
    ),
    *(
        Case(f"no {field}", without(field), rf"config\.json: .*{field}.* needed")
        for field in ("num_hidden_layers", "hidden_size", "moe_intermediate_size")
    ),
    *(
        Case(f"num_experts {value!r}", config(num_experts=value), NUMBER.format(EXPERT_FIELDS, re.escape(repr(value))))
        for value in (0, -1, "6", True, 3.0, 1e9, [3, 4], {"a": 3})
    ),
    *(
        Case(
            f"{field} {value!r}",
            config(**{field: value}),
            NUMBER.format(SPELLINGS.get(field, field), re.escape(repr(value))),
        )
        for field in ("num_hidden_layers", "hidden_size", "moe_intermediate_size", "decoder_sparse_step")
        for value in (-1, "6", True)
    ),
    Case("num_experts 10^9", config(num_experts=HUGE), r"num_experts .* is 1000000000, the limit is 10,000"),
    Case("num_experts 10^9, fused", fused(3, num_experts=HUGE), r"num_experts .* the limit is 10,000"),
    Case("num_hidden_layers 10^9", config(num_hidden_layers=HUGE), r"num_hidden_layers .*is .* the limit is 10,000"),
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
            (torch.int8, "I8"),
            (torch.uint8, "U8"),
            (torch.float64, "F64"),
        )
    ),
    Case("FP8 among bf16", put(GATE, lambda t: t.to(torch.float8_e4m3fn)), r"as BF16, but .* as F8_E4M3; .* share"),
    Case("FP8 without scales", tensors(as_fp8), r"gate_proj\.weight_scale_inv' is missing"),
    Case(
        "mixed dtypes",
        put(EXPERT.format(1, 2, "gate"), Tensor.float),
        rf"{re.escape(EXPERT.format(1, 2, 'gate'))}: stored as F32, but {re.escape(GATE)} as BF16; .* share a dtype",
    ),
    Case("MXFP4 scales missing", mxfp4_without_scales, r"gate_up_proj_scales' is missing"),
]

INDEX_CASES = [
    Case("shard not on disk", delete(SECOND), rf"{SECOND}: named in the index but not in model; download"),
    Case("first shard not on disk", delete(FIRST), rf"{FIRST}: named in the index but not in model; download"),
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
    Case("no weights", replace_weights("readme.txt"), rf"model: has neither model\.safetensors nor {INDEX}; give"),
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
