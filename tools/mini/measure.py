"""What the model card of the built-in model states, measured: perplexity, unigram baseline, expert load.

A text is read as one string, tokenised once, no token added in front, and cut into windows of T tokens without overlap,
the remainder dropped; the first token of a window has no context and is not scored. Losses, perplexity and its standard
error over windows are those of diag/statistics/evaluation.py, in float32.

Bits per byte = (nats of all scored tokens / ln 2) / (UTF-8 bytes of the scored tokens' text).

The unigram baseline scores the same tokens with p(v) = (n_v + 1) / (N + V), n_v counted on the training text.

Load entropy of a layer = -sum_e f_e ln f_e / ln E, f_e the share of routed slots (tokens x top-k) that expert e got:
1 when all experts are used alike, 0 when only one is.

Legend: W windows, B windows of a batch, T tokens of a window, V vocabulary, E experts, K experts a token, N tokens,
L layers.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diag.statistics.evaluation import perplexity, token_losses
from tools.mini.train import END_OF_TEXT, encode

BATCH = 8


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
        nats.append(token_losses(output.logits, ids_BT))
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


def summary(nats_WT: Tensor, bytes_scored: int) -> dict[str, float | None]:
    """Perplexity with its standard error over windows, and bits per byte."""
    found = perplexity(nats_WT.mean(1).numpy())
    return {
        "perplexity": found.value,
        "perplexity_stderr": found.stderr,
        "cross_entropy_nats": found.loss.value,
        "cross_entropy_nats_stderr": found.loss.stderr,
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

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
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
