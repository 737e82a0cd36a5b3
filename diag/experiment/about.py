"""Facts of a model that presets have to know."""

from __future__ import annotations

from diag.experiment.presets import About
from diag.inputs.windows import WINDOW
from diag.models.open_model import OpenModel
from tdmoe.stacks.architecture import language_config


def about(model: str, revision: str | None = None) -> About:
    """The facts, from its config and tokenizer; InputError where there is no such model."""
    with OpenModel(model, "cpu", revision or None) as opened:
        positions = language_config(opened.checkpoint.config).get("max_position_embeddings") or WINDOW
        tokenizer = opened.tokenizer()
        first = tokenizer("a", verbose=False)["input_ids"][:1]
        arch, begins = opened.arch, first == [tokenizer.bos_token_id]
        return About(len(arch.layers), int(positions), arch.experts, begins)
