"""The recipe of the built-in model `mini`: a Qwen3-MoE causal LM trained from scratch on plain text.

    python -m tools.mini.train --text FILE[.gz] --to DIR [--device cuda]
    python -m tools.mini.train ... --layout mixtral --seed 7 --steps 1400     another model of the same recipe

One fixed seed, AdamW with warm-up and linear decay to zero, next-token cross-entropy plus a
load-balancing loss (Fedus et al. 2021, Switch Transformer, eq. 4-6) taken *per layer*: transformers' own
`load_balancing_loss_func` pools the layers, which lets one layer's imbalance hide behind another's.

On CPU the optimiser state and weights stay float32 and the products run in bfloat16; glibc's allocator returns
large blocks to the system at every step, so `make mini` sets MALLOC_* limits, which makes it 1.5 times faster.

Legend: B windows, T tokens a window, V vocabulary, E experts.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diag.inputs.texts import load_text

SEED = 20261123
VOCABULARY = 4096
WINDOW = 512
WINDOWS_PER_STEP = 16
PEAK_LR = 3e-3
WARMUP_STEPS = 150
WEIGHT_DECAY = 0.1
BALANCE_WEIGHT = 0.02
END_OF_TEXT = "<|endoftext|>"
CONFIG: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 192,
    "intermediate_size": 512,
    "moe_intermediate_size": 80,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 48,
    "max_position_embeddings": WINDOW,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
# Eight wide experts, two a token; as many weights in a layer's experts, and outputs of gate and up exceed the inputs
MIXTRAL = {
    **{key: value for key, value in CONFIG.items() if key not in ("moe_intermediate_size", "num_experts")},
    **{"intermediate_size": 320, "num_local_experts": 8, "num_experts_per_tok": 2},
}
LAYOUTS = {"qwen3_moe": CONFIG, "mixtral": MIXTRAL}


def train_tokenizer(text: str):  # type: ignore[no-untyped-def]  # transformers is imported late
    """Byte-level BPE (GPT-2 style) of VOCABULARY entries, trained on `text`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(text.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=WINDOW,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer, text: str) -> Tensor:  # type: ignore[no-untyped-def]
    """Token ids of a long text; encoded line by line, which is the same for this tokenizer and far faster."""
    lines = tokenizer.backend_tokenizer.encode_batch(text.splitlines(keepends=True))
    return torch.from_numpy(np.concatenate([np.asarray(line.ids, dtype=np.int64) for line in lines]))


def balance_loss(router_logits: tuple[Tensor, ...], top_k: int) -> Tensor:
    """E * sum_e f_e p_e averaged over layers: f_e the share of routed slots, p_e the mean router probability."""
    terms = []
    for logits_NE in router_logits:
        probabilities_NE = logits_NE.float().softmax(-1)
        chosen_NK = probabilities_NE.topk(top_k, dim=-1).indices
        experts = logits_NE.shape[-1]
        share_E = torch.bincount(chosen_NK.flatten(), minlength=experts) / chosen_NK.numel()
        terms.append(experts * (share_E * probabilities_NE.mean(0)).sum())
    return torch.stack(terms).mean()


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up to PEAK_LR, then linear decay to zero."""
    return PEAK_LR * min((step + 1) / WARMUP_STEPS, (steps - step) / max(1, steps - WARMUP_STEPS))


def batches(tokens: Tensor, steps: int, generator: torch.Generator):  # type: ignore[no-untyped-def]
    """Windows of WINDOW + 1 tokens in random order; each epoch cuts the text at a new offset."""
    done = 0
    while True:
        offset = int(torch.randint(WINDOW, (1,), generator=generator))
        count = (tokens.numel() - offset - 1) // WINDOW
        for chunk in torch.randperm(count, generator=generator).split(WINDOWS_PER_STEP):
            if len(chunk) < WINDOWS_PER_STEP:
                continue
            yield torch.stack([tokens[offset + i * WINDOW : offset + (i + 1) * WINDOW + 1] for i in chunk.tolist()])
            done += 1
            if done == steps:
                return


@torch.no_grad()
def mean_loss(model: nn.Module, tokens: Tensor, windows: int) -> float:
    """Next-token cross-entropy in nats over the first `windows` windows, from the logits alone."""
    model.eval()
    total, count = 0.0, 0
    for window in tokens[: windows * WINDOW].split(WINDOW):
        ids = window[None].to(next(model.parameters()).device)
        logits_TV = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        total += float(nn.functional.cross_entropy(logits_TV, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    model.train()
    return total / count


def train(args: argparse.Namespace) -> None:
    """Train, then write the checkpoint, the tokenizer and `training.json` (settings and loss curve) to `--to`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    text = load_text(args.text)
    tokenizer = train_tokenizer(text)
    tokens = encode(tokenizer, text)
    valid = encode(tokenizer, load_text(args.valid))
    args.to.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(args.to)

    settings = LAYOUTS[args.layout]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(args.layout, **settings))
    model.set_experts_implementation("grouped_mm")
    model.to(device).train()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.95), fused=True)

    started, curve, recent = time.time(), [], []
    generator = torch.Generator().manual_seed(args.seed)
    for step, batch in enumerate(batches(tokens, args.steps, generator)):
        ids_BT = batch.to(device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps)
        with torch.autocast(device.type, torch.bfloat16):
            output = model.model(input_ids=ids_BT[:, :-1], output_router_logits=True, use_cache=False)
            logits = model.lm_head(output.last_hidden_state)
            loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), ids_BT[:, 1:].flatten())
            balance = balance_loss(output.router_logits, settings["num_experts_per_tok"])
        (loss + BALANCE_WEIGHT * balance).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        if not math.isfinite(recent[-1]):
            raise SystemExit(f"loss is {recent[-1]} at step {step}: lower PEAK_LR")
        if step % 50 == 0 or step == args.steps - 1:
            seen = (step + 1) * WINDOWS_PER_STEP * WINDOW
            point = {"step": step + 1, "tokens": seen, "loss": round(sum(recent) / len(recent), 4)}
            point["balance"], recent = round(balance.item(), 4), []
            if step % 500 == 0 or step == args.steps - 1:
                point["valid_loss"] = round(mean_loss(model, valid, 48), 4)
            curve.append(point)
            print(json.dumps(point | {"minutes": round((time.time() - started) / 60, 2)}), flush=True)
        if step + 1 in (args.snapshot, args.steps):
            minutes = (time.time() - started) / 60
            save(model, args, tokens.numel(), minutes, curve)


def save(model: Any, args: argparse.Namespace, corpus_tokens: int, minutes: float, curve: list) -> None:  # type: ignore[type-arg]
    """bf16 safetensors in the per-expert Hugging Face layout, plus what the model card needs to know."""
    import copy

    final = copy.deepcopy(model).to(torch.bfloat16)
    final.config.dtype = "bfloat16"
    final.save_pretrained(args.to)
    facts = {
        "seed": args.seed,
        "layout": args.layout,
        "steps": args.steps,
        "tokens_seen": curve[-1]["tokens"],
        "corpus_tokens": corpus_tokens,
        "minutes": round(minutes, 1),
        "device": args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "window": WINDOW,
        "tokens_per_step": WINDOW * WINDOWS_PER_STEP,
        "peak_lr": PEAK_LR,
        "weight_decay": WEIGHT_DECAY,
        "balance_weight": BALANCE_WEIGHT,
        "curve": curve,
    }
    (args.to / "training.json").write_text(json.dumps(facts, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, required=True, help="training text, plain or gzip")
    parser.add_argument("--valid", default="enwik8", help="held-out text: a file or a built-in text")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    parser.add_argument("--layout", choices=LAYOUTS, default="qwen3_moe", help="of the model")
    parser.add_argument("--seed", type=int, default=SEED, help="of weights and order of the windows")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=4200)
    parser.add_argument("--snapshot", type=int, default=0, help="also save at this step")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
