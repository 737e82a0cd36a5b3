"""Losses of windows, perplexity and paired differences against plain loops and models whose perplexity is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import single_thread
from torch import Tensor

from diag.inputs.texts import load_text
from diag.models.model import resolve
from diag.probes.quality.protocol import Protocol, joined
from diag.statistics import evaluation
from diag.statistics.evaluation import Mean, mean, model_losses, paired, perplexity
from tdmoe.problems import InputError

WINDOWS, WINDOW = 6, 48


@pytest.fixture(scope="module")
def mini():  # type: ignore[no-untyped-def]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve("mini").folder
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with single_thread():
        yield model, AutoTokenizer.from_pretrained(folder)


class Bigram:
    """A model that predicts the next token from the last one, by a table of logits."""

    def __init__(self, logits_VV: Tensor) -> None:
        self.logits_VV = logits_VV

    def __call__(self, input_ids: Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.logits_VV[input_ids])


class Letters:
    """A tokenizer of single characters; its first token stands for the beginning of a text."""

    bos_token_id: int | None = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) - 96 for character in text]}


def test_uniform_logits_have_the_size_of_the_vocabulary_as_perplexity() -> None:
    ids_WT = torch.randint(0, 37, (5, 11), generator=torch.Generator().manual_seed(1))
    found = perplexity(model_losses(Bigram(torch.zeros(37, 37)), ids_WT, batch=2))
    assert found.value == pytest.approx(37, rel=1e-6)
    assert found.stderr == pytest.approx(0, abs=1e-6)


def test_a_planted_bigram_model_scores_its_own_text_at_its_entropy() -> None:
    """On text drawn from the chain itself, the loss is the chain's entropy rate within its standard error."""
    generator = torch.Generator().manual_seed(3)
    p_VV = torch.rand(7, 7, generator=generator, dtype=torch.float64).pow(3) + 0.01
    p_VV /= p_VV.sum(1, keepdim=True)
    values_V, vectors_VV = torch.linalg.eig(p_VV.T)
    stationary_V = vectors_VV[:, values_V.real.argmax()].real
    stationary_V /= stationary_V.sum()
    entropy = float((stationary_V[:, None] * torch.special.entr(p_VV)).sum())

    tokens_N = [0]
    for _ in range(200 * 50 - 1):
        tokens_N.append(int(torch.multinomial(p_VV[tokens_N[-1]], 1, generator=generator)))
    ids_WT = torch.tensor(tokens_N).view(200, 50)
    loss = mean(model_losses(Bigram(p_VV.log().float()), ids_WT, batch=64))
    exact = p_VV.log().neg()[ids_WT[:, :-1], ids_WT[:, 1:]].mean()
    assert loss.value == pytest.approx(float(exact), rel=1e-6)
    assert loss.stderr is not None
    assert abs(loss.value - entropy) < 4 * loss.stderr < 0.1


@pytest.mark.parametrize(
    "protocol",
    [
        Protocol(WINDOW, WINDOW, WINDOWS),
        Protocol(WINDOW, 20, WINDOWS),
        Protocol(WINDOW, 1, 3),
        Protocol(WINDOW, WINDOW, WINDOWS, join="blank-lines"),
    ],
    ids=lambda protocol: f"{protocol.stride}-{protocol.join}",
)
def test_losses_are_those_of_a_plain_loop_over_the_models_forward(mini, protocol: Protocol) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer = mini
    text = load_text("wikitext2")[:6000]
    ids_WT = protocol.cut(tokenizer, text, "wikitext2")
    found = model_losses(model, ids_WT, protocol.scored, batch=4)

    tokens = tokenizer(joined(text, protocol.join))["input_ids"]
    expected = []
    for w in range(protocol.windows):
        window = tokens[w * protocol.stride : w * protocol.stride + WINDOW]
        with torch.no_grad():
            log_p_TV = model(torch.tensor([window])).logits[0].double().log_softmax(-1)
        scored = range(max(1, WINDOW - protocol.stride), WINDOW)
        expected.append(-sum(float(log_p_TV[t - 1, window[t]]) for t in scored) / len(scored))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    value = perplexity(found)
    assert value.value == pytest.approx(math.exp(np.mean(expected)), rel=1e-5)
    spread = np.std(expected, ddof=1) / math.sqrt(len(expected))
    assert value.stderr == pytest.approx(value.value * spread, rel=1e-3)


@pytest.mark.parametrize("text", ["enwik8", "wikitext2"])
def test_mini_has_the_perplexity_of_its_model_card(mini, text: str) -> None:  # type: ignore[no-untyped-def]
    """On the first windows; within four standard errors of what the card states for the whole text."""
    model, tokenizer = mini
    card = json.loads((Path(str(resolve("mini").folder)) / "measurements.json").read_text())
    protocol = Protocol(card["window"], card["window"], 10)
    found = perplexity(model_losses(model, protocol.cut(tokenizer, load_text(text), text), protocol.scored, batch=2))
    assert found.loss.stderr is not None
    assert abs(found.loss.value - card["texts"][text]["model"]["cross_entropy_nats"]) < 4 * found.loss.stderr < 0.5


def test_chunks_of_logits_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_BTV, ids_BT = torch.randn(3, 9, 13, generator=generator), torch.randint(0, 13, (3, 9), generator=generator)
    whole = evaluation.window_losses(logits_BTV, ids_BT, 5)
    monkeypatch.setattr(evaluation, "LOGITS", 13 * 4)
    assert torch.equal(evaluation.window_losses(logits_BTV, ids_BT, 5), whole)


def test_what_is_hard_for_both_cancels_in_a_paired_difference() -> None:
    generator = np.random.default_rng(0)
    hard_W, effect_W = generator.normal(4, 1, 400), generator.normal(0.05, 0.1, 400)
    found = paired(hard_W + effect_W, hard_W)
    assert found.value == pytest.approx(effect_W.mean(), abs=1e-12)
    assert found.stderr == pytest.approx(effect_W.std(ddof=1) / 20, rel=1e-9)
    assert found.stderr is not None and abs(found.value - 0.05) < 4 * found.stderr < 0.03


def test_one_window_has_no_standard_error() -> None:
    assert mean(np.array([2.0])) == Mean(2.0, None, 1)
    assert perplexity(np.array([2.0])).stderr is None


def test_what_overflows_is_infinite() -> None:
    assert perplexity(np.array([800.0, 900.0])).value == math.inf


@pytest.mark.parametrize(
    ("protocol", "text", "windows"),
    [
        (Protocol(3, 3, 0), "abcdefgh", [[1, 2, 3], [4, 5, 6]]),
        (Protocol(3, 2, 0), "abcdefgh", [[1, 2, 3], [3, 4, 5], [5, 6, 7]]),
        (Protocol(3, 3, 1), "abcdefgh", [[1, 2, 3]]),
        (Protocol(3, 3, 0, bos="text"), "abcdefgh", [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        (Protocol(3, 3, 0, bos="window"), "abcdefgh", [[0, 2, 3], [0, 5, 6]]),
        (Protocol(3, 2, 0, bos="window"), "abcdefgh", [[0, 2, 3], [0, 4, 5], [0, 6, 7]]),
    ],
    ids=str,
)
def test_a_text_is_cut_as_stated(protocol: Protocol, text: str, windows: list[list[int]]) -> None:
    assert protocol.cut(Letters(), text, "t").tolist() == windows


def test_blank_lines_join_as_wikitext_through_datasets() -> None:
    """Rows of that data set: lines with their line end, white ones empty; joined by two line ends."""
    rows = ["", " = A = \n", "", " b \x0b c \n"]
    assert joined(" \n = A = \n \n b \x0b c \n", "blank-lines") == "\n\n".join(rows)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Protocol(8, 9, 0), "stride 9: a window has 8 tokens"),
        (lambda: Protocol(8, 0, 0), "stride 0"),
        (lambda: Protocol(8, 8, 0, join="commas"), "join commas: give one of as-is, blank-lines"),
        (lambda: Protocol(8, 8, 0, bos="maybe"), "bos maybe"),
        (lambda: Protocol(9, 9, 0).cut(Letters(), "abcdefgh", "t"), "texts t: holds 8 tokens, a window takes 9"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_tokenizer_without_bos_cannot_give_one() -> None:
    letters = Letters()
    letters.bos_token_id = None
    with pytest.raises(InputError, match="no beginning-of-sequence token"):
        Protocol(3, 3, 0, bos="text").cut(letters, "abcdef", "t")
