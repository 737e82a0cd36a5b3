"""The transformers model and tokenizer of a --model, for what needs a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from diag.models.finite import check_finite
from diag.models.loadable import check_info
from diag.models.model import Model
from diag.models.pretrained import load_config, model_class, place, quiet, said
from tdmoe.checkpoint import json_text
from tdmoe.checkpoint.encodings import PLAIN
from tdmoe.checkpoint.files import Files
from tdmoe.checkpoint.reader import CONFIG, Checkpoint
from tdmoe.problems import InputError, shown
from tdmoe.runtime.calibration import MODULE

TOKENIZER = "tokenizer.json"
ROW_BYTES = 16  # of which a row of a grouped product is a multiple
VOCABULARIES = ("tokenizer", "vocab", "spiece", "sentencepiece", "tekken", "tiktoken", "merges")


def load_tokenizer(model: Model, files: Files, vocabulary: int | None = None) -> Any:
    """InputError when the checkpoint has none, or one with tokens beyond the model's `vocabulary`."""
    import transformers

    if not any(name.startswith(VOCABULARIES) and name != "tokenizer_config.json" for name in files.names()):
        # transformers makes one up that knows no words
        raise InputError("model", model.name, "has no tokenizer", "its tokenizer.json or vocabulary files are needed")
    try:
        with place(model, Checkpoint(files)) as (where, options):
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
        ids = [*tokenizer.get_vocab().items(), *_added(files)]
        token, largest = max(ids, key=lambda item: item[1])
    except (KeyboardInterrupt, SystemExit, InputError):
        raise
    except BaseException as error:  # a damaged file may even end in a panic of the tokenizers library
        raise InputError(
            "model",
            model.name,
            f"has no tokenizer that transformers can load ({said(error)})",
            "download its tokenizer files again",
        ) from error
    if vocabulary is not None and largest >= vocabulary:
        raise InputError(
            "model",
            model.name,
            f"its tokenizer has token {shown(token)} with id {largest:,}, but {CONFIG} says vocab_size {vocabulary:,}",
            "give the tokenizer of this model",
        )
    return tokenizer


def _added(files: Files) -> Iterator[tuple[str, int]]:
    """(token, id) as its file adds them: the tokenizers library quietly takes other ids where these make no sense."""
    if TOKENIZER not in files.names():
        return
    files.read(TOKENIZER, 0, memoryview(raw := bytearray(files.size(TOKENIZER))))
    for added in json_text.parse(bytes(raw)).get("added_tokens") or ():
        yield str(added["content"]), int(added["id"])


def load_model(model: Model, files: Files, device: str, dtype: str = "auto", *, hollow: bool = False) -> Any:
    """Load a model for inference, frozen; in its own dtype or another. InputError where transformers cannot load it.

    A `hollow` one has no experts: they are never read, and have to be put in (diag/models/hollow.py). WeightError where
    a weight is NaN or infinite.
    """
    checkpoint = Checkpoint(files)
    checkpoint.refuse_adapter()
    with place(model, checkpoint) as (where, options), quiet():
        config = load_config(where, options)
        kind = model_class(config)
        if hollow:
            from diag.models.hollow import hollow_class, without_quantization

            kind, config = hollow_class(kind), without_quantization(config)
        try:
            loaded, info = kind.from_pretrained(
                where, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
            raise InputError("model", model.name, f"transformers cannot load it ({said(error)})") from error
    check_info(checkpoint, info)
    check_finite(checkpoint, loaded)
    _loop_where_unaligned(loaded)
    return loaded.to(device).eval().requires_grad_(False)


def _loop_where_unaligned(loaded: Any) -> None:
    """Experts one after the other where transformers' grouped product would refuse rows of other than 16 bytes."""
    for name, module in loaded.named_modules():
        weight = getattr(module, "down_proj", None) if MODULE.search(name) else None
        if not isinstance(weight, Tensor) or weight.dtype not in PLAIN.values():
            continue
        if any(width * weight.element_size() % ROW_BYTES for width in weight.shape[-2:]):
            loaded.set_experts_implementation("eager")
            return
