"""Checkpoints that went wrong in use, made from a pico model: what is changed, what is run, and what has to be said."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from damage import SHARDS, add, config, drop, index, mapped, put, tensors, text, without
from tiny import INDEX, read_json, read_tensors, write_checkpoint, write_json

from tdmoe.stacks.architecture import EXPERTS

QUERY = "model.layers.0.self_attn.q_proj.weight"
EXPERT = "model.layers.2.mlp.experts.{}.{}_proj.weight"
WINDOWS = ("--window", "16", "--device", "cpu", "--quiet", "--out", "out")
CALIBRATE = ("calibrate", "--text", "a.txt", "--tokens", "64", *WINDOWS)
QUALITY = ("quality", "--texts", "b.txt", "--windows", "2", "--methods", "rtn:bits=4,group=4", *WINDOWS)
DRIFT = ("drift", "--text", "b.txt", "--tokens", "32", "--methods", "rtn:bits=4,group=4", *WINDOWS)
INJECTION = ("injection", "--text", "b.txt", "--tokens", "32", "--calibration-text", "a.txt", *WINDOWS)
SUPERWEIGHTS = ("superweights", "--text", "a.txt", "--eval-text", "b.txt", "--methods", "", *WINDOWS)
TO = ("--to", "to", "--device", "cpu", "--quiet", "--out", "out", "--method")
COMPRESS = ("compress", "--tokens", "0", *TO)
ROUNDED = (*COMPRESS, "rtn:bits=4,group=4")
WHITENED = ("compress", "--text", "a.txt", "--tokens", "64", "--window", "16", *TO, "svd")
SPECTRA = ("spectra", "--device", "cpu", "--quiet", "--out", "out")
PLANNED = (*SPECTRA, "--dry-run")
MODELS = ("models",)
RUN = (CALIBRATE, QUALITY, DRIFT, SUPERWEIGHTS, WHITENED)


class Case(NamedTuple):
    """`change` damages a folder, and may give another one to use instead; each command ends with `code` and `said`.

    `said` is looked for on stderr and stdout, and in the notes of the run.
    """

    id: str
    change: Callable[[Path], Any]
    commands: tuple[tuple[str, ...], ...]
    code: int
    said: str


def nan(name: str) -> Callable[[Path], object]:
    def spoil(t: torch.Tensor) -> torch.Tensor:
        t = t.clone()
        t.view(-1)[7] = float("nan")
        return t

    return put(name, spoil)


def adapter(folder: Path) -> None:
    about = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "pico"}
    write_json(folder / "adapter_config.json", about)


def adapter_alone(folder: Path) -> None:
    adapter(folder)
    for path in folder.glob("model*"):
        path.unlink()


def gguf_alone(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "model.Q4_K_M.gguf").write_bytes(b"GGUF" + bytes(64))


def twice(table: dict[str, torch.Tensor]) -> None:
    gate, up = (torch.stack([table[EXPERT.format(e, p)] for e in range(7)]) for p in ("gate", "up"))
    table["model.layers.2.mlp.experts.gate_up_proj"] = 2 * torch.cat([gate, up], 1)


def snapshot(folder: Path) -> Path:
    """As the Hugging Face cache keeps it."""
    path = folder.parent / "models--Qwen--Qwen3-30B-A3B" / "snapshots" / ("ad44" * 10)
    path.parent.mkdir(parents=True)
    folder.rename(path)
    return path


def renamed(name: bytes) -> Callable[[Path], Path]:
    return lambda folder: folder.rename(folder.parent / os.fsdecode(name))


def bom(folder: Path) -> None:
    for name in ("config.json", INDEX, "tokenizer_config.json"):
        if (path := folder / name).is_file():
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def in_header(pattern: str, text: str) -> Callable[[Path], None]:
    """Other text for the first find in the header of a shard."""

    def change(folder: Path) -> None:
        for path in sorted(folder.glob("*.safetensors")):
            raw = path.read_bytes()
            length = int.from_bytes(raw[:8], "little")
            head, found = re.subn(pattern, text, raw[8 : 8 + length].decode(), count=1)
            if found:
                path.write_bytes(len(head).to_bytes(8, "little") + head.encode() + raw[8 + length :])
                return
        raise AssertionError(pattern)

    return change


def added_token(folder: Path) -> None:
    table = read_json(folder / "tokenizer.json")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    table["added_tokens"] = [{"id": 999_999, "content": "the", **flags}]
    write_json(folder / "tokenizer.json", table)


def pruned(count: int) -> Callable[[Path], object]:
    """Only the first experts are left, in the weights and the routers; config.json says that where it is told to."""

    def change(folder: Path) -> None:
        drop(rf"experts\.(?:{'|'.join(map(str, range(5, 7)))})\.")(folder)
        tensors(lambda t: t.update({n: w[:5] for n, w in t.items() if n.endswith("mlp.gate.weight")}))(folder)
        config(num_local_experts=count)(folder)

    return change


def tied(folder: Path) -> None:
    drop("lm_head")(folder)
    config(tie_word_embeddings=True)(folder)


def own_code(folder: Path) -> None:
    """An architecture that only the checkpoint's own code knows; it must not be run."""
    (folder / "own.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    fields = {k: v for k, v in read_json(folder / "config.json").items() if k not in EXPERTS}
    auto = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    write_json(folder / "config.json", fields | {"model_type": "own", "auto_map": auto})


def dense_llama(folder: Path) -> None:
    write_checkpoint(folder, {"model_type": "llama", "num_hidden_layers": 3, "hidden_size": 24}, read_tensors(folder))


def pipe(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def deep(name: str) -> Callable[[Path], object]:
    return text(name, "[" * 100_000)


MISSING = rf"model-0000\d-of-0000{SHARDS}\.safetensors: tensor '{re.escape(QUERY)}' is missing from the checkpoint"
LOST = r"says that tensor 'model\.lost\.weight' is in model-00001-of-00003\.safetensors, but that file does not hold it"
SHAPE = rf"tensor '{re.escape(QUERY)}' has shape \[23, 24\], config\.json implies \[24, 24\]"
HEADS = (
    r"q_proj.*has shape \[24, 24\], config\.json implies \[36, 24\] .*num_attention_heads 3|o_proj.*attention_heads 3"
)
TWICE = r"holds the experts of one layer twice, as 'model\.layers\.2\.mlp\.experts\.0\.\w+_proj\.weight' and as 'model"
ADAPTER = r"pico: holds a LoRA adapter \(adapter_config\.json\); merge it, or give the folder without it"
NAN = rf"{re.escape(EXPERT.format(3, 'up'))}: 1 weight of expert 3 is NaN or infinite; download.*--layers"
STALE = (
    r"experts\.5\.\w+_proj\.weight' is missing from the checkpoint: 5 of 7 experts found, config\.json says \w+ 7; c"
)
ONE = (SPECTRA, CALIBRATE)

CASES = (
    Case("missing_dense", drop(re.escape(QUERY)), (*RUN, INJECTION), 2, MISSING),
    Case("wrong_dense_shape", put(QUERY, lambda t: t[:-1]), RUN, 2, SHAPE),
    Case("index_lies", mapped("model.lost.weight", "model-00001-of-00003.safetensors"), (ROUNDED,), 2, LOST),
    Case("three_heads", config(num_attention_heads=3), (CALIBRATE, WHITENED), 2, HEADS),
    Case("top_9", config(num_experts_per_tok=9), (CALIBRATE,), 2, r"num_experts_per_tok is 9, of 7 experts; give 1 t"),
    Case("top_8", without("num_experts_per_tok"), (CALIBRATE,), 2, r"num_experts_per_tok is 8 by default, of 7 exper"),
    Case("int_coefficient", config(router_aux_loss_coef=0), (CALIBRATE, QUALITY), 0, ""),
    Case("generation_list", text("generation_config.json", "[]"), (CALIBRATE,), 2, r"generation_config\.json: .*corr"),
    Case("tokenizer_beyond", added_token, (CALIBRATE, QUALITY), 2, r"token 'the' with id 999,999, .* vocab_size 64; "),
    Case("tokenizer_deep", deep("tokenizer.json"), (CALIBRATE,), 2, r"has no tokenizer that transformers can load"),
    Case("nan_expert", nan(EXPERT.format(3, "up")), (CALIBRATE, QUALITY, DRIFT, ROUNDED, (*COMPRESS, "svd")), 1, NAN),
    Case("nan_dense", nan(QUERY), (CALIBRATE, QUALITY), 1, rf"{re.escape(QUERY)}: holds weights that are NaN or"),
    Case("adapter_beside", adapter, (*RUN, ROUNDED), 2, ADAPTER),
    Case("adapter_left_out", adapter, (SPECTRA, MODELS), 0, r"adapter_config\.json: a LoRA adapter .* is left out"),
    Case("adapter_told", adapter, (MODELS,), 0, r"a LoRA adapter .* left out, what runs the model refuses it$"),
    Case("dense_unchecked", drop(re.escape(QUERY)), (MODELS,), 0, r"supported  .*yes\n.*not checked .*the experts'"),
    Case(
        "huge_window", config(max_position_embeddings=10**25), (CALIBRATE,), 2, r"embeddings is '10+', the limit is 1"
    ),
    Case("two_layouts", tensors(twice), (*ONE, QUALITY), 2, TWICE),
    Case("without_index", lambda f: (f / INDEX).unlink(), (*ONE, ROUNDED, MODELS), 0, rf"has no {INDEX}: the headers"),
    Case("snapshot", snapshot, (MODELS, SPECTRA), 0, r"^Qwen3-30B-A3B"),
    Case("snapshot_above", lambda f: snapshot(f).parent.parent, (MODELS,), 0, r"^Qwen3-30B-A3B\n"),
    Case("quantization_true", config(quantization_config=True), (ROUNDED, SPECTRA), 2, r"quantization_config is True,"),
    Case("quantization_half", config(quantization_config=0.5), (CALIBRATE,), 2, r"quantization_config is 0\.5,"),
    Case("long_type", config(model_type="x" * 5000), (SPECTRA, MODELS), 2, r"model_type is 'xx.*; supported are mixtr"),
    Case("pipe", pipe("generation_config.json"), (CALIBRATE,), 0, ""),
    Case("no_metadata", index(lambda table: table.pop("metadata")), (CALIBRATE, ROUNDED), 0, ""),
    Case(
        "dtype_list",
        config(dtype=None, torch_dtype=["float32"]),
        (ROUNDED, SPECTRA),
        2,
        r"torch_dtype is \['float32'\]",
    ),
    Case(
        "huge_shape",
        in_header(r'("shape":\s*\[)\d+', rf"\g<1>1{'0' * 5000}"),
        (SPECTRA, ROUNDED),
        2,
        r"safetensors: tensor '[\w.]+' has shape \['10000.*damaged",
    ),
    Case(
        "huge_product",
        in_header(r'("shape":\s*\[)\d+,\s*\d+', rf"\g<1>{10**18},{10**18}"),
        (SPECTRA,),
        2,
        r"of shape \[10{18}, 10{18}\] and dtype F32 needs more than 2\^63 bytes",
    ),
    Case(
        "unknown_dtype",
        in_header(rf'("{re.escape(QUERY)}":\s*{{"dtype":\s*")F32', r"\g<1>BF17"),
        (ROUNDED, CALIBRATE),
        2,
        rf"tensor '{re.escape(QUERY)}' has dtype 'BF17', which safetensors does not know; the file is damaged",
    ),
    Case("bom", bom, (*ONE, QUALITY, ROUNDED), 0, ""),
    Case(
        "escapes",
        renamed("evil\x1b[31m\u202ename".encode()),
        ((*SPECTRA, "--dry-run"), MODELS),
        0,
        r"^evil⟨U\+001B⟩\[31m⟨",
    ),
    Case("not_utf8", renamed(b"m\xff"), (PLANNED, MODELS), 0, r"^m⟨U\+DCFF⟩"),
    Case(
        "lora_only",
        adapter_alone,
        (MODELS, SPECTRA),
        2,
        r"is a LoRA adapter of base 'pico', not a model; give the base",
    ),
    Case("gguf_only", gguf_alone, (MODELS, SPECTRA), 2, r"holds GGUF \(model\.Q4_K_M\.gguf\), which is not read; give"),
    Case("pruned_stale", pruned(7), (SPECTRA, CALIBRATE), 2, STALE),
    Case("pruned", pruned(5), (SPECTRA, CALIBRATE), 0, ""),
    Case("tied_head", tied, (CALIBRATE, ROUNDED), 0, ""),
    Case(
        "unused",
        add("model.extra.weight", 3, 5),
        (CALIBRATE,),
        0,
        r"1 of the checkpoint's tensors .*'model\.extra\.weig",
    ),
    Case("own_code", own_code, (SUPERWEIGHTS,), 2, r"config\.json: transformers cannot use it .*never run"),
    Case("dense", dense_llama, (SPECTRA, MODELS), 2, r"model_type 'llama' is dense: no experts; `superweights` "),
)


def notes_of(out: Path) -> str:
    """What a run has noted."""
    return "\n".join(json.loads((out / "run.json").read_text())["notes"]) if (out / "run.json").is_file() else ""
