"""Write the model card of the built-in model: `README.md` and `measurements.json` in the model's folder.

    python -m tools.mini.card --model DIR --train FILE

Every figure comes from `measure`, from the model's config.json, or from the training.json that the recipe left.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from diag.inputs.texts import load_text
from tools.mini.measure import measure
from tools.mini.train import END_OF_TEXT, WARMUP_STEPS

CURVE_ROWS = 12
MEASURED = ("enwik8", "wikitext2")  # built-in texts; routing is measured on the first


def table(header: str, rows: list[str]) -> str:
    """A Markdown table; cells are separated by `|`, the first column is left-aligned and the others right."""
    rule = "|".join([" --- "] + [" ---: "] * header.count("|"))
    return "\n".join(f"| {row} |" for row in [header, rule.strip(), *rows])


def curve_table(curve: list[dict[str, Any]]) -> str:
    """The points of the loss curve that carry a validation loss, thinned to CURVE_ROWS."""
    points = [point for point in curve if "valid_loss" in point]
    if len(points) > CURVE_ROWS:
        points = [points[round(i * (len(points) - 1) / (CURVE_ROWS - 1))] for i in range(CURVE_ROWS)]
    rows = [f"{p['step']} | {p['tokens'] / 1e6:.2f} | {p['loss']:.3f} | {p['valid_loss']:.3f}" for p in points]
    return table("step | million tokens seen | training loss, nats | validation loss, nats", rows)


def result_table(texts: dict[str, dict[str, Any]]) -> str:
    """Perplexity +- standard error and bits per byte, one row a text and predictor."""
    rows = []
    for name, text in texts.items():
        for label, key in (("`mini`", "model"), ("unigram", "unigram")):
            figures = text[key]
            spread = f"{figures['perplexity']:.2f} ± {figures['perplexity_stderr']:.2f}"
            counts = f"{text['windows']} | {text['scored_tokens']} | {text['scored_bytes']}"
            rows.append(f"{name}, {label} | {spread} | {figures['bits_per_byte']:.3f} | {counts}")
    return table("text, predictor | perplexity | bits a byte | windows | scored tokens | scored bytes", rows)


def routing_table(loads: list[dict[str, Any]]) -> str:
    """One row a layer; shares in percent."""
    rows = [
        f"{row['layer']} | {row['load_entropy']:.4f} | {100 * row['min_share']:.3f} | {100 * row['max_share']:.3f} "
        f"| {row['dead_experts']}"
        for row in loads
    ]
    return table("layer | load entropy H / ln E | lowest share, % | highest share, % | dead experts", rows)


def card(facts: dict[str, Any], config: dict[str, Any], training: dict[str, Any]) -> str:
    """The model card, from the measurements, the model's `config.json` and its `training.json`."""
    experts, top_k = len(facts["routing"][0]["share"]), config["num_experts_per_tok"]
    architecture = [
        f"family | {config['architectures'][0]}",
        f"parameters | {facts['parameters']:,}",
        f"of them in experts | {facts['parameters_in_experts']:,}",
        f"active for one token, embeddings included | {facts['parameters_active']:,}",
        f"weights | {config['dtype']}, {facts['weight_bytes']:,} bytes of safetensors",
        f"layers | {config['num_hidden_layers']}, of them {len(facts['routing'])} mixtures of experts",
        f"experts a layer | {experts}, {top_k} a token, no shared expert",
        f"width of an expert | {config['moe_intermediate_size']}",
        f"hidden size | {config['hidden_size']}",
        f"attention heads | {config['num_attention_heads']} of width {config['head_dim']}, "
        f"{config['num_key_value_heads']} for keys and values",
        f"context | {config['max_position_embeddings']} tokens",
        f"vocabulary | {config['vocab_size']}, input and output embeddings "
        f"{'tied' if config['tie_word_embeddings'] else 'separate'}",
    ]
    last = training["curve"][-1]
    stage = "" if last["step"] == training["steps"] else f" (a snapshot: the run goes on to {training['steps']} steps)"
    texts, train = facts["texts"], facts["train"]
    sums = [f"{name} | {text['text_bytes']} | `{text['sha256']}`" for name, text in texts.items()]
    return f"""---
license: apache-2.0
language:
- en
library_name: transformers
pipeline_tag: text-generation
tags:
- mixture-of-experts
- {config["model_type"]}
---

# mini

A small mixture-of-experts language model, trained from scratch, that ships with `tdmoe-diag` as its built-in model.

**For:** running the toolkit offline on a *trained* router and *trained* experts in the ordinary Hugging Face layout,
where compression costs something that can be measured.

**Not for:** writing text that anyone relies on, facts, chat or instructions, languages other than English; nor for
concluding from {facts["parameters"] / 1e6:.1f} million parameters what happens in models a thousand times larger.
It was neither aligned nor filtered, and repeats the errors and biases of its training text.

## Architecture

{table("property | value", architecture)}

## Tokenizer

Byte-level BPE with the GPT-2 splitting rule, {config["vocab_size"]} entries, trained on the training text. It covers
every UTF-8 string. `{END_OF_TEXT}` is its only special token and occurs {train["end_of_text_tokens"]} times in the
training text; no token is added in front of a text.

## Data and licences

Trained on English Wikipedia prose from enwik8: the first {train["text_bytes"] / 1e6:.0f} MB of its articles after
wiki markup, templates, tables, lists and short lines were stripped, {training["corpus_tokens"]:,} tokens. The text is
by the contributors of the English Wikipedia, under CC BY-SA 3.0 and GFDL, and so is WikiText-2. The weights are under
Apache-2.0. The held-out text is the end of the same cleaned corpus, other articles than those of the training text.

{table("text | bytes | sha256", [f"training | {train['text_bytes']} | `{train['sha256']}`", *sums])}

## Training

{last["step"]} steps{stage} of {training["tokens_per_step"]} tokens in windows of {training["window"]}:
{last["tokens"]:,} tokens seen, {last["tokens"] / training["corpus_tokens"]:.2f} epochs; {training["minutes"]} minutes
on {training["device"]} with {training["threads"]} threads, torch {training["torch"]}, seed {training["seed"]}. AdamW,
learning rate {training["peak_lr"]} after {WARMUP_STEPS} steps of warm-up, then linear to zero, weight decay
{training["weight_decay"]} on matrices. Loss: next-token cross-entropy + {training["balance_weight"]} × load-balancing
loss, averaged over layers (`router_aux_loss_coef` in config.json is transformers' default and was not used). Everything
else is in the recipe, `tools/mini/train.py`.

{curve_table(training["curve"])}

Training loss is the mean over the steps since the record before; validation loss is taken on the beginning of the
held-out text, during training. Neither contains the load-balancing term.

## Results

{result_table(texts)}

Perplexity is exp of the mean next-token cross-entropy in nats, from the logits, in {facts["compute_dtype"]} on the
stored {config["dtype"]} weights, ± its standard error over windows. Each text is read as one string and tokenised
once; windows of {facts["window"]} tokens do not overlap, the remainder is dropped, and the first token of a window is
not scored. Bits a byte divide by the UTF-8 bytes of the scored tokens' text, and are the figure to compare with models
of other tokenizers. *Unigram* scores the same tokens with add-one-smoothed frequencies of the training text.
WikiText-2 is Wikipedia too, of a later date, with its punctuation set apart (` , `, ` @-@ `) and its headings kept; its
articles may share subjects with the training text. Measured with torch {facts["torch"]}, transformers
{facts["transformers"]}.

## Routing

On {next(iter(texts))}, all {facts["window"]} tokens of each window; an even load would give every expert
{100 / experts:.3f} %.

{routing_table(facts["routing"])}

A share is the part of a layer's routed slots (tokens × {top_k}) that one expert got, from the router logits; an expert
is dead when no token chose it. The share of each expert is in `measurements.json`.

## Reproduce

```
make mini TEXT=train.txt.gz TO=DIR
```

The training text is the one with the sum above; the two evaluated ones ship in `diag/assets/texts/`. Another device,
number of threads or torch version rounds differently, and so gives other weights.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder written by tools.mini.train")
    parser.add_argument("--train", required=True, help="training text, for the unigram baseline")
    parser.add_argument("--windows", type=int, help="windows of each text (default: all)")
    args = parser.parse_args()
    try:
        config = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
        training = json.loads((args.model / "training.json").read_text(encoding="utf-8"))
        texts = {name: load_text(name) for name in MEASURED}
        facts = measure(args.model, texts, load_text(args.train), training["window"], args.windows)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    (args.model / "measurements.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (args.model / "README.md").write_text(card(facts, config, training), encoding="utf-8")


if __name__ == "__main__":
    main()
