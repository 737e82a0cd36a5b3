"""What bits saved are of, in integers counted by hand; a tied and an untied model are counted alike."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from damage import Result
from tiny import Config, plain_checkpoint, read_json, read_tensors, write_checkpoint, write_json

from diag.inputs.texts import load_text
from diag.models.describe import describe
from diag.models.model import resolve
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression.counted import ALL, ALL_BUT, bits, denominator, parameters

EMBEDDINGS = 16 * 8
REST = (8 + 3 * 6 * 8) + 2 * (8 + 3 * 3 * 6 * 8 + 3 * 8)  # a dense layer, then two of norm, experts and router


@dataclass(frozen=True)
class Case:
    """A pico model: what is stored beside its layers."""

    tensors: tuple[str, ...]
    config: Config = field(default_factory=dict)
    counted: int = REST + EMBEDDINGS
    of: str = ALL_BUT
    once: int = 0  # bytes that `models` leaves out


NAME, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CASES = {
    "untied": Case((NAME, HEAD), {"tie_word_embeddings": False}),
    "nothing said": Case((NAME, HEAD)),
    "tied": Case((NAME,), {"tie_word_embeddings": True}, of=ALL),
    "tied by what is stored": Case((NAME,), of=ALL),
    "tied in the text part": Case((NAME,), {"text_config": {"tie_word_embeddings": True}}, of=ALL),
    "tied, stored twice": Case((NAME, HEAD), {"tie_word_embeddings": True}, once=2 * EMBEDDINGS),
    "another name": Case(("model.word_embeddings.weight", HEAD)),
    "copy in a layer": Case((NAME, "model.layers.3.embed_tokens.weight"), of=ALL),
    "head is missing": Case((NAME,), {"tie_word_embeddings": False}, REST),
}


@pytest.mark.parametrize("name", CASES)
def test_one_head_is_counted_and_no_embeddings_beside_it(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    config, tensors = plain_checkpoint()
    del tensors[NAME]
    tensors |= {extra: torch.randn(16, 8).bfloat16() for extra in case.tensors}
    text = case.config.get("text_config")
    whole = {**config, **case.config} if text is None else {**config, "text_config": {**config, **text}}
    with Checkpoint(write_checkpoint(tmp_path / "pico", whole, tensors)) as checkpoint:
        assert (parameters(checkpoint), bits(checkpoint)) == (case.counted, 16 * case.counted)
        assert denominator(checkpoint) == case.of
        assert checkpoint.nbytes() - describe(checkpoint).total_bytes == case.once


LAYER = (4 + 2 + 2 + 4) * 48 * 192 + 2 * 48 + 2 * 192 + 32 * 192 + 3 * 32 * 80 * 192  # of mini
COUNTED = 4 * LAYER + 192 + 4096 * 192  # its vocabulary once
# 8-bit integers and a bfloat16 scale for every 128 inputs: two a row of gate and up, one of down
SAVED = 32 * (2 * 80 * (192 * 8 - 2 * 16) + 192 * (80 * 8 - 16))


@pytest.mark.parametrize(("command", "text"), [("quality", "--texts"), ("drift", "--text")])
def test_tables_say_the_same_of_a_tied_model_and_of_its_untied_copy(
    tool: Callable[..., Result], tmp_path: Path, command: str, text: str
) -> None:
    mini = resolve("mini").folder
    assert mini is not None
    tensors, config = read_tensors(mini), read_json(mini / "config.json")
    shutil.copytree(mini, "untied")
    write_checkpoint(Path("untied"), None, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    write_json(Path("untied/config.json"), config | {"tie_word_embeddings": False})
    Path("words.txt").write_text(load_text("c4-eval")[:2000], encoding="utf-8", newline="")
    found = {}
    for model in (mini, "untied"):
        out = tmp_path / f"run-{Path(model).name}"
        asked = (text, "words.txt", "--window", 32, "--methods", "rtn:bits=8", "--layers", 2, "--out", out, "--quiet")
        result = tool(command, "--model", model, *asked, *(("--tokens", 64) if command == "drift" else ()))
        assert result.code == 0, result.err
        rows = csv.DictReader((out / "tables" / f"{command}.csv").open(encoding="utf-8", newline=""))
        found[Path(model).name] = [row for row in rows if row["method"] == "rtn:bits=8"][-1]
    tied, untied = found[mini.name], found["untied"]
    assert float(tied["bits_saved"]) == pytest.approx(SAVED / (16 * COUNTED), rel=1e-12)
    assert tied["bits_saved"] == untied["bits_saved"]
    assert (tied["bits_saved_of"], untied["bits_saved_of"]) == (ALL, ALL_BUT)
    assert list(tied)[-2:] == ["bits_saved_of", "variant"]
