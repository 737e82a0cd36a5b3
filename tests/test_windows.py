"""Windows of tokens: what is tokenised of a long text, and that its tokens are those of the whole."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from diag.inputs import windows
from diag.inputs.texts import load_text


def trained(model: models.Model, trainer: Any, splitter: Any, text: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    if splitter is not None:
        tokenizer.pre_tokenizer = splitter
    tokenizer.train_from_iterator([text[:20_000]], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")


TOKENISED = windows.tokenised
KNOWN = {"vocab_size": 400, "special_tokens": ["?"], "show_progress": False}


@pytest.mark.parametrize(
    ("model", "trainer", "splitter", "whole"),
    [
        (models.BPE(unk_token="?"), trainers.BpeTrainer, pre_tokenizers.ByteLevel(add_prefix_space=False), False),
        (models.WordPiece(unk_token="?"), trainers.WordPieceTrainer, pre_tokenizers.BertPreTokenizer(), False),
        (models.Unigram(), trainers.UnigramTrainer, pre_tokenizers.Metaspace(), False),
        (models.BPE(unk_token="?"), trainers.BpeTrainer, pre_tokenizers.ByteLevel(use_regex=False), True),
        (models.BPE(unk_token="?"), trainers.BpeTrainer, None, True),
    ],
    ids=["bpe", "wordpiece", "unigram", "bytes unsplit", "unsplit"],
)
def test_the_first_tokens_are_those_of_the_whole_text(
    model: models.Model, trainer: Any, splitter: Any, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the beginning alone, wherever it ends, but where the tokenizer does not split text into words."""
    text = load_text("wikitext2")[:60_000]
    tokenizer = trained(
        model, trainer(**KNOWN, **({"unk_token": "?"} if "Unigram" in str(trainer) else {})), splitter, text
    )
    expected = tokenizer(text, add_special_tokens=False)["input_ids"]
    given: list[int] = []
    monkeypatch.setattr(windows, "tokenised", lambda t, part: given.append(len(part)) or TOKENISED(t, part))
    for short in range(9_000, 9_040):
        monkeypatch.setattr(windows, "SHORT", short)
        assert windows.first(tokenizer, text, 700)[:700] == expected[:700]
    assert set(given) == {60_000} if whole else max(given) < 10_000
    monkeypatch.setattr(windows, "SHORT", 2_048)
    assert windows.first(tokenizer, text, 6_000)[:6_000] == expected[:6_000]
    assert windows.first(tokenizer, text, 10**6) == expected
