"""A text as windows of tokens: tokenised once, nothing added, cut without overlap, the rest dropped.

Of a long text only the beginning is tokenised, where that gives the same tokens: a tokenizer that first splits text
into words decides on each by itself, so that tokens before a beginning's last words do not depend on what follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reports.formats import counted
from tdmoe.problems import InputError
from tdmoe.stacks.architecture import language_config

WINDOW = 2048  # tokens; shorter where a model has fewer positions
REMEMBERED = 6  # tokenised texts
SHORT = 1 << 18  # characters of a text that is tokenised whole
CHARACTERS = 8  # of a token, or fewer, in most texts
END = 2048  # characters of a beginning whose tokens may still change
WORDS = 64  # that they have at least, where a tokenizer splits text into words

_remembered: dict[tuple[str, str], list[int]] = {}


def token_windows(tokenizer: Any, text: str, tokens: int, window: int) -> Tensor:
    """(W, T): as many whole windows of `window` tokens as `tokens` and the text allow.

    InputError when that is not one window.
    """
    if tokens < window:
        raise InputError("tokens", tokens, f"a window takes {window} tokens", "give at least that")
    ids = first(tokenizer, text, tokens)
    count = min(tokens, len(ids)) // window
    if count == 0:
        raise InputError(
            "text", why=f"holds {counted(len(ids), 'token')}, a window takes {window}", remedy="give a longer text"
        )
    return torch.tensor(ids[: count * window], dtype=torch.long).view(count, window)


def first(tokenizer: Any, text: str, tokens: int) -> list[int]:
    """Tokens of the text, so many or more, or all that it has; nothing is added to them."""
    size = max(SHORT, CHARACTERS * tokens)
    while size < len(text) and _splits(tokenizer, end := text[size - END : size]):
        ids = tokenised(tokenizer, text[:size])[: -len(end.encode())]  # a token takes a byte or more
        if len(ids) >= tokens:
            return ids
        size *= 2
    return tokenised(tokenizer, text)


def _splits(tokenizer: Any, text: str) -> bool:
    """Tell whether the tokenizer splits it into words before anything else."""
    splitter = getattr(getattr(tokenizer, "backend_tokenizer", None), "pre_tokenizer", None)
    return splitter is not None and len(splitter.pre_tokenize_str(text)) >= WORDS


def tokenised(tokenizer: Any, text: str) -> list[int]:
    """All of the text, nothing added.

    The last few are remembered: a command that makes the factors of many methods asks for the same text once a method.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    key = None if backend is None else (backend.to_str(), text)
    if key is not None and key in _remembered:
        return _remembered[key]
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if key is not None:
        while len(_remembered) >= REMEMBERED:
            del _remembered[next(iter(_remembered))]
        _remembered[key] = ids
    return ids


def window_of(config: Mapping[str, Any], asked: int | None = None) -> int:
    """Tokens of a window: what is asked, otherwise 2048 or as many as config.json has positions for."""
    most = language_config(config).get("max_position_embeddings") or WINDOW
    if asked is None:
        return min(WINDOW, most)
    if not 2 <= asked <= most:
        raise InputError("window", asked, f"this model takes 2 to {most} tokens", "give one of these")
    return asked
