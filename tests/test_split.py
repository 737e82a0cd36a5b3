"""Dense feed-forward layers split into experts compute what they did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralForCausalLM

from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.locate import open_stack
from tools.mini.split import split


def dense(**changed: object) -> LlamaForCausalLM:
    """A pico Llama with random weights."""
    torch.manual_seed(3)
    settings = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 64, "num_hidden_layers": 2}
    settings |= {"num_attention_heads": 3, "num_key_value_heads": 1, "max_position_embeddings": 32}
    config = LlamaConfig(**settings, rope_parameters={"rope_type": "default", "rope_theta": 5e4}, **changed)  # type: ignore[arg-type]
    return LlamaForCausalLM(config).eval()


def test_it_is_the_same_function_and_its_experts_are_parts_of_the_layer(tmp_path: Path) -> None:
    model = dense()
    split(model, 4).save_pretrained(tmp_path)
    made = MixtralForCausalLM.from_pretrained(tmp_path).eval()
    ids_BT = torch.randint(40, (2, 11))
    with torch.no_grad():
        assert torch.allclose(made(input_ids=ids_BT).logits, model(input_ids=ids_BT).logits, atol=1e-5)
    with Checkpoint(tmp_path) as checkpoint:
        arch = architecture(checkpoint.config)
        mlp = model.model.layers[1].mlp
        up_EOI = open_stack(checkpoint, arch, 1, "up").weights(0, 4)
        down_EOI = open_stack(checkpoint, arch, 1, "down").weights(0, 4)
        assert torch.equal(up_EOI[2], mlp.up_proj.weight[32:48])
        assert torch.equal(down_EOI[3], 4 * mlp.down_proj.weight[:, 48:])


@pytest.mark.parametrize(
    ("changed", "experts", "message"),
    [({}, 5, "5 experts: .* divides the 64"), ({}, 1, "1 experts"), ({"mlp_bias": True}, 4, "has biases")],
)
def test_what_cannot_be_split_is_refused(changed: dict[str, object], experts: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(dense(**changed), experts)
