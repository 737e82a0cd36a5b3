"""The built-in model is what its card says: real, trained, balanced, small, and loadable by transformers alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from diag.inputs.texts import load_text
from diag.models.model import resolve
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.locate import open_stack
from tools.mini.measure import cut_windows, routing, score
from tools.mini.train import END_OF_TEXT, batches, encode, learning_rate, train_tokenizer

WINDOWS = 24


@pytest.fixture(scope="module")
def folder() -> Path:
    return resolve("mini").folder


@pytest.fixture(scope="module")
def loaded(folder: Path):  # type: ignore[no-untyped-def]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def test_shape_and_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "qwen3_moe"
    with Checkpoint(folder) as checkpoint:
        arch = architecture(checkpoint.config)
        dtypes = {checkpoint.entry(name).dtype for name in checkpoint.names()}
    assert len(arch.layers) >= 4
    assert arch.experts >= 32
    assert config["num_experts_per_tok"] >= 4
    assert len({arch.hidden, arch.width, arch.experts}) == 3
    assert 4096 <= config["vocab_size"] <= 8192
    assert dtypes == {"BF16"}
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 16_000_000


def test_our_stacks_are_the_weights_that_transformers_loads(folder: Path, loaded) -> None:  # type: ignore[no-untyped-def]
    model, _ = loaded
    with Checkpoint(folder) as checkpoint:
        arch = architecture(checkpoint.config)
        for layer in arch.layers:
            experts = model.model.layers[layer].mlp.experts
            gate, up = experts.gate_up_proj.chunk(2, dim=1)
            for projection, expected in (("gate", gate), ("up", up), ("down", experts.down_proj)):
                stack = open_stack(checkpoint, arch, layer, projection)
                assert torch.equal(stack.weights(0, arch.experts).float(), expected)


@pytest.mark.parametrize("text", ["enwik8", "wikitext2"])
def test_perplexity_and_routing_are_those_of_a_trained_balanced_model(folder: Path, loaded, text: str) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = loaded
    card = json.loads((folder / "measurements.json").read_text())
    window = json.loads((folder / "training.json").read_text())["window"]
    ids_WT = cut_windows(encode(tokenizer, load_text(text)[:400_000]), window, WINDOWS)
    nats_WT, slots_LE = score(model, ids_WT, model.config.num_experts_per_tok)
    measured = card["texts"][text]["model"]
    loss, stated = nats_WT.mean(), measured["cross_entropy_nats"]
    per_window = nats_WT.mean(1).std()
    assert abs(loss - stated) < 3 * per_window / WINDOWS**0.5 + 0.02
    assert measured["perplexity"] < card["texts"][text]["unigram"]["perplexity"] / 4
    if text == "enwik8":
        assert measured["perplexity"] < 65  # clearly below 71, a smaller model's on the same text and vocabulary
        for layer in routing(slots_LE):
            assert layer["load_entropy"] >= 0.85
            assert layer["dead_experts"] == 0


def test_text_survives_the_tokenizer(loaded) -> None:  # type: ignore[no-untyped-def]
    _, tokenizer = loaded
    text = "Tensor decompositions (Tucker, 1966) of 3 modes\n\n naïve café – 東京 \t end  "
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == tokenizer.vocab_size


@pytest.mark.parametrize(("layout", "shape"), [("qwen3_moe", (32, 80, 192)), ("mixtral", (8, 320, 192))])
def test_the_recipe_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, shape: tuple[int, int, int]
) -> None:
    """A few small steps of the real recipe on a short text lower the loss and write a checkpoint that loads."""
    from tools.mini import train as recipe

    monkeypatch.setattr(recipe, "WINDOWS_PER_STEP", 2)
    monkeypatch.setattr(recipe, "WARMUP_STEPS", 2)
    text = load_text("enwik8")
    for name, part in {"train": text[:120_000], "valid": text[:20_000]}.items():
        (tmp_path / f"{name}.txt").write_text(part, encoding="utf-8")
    arguments = ["--text", tmp_path / "train.txt", "--valid", tmp_path / "valid.txt", "--to", tmp_path / "m"]
    arguments += ["--layout", layout, "--seed", 7]
    monkeypatch.setattr("sys.argv", ["train", *map(str, arguments), "--steps", "5"])
    recipe.main()
    facts = json.loads((tmp_path / "m" / "training.json").read_text())
    assert facts["curve"][-1]["loss"] < facts["curve"][0]["loss"] - 0.05
    assert (facts["layout"], facts["seed"]) == (layout, 7)
    assert facts["tokens_seen"] == 5 * recipe.WINDOW * recipe.WINDOWS_PER_STEP
    with Checkpoint(tmp_path / "m") as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, "gate")
        assert (stack.encoding.name, stack.shape) == ("bfloat16", shape)


def test_recipe_parts() -> None:
    tokenizer = train_tokenizer(load_text("enwik8")[:200_000])
    assert tokenizer.eos_token == END_OF_TEXT
    long = load_text("enwik8")[:20_000]
    assert encode(tokenizer, long).tolist() == tokenizer(long)["input_ids"]
    rates = [learning_rate(step, 1000) for step in range(1000)]
    assert max(rates) == pytest.approx(3e-3, rel=0.01)
    assert rates[0] < 1e-4
    assert rates[-1] < 1e-5
    tokens = torch.arange(40_000)
    seen = list(batches(tokens, 6, torch.Generator().manual_seed(0)))
    assert [tuple(b.shape) for b in seen] == [(16, 513)] * 6
    assert all((b[:, 1:] - b[:, :-1] == 1).all() for b in seen)
