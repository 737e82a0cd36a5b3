"""Weights of a model that count when bits saved are told: all but the input embeddings, which are looked up only.

Where no output head is stored, the embedding matrix is the head too (tied): then it is counted, once. So a tied and an
untied model are counted alike, each with one head.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression.unquantised import unquantised
from tdmoe.stacks.architecture import language_config

EMBEDDINGS, HEAD, LAYERS = ("embed_tokens.", "word_embeddings."), "lm_head.", ".layers."
TIE = "tie_word_embeddings"
ALL_BUT, ALL = "all but input embeddings", "all: the tied embeddings are the output head, counted once"


def bits(checkpoint: Checkpoint) -> int:
    """Stored bits of everything that is counted."""
    counts = _counts(checkpoint)
    return 8 * sum(checkpoint.entry(name).nbytes for name in checkpoint.names() if counts(name))


def parameters(checkpoint: Checkpoint) -> int:
    """Weights that are counted, however they are stored."""
    counts = _counts(checkpoint)
    return sum(prod(found.entry.shape) for found in unquantised(checkpoint) if counts(found.entry.name))


def denominator(checkpoint: Checkpoint) -> str:
    """Name of what `bits` and `parameters` count."""
    return ALL if is_tied(checkpoint) else ALL_BUT


def is_tied(checkpoint: Checkpoint) -> bool:
    """Tell whether the embedding matrix is the output head too: no other is stored, and config.json does not object."""
    return not any(HEAD in name for name in checkpoint.names()) and _says_tied(checkpoint) is not False


def stored_twice(checkpoint: Checkpoint) -> int:
    """Bytes of the embeddings where config.json says that they are tied and the head is stored beside them."""
    if not _says_tied(checkpoint) or is_tied(checkpoint):
        return 0
    return sum(checkpoint.entry(name).nbytes for name in checkpoint.names() if _is_embedding(name))


def _says_tied(checkpoint: Checkpoint) -> bool | None:
    said = {config.get(TIE) for config in (checkpoint.config, language_config(checkpoint.config))} - {None}
    return any(said) if said else None


def _counts(checkpoint: Checkpoint) -> Callable[[str], bool]:
    tied = is_tied(checkpoint)

    def counts(name: str) -> bool:
        return not any(part in name for part in EMBEDDINGS) or (tied and _is_embedding(name))

    return counts


def _is_embedding(name: str) -> bool:
    """Tell whether it is the model's own embedding matrix, and not a copy in a layer that predicts further tokens."""
    return any(part in name for part in EMBEDDINGS) and LAYERS not in name
