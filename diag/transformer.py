"""The transformers model and tokenizer of a --model, for what needs a forward pass."""

from __future__ import annotations

from typing import Any

from diag.models import Model
from tdmoe.files import Files
from tdmoe.problems import InputError

VOCABULARIES = ("tokenizer", "vocab", "spiece", "sentencepiece", "tekken", "tiktoken", "merges")


def load_tokenizer(model: Model, files: Files) -> Any:
    """InputError when the checkpoint has none."""
    import transformers

    arguments, options = _place(model, files)
    if not any(name.startswith(VOCABULARIES) and name != "tokenizer_config.json" for name in files.names()):
        # transformers makes one up that knows no words
        raise InputError(f"--model {model.name}: has no tokenizer; its tokenizer.json or vocabulary files are needed")
    try:
        return transformers.AutoTokenizer.from_pretrained(*arguments, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"--model {model.name}: has no tokenizer that transformers can load ({_line(error)})"
        ) from error


def load_model(model: Model, files: Files, device: str, dtype: str = "auto", *, hollow: bool = False) -> Any:
    """For inference, its weights frozen; in its own dtype or another. InputError where transformers cannot load it.

    A `hollow` one has no experts: they are never read, and have to be put in (diag/hollow.py).
    """
    import transformers

    import tdmoe.hub  # noqa: F401  checkpoints in our own format load too

    arguments, options = _place(model, files)
    before = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(*arguments, **options)
        causal = type(config) in transformers.AutoModelForCausalLM._model_mapping
        named = getattr(transformers, (config.architectures or [""])[0], None)  # for models of images and text
        kind = transformers.AutoModelForCausalLM if causal or named is None else named
        if hollow:
            from diag.hollow import hollow_class, without_quantization

            kind = hollow_class(transformers.AutoModelForCausalLM._model_mapping[type(config)] if causal else kind)
            options |= {"config": without_quantization(config)}
        loaded = kind.from_pretrained(*arguments, dtype=dtype, **options)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(f"--model {model.name}: transformers cannot load it ({_line(error)})") from error
    finally:
        if before:
            transformers.logging.enable_progress_bar()
    return loaded.to(device).eval().requires_grad_(False)


def _place(model: Model, files: Files) -> tuple[tuple[str], dict[str, Any]]:
    """Where transformers finds it: a folder, or a commit in the cache."""
    if model.folder is not None:
        return (str(model.folder),), {}
    return (model.repo,), {"revision": str(files.commit)}


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
