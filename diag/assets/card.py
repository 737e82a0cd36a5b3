"""Measure the built-in model and write its model card: `README.md` and `measurements.json` in the model's folder.

    python -m diag.assets.card --model DIR --valid FILE --wikitext FILE --train FILE [--windows N]

Perplexity is exp of the mean next-token cross-entropy in nats, computed in float32 from the logits, never from the
model's own loss (which may carry a load-balancing term). A text is read as one string, tokenised once, no token
added in front, and cut into windows of T tokens without overlap, the remainder dropped; the first token of a window
has no context and is not scored. With c_w the mean cross-entropy of window w of W, all of equal length,

    perplexity = exp(c),   c = mean_w c_w,   stderr(c) = sqrt(sum_w (c_w - c)^2 / (W (W - 1))),
    stderr(perplexity) = perplexity * stderr(c)      (delta method, first order).

Bits per byte = (nats of all scored tokens / ln 2) / (UTF-8 bytes of the scored tokens' text).

The unigram baseline scores the same tokens with p(v) = (n_v + 1) / (N + V), n_v counted on the training text.

Load entropy of a layer = -sum_e f_e ln f_e / ln E, f_e the share of routed slots (tokens x top-k) that expert e got:
1 when all experts are used alike, 0 when only one is.

Legend: W windows, B windows of a batch, T tokens of a window, V vocabulary, E experts, K experts a token, N tokens,
L layers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diag.assets.train_mini import END_OF_TEXT, WARMUP_STEPS, encode, read_text

BATCH = 8
CURVE_ROWS = 12


def cut_windows(tokens_N: Tensor, window: int, cap: int | None) -> Tensor:
    """Whole windows of a text, the first `cap` of them, as (W, T)."""
    count = tokens_N.numel() // window
    count = count if cap is None else min(count, cap)
    if count < 2:
        raise ValueError(
            f"a standard error needs 2 windows of {window} tokens, got {count}: raise --windows or the text"
        )
    return tokens_N[: count * window].view(count, window)


@torch.inference_mode()
def score(model: nn.Module, ids_WT: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats of every scored token, (W, T - 1), and slots routed to every expert, (L, E)."""
    nats, counts = [], []
    for ids_BT in torch.split(ids_WT, BATCH):
        output = model(input_ids=ids_BT, output_router_logits=True, use_cache=False)
        logits_BVT = output.logits[:, :-1].float().transpose(1, 2)
        nats.append(nn.functional.cross_entropy(logits_BVT, ids_BT[:, 1:], reduction="none").double())
        counts.append(torch.stack([slots(logits_NE, top_k) for logits_NE in output.router_logits]))
    return torch.cat(nats), torch.stack(counts).sum(0)


def slots(router_logits_NE: Tensor, top_k: int) -> Tensor:
    """How many tokens chose each expert: softmax, then the top k, as the model itself routes."""
    chosen_NK = router_logits_NE.float().softmax(-1).topk(top_k, dim=-1).indices
    return torch.bincount(chosen_NK.flatten(), minlength=router_logits_NE.shape[-1])


def token_bytes(tokenizer: Any) -> Tensor:
    """UTF-8 bytes of every token; in byte-level BPE each character of a token's name stands for one byte."""
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return torch.tensor([len(END_OF_TEXT.encode()) if name == END_OF_TEXT else len(name) for name in names])


def summary(nats_WT: Tensor, bytes_scored: int) -> dict[str, float]:
    """Perplexity with its standard error over windows, and bits per byte."""
    windows_W = nats_WT.mean(1)
    mean = float(windows_W.mean())
    stderr = float(windows_W.std(correction=1)) / math.sqrt(len(windows_W))
    return {
        "perplexity": math.exp(mean),
        "perplexity_stderr": math.exp(mean) * stderr,
        "cross_entropy_nats": mean,
        "cross_entropy_nats_stderr": stderr,
        "bits_per_byte": float(nats_WT.sum()) / math.log(2) / bytes_scored,
    }


def routing(counts_LE: Tensor) -> list[dict[str, Any]]:
    """Load of the experts, layer by layer; an expert is dead when no token at all chose it."""
    rows: list[dict[str, Any]] = []
    for layer, counts_E in enumerate(counts_LE.double()):
        share_E = counts_E / counts_E.sum()
        rows.append(
            {
                "layer": layer,
                "load_entropy": float(torch.special.entr(share_E).sum()) / math.log(len(share_E)),
                "min_share": float(share_E.min()),
                "max_share": float(share_E.max()),
                "dead_experts": int((counts_E == 0).sum()),
                "share": share_E.tolist(),
            }
        )
    return rows


def measure(folder: Path, texts: dict[str, str], train: str, window: int, cap: int | None) -> dict[str, Any]:
    """All figures of the card. `texts` are the evaluated ones; routing is measured on the first."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    top_k, experts = model.config.num_experts_per_tok, model.config.num_experts
    parameters = sum(p.numel() for p in model.parameters())
    in_experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    bytes_V = token_bytes(tokenizer)
    counts_V = torch.bincount(encode(tokenizer, train), minlength=len(bytes_V)).double()
    unigram_V = ((counts_V + 1) / (counts_V.sum() + len(counts_V))).log().neg()

    results, loads = {}, []
    for name, text in texts.items():
        tokens_N = encode(tokenizer, text)
        if int(bytes_V[tokens_N].sum()) != len(text.encode()):
            raise ValueError(f"the tokens of {name} do not hold its bytes: is the tokenizer a byte-level BPE?")
        ids_WT = cut_windows(tokens_N, window, cap)
        targets_WT = ids_WT[:, 1:]
        bytes_scored = int(bytes_V[targets_WT].sum())
        nats_WT, counts_LE = score(model, ids_WT, top_k)
        loads.append(routing(counts_LE))
        results[name] = {
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "text_bytes": len(text.encode()),
            "text_tokens": tokens_N.numel(),
            "windows": len(ids_WT),
            "scored_tokens": targets_WT.numel(),
            "scored_bytes": bytes_scored,
            "model": summary(nats_WT, bytes_scored),
            "unigram": summary(unigram_V[targets_WT], bytes_scored),
        }
    return {
        "parameters": parameters,
        "parameters_in_experts": in_experts,
        "parameters_active": parameters - in_experts + in_experts * top_k // experts,
        "weight_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "window": window,
        "compute_dtype": "float32",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "train": {
            "sha256": hashlib.sha256(train.encode()).hexdigest(),
            "text_bytes": len(train.encode()),
            "end_of_text_tokens": int(counts_V[tokenizer.convert_tokens_to_ids(END_OF_TEXT)]),
        },
        "texts": results,
        "routing": loads[0],
    }


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
loss, averaged over layers. Everything else is in the recipe, `diag/assets/train_mini.py`.

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
python -m diag.assets.train_mini --text TRAIN.txt.gz --valid VALID.txt.gz --to mini --device {training["device"]} \\
    --steps {training["steps"]}
python -m diag.assets.card --model mini --valid VALID.txt.gz --wikitext wiki.test.raw --train TRAIN.txt.gz
```

The texts are those with the sums above; the two evaluated ones ship in `diag/assets/texts/`. Another device, number of
threads or torch version rounds differently, and so gives other weights.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder written by diag.assets.train_mini")
    parser.add_argument("--valid", type=Path, required=True, help="held-out text, .txt or .txt.gz")
    parser.add_argument("--wikitext", type=Path, required=True, help="WikiText-2 raw test")
    parser.add_argument("--train", type=Path, required=True, help="training text, for the unigram baseline")
    parser.add_argument("--windows", type=int, help="windows of each text (default: all)")
    args = parser.parse_args()
    try:
        config = json.loads((args.model / "config.json").read_text(encoding="utf-8"))
        training = json.loads((args.model / "training.json").read_text(encoding="utf-8"))
        texts = {"enwik8 held-out": read_text(args.valid), "WikiText-2 raw test": read_text(args.wikitext)}
        facts = measure(args.model, texts, read_text(args.train), training["window"], args.windows)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    (args.model / "measurements.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (args.model / "README.md").write_text(card(facts, config, training), encoding="utf-8")


if __name__ == "__main__":
    main()
