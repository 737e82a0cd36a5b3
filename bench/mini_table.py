"""What each choice of TD-MoE costs on the built-in model: every variant compressed by the command, loaded and scored.

    python -m bench.mini_table --text TRAIN.txt.gz      writes bench/MINI.md; about fifty minutes on two cores

Calibrated on the first tokens of the text that the model was trained on, evaluated on texts that it has not seen.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.checkpoints import MINI
from bench.machine import hardware, today
from diag.inputs.texts import load_text
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.compression.counted import parameters
from tdmoe.stacks.architecture import architecture
from tools.mini.measure import cut_windows, score, summary
from tools.mini.train import encode

TOKENS, WINDOW = 262_144, 512
TEXTS = ("enwik8", "wikitext2")
RATIOS = ("0.2", "0.4")
GATE_UP = ("--projections", "gate,up")
ONE_SHOT = "decomposition=hosvd"
VARIANTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("published: no whitening, budget ranks", f"tdmoe:whitening=none,allocation=published,{ONE_SHOT}", GATE_UP),
    ("inverse whitening", f"tdmoe:whitening_direction=inverse,allocation=published,{ONE_SHOT}", GATE_UP),
    ("correct whitening", f"tdmoe:allocation=published,{ONE_SHOT}", GATE_UP),
    ("exact ranks", f"tdmoe:whitening=none,{ONE_SHOT}", GATE_UP),
    ("both", f"tdmoe:{ONE_SHOT}", GATE_UP),
    ("both + HOOI", "tdmoe", GATE_UP),
    ("+ shared input factor", "tdmoe:gate_up=joint", GATE_UP),
    ("+ core refit", "tdmoe:gate_up=joint,refit=expert", GATE_UP),
    ("+ gradients in the metric", "tdmoe:whitening=both,gate_up=joint,refit=expert", GATE_UP),
    ("+ down, global allocation, same bits", "tdmoe:gate_up=joint,refit=expert,across=global,ratio_of=model", ()),
    (
        "+ down, global by measured sensitivity, same bits",
        "tdmoe:gate_up=joint,refit=expert,across=global,weigh=sensitivity,ratio_of=model",
        (),
    ),
    ("exact ranks by weight error", f"tdmoe:whitening=none,objective=weight,{ONE_SHOT}", GATE_UP),
    ("both + HOOI, ranks by operator error", "tdmoe:objective=operator", GATE_UP),
    ("both + HOOI, experts cut", "tdmoe:expert_mode=compress", GATE_UP),
    ("all three projections, uniform", "tdmoe", ()),
    ("all three projections, global", "tdmoe:across=global", ()),
    ("all three projections, global by measured sensitivity", "tdmoe:across=global,weigh=sensitivity", ()),
)
COLUMNS = (
    "rho",
    "variant",
    "bits saved",
    "weight",
    "functional",
    "own functional",
    "operator",
    *(f"{t} ppl" for t in TEXTS),
)


def main() -> None:
    """Every variant at every ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="training text of the model, for calibration")
    parser.add_argument("--only", default="", help="variants whose name holds this")
    parser.add_argument("--windows", type=int, default=256, help="of each text")
    arguments = parser.parse_args()
    texts = {name: windows(name, arguments.windows) for name in TEXTS}
    rows = [["0", "dense", "0.0 %", "", "", "", "", *perplexities(MINI, texts)]]
    show(rows[0])
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        calibrate = ("--text", arguments.text, "--tokens", str(TOKENS), "--per-expert", "all", "--outputs")
        tool(where, "calibrate", "--model", "mini", *calibrate, "--out", "statistics", "--quiet")
        for ratio in RATIOS:
            for name, spec, options in VARIANTS:
                if arguments.only in name:
                    rows.append([ratio, name, *measured(where, spec, ratio, options, texts)])
                    show(rows[-1])
    text = [
        "# TD-MoE on the built-in model",
        "",
        f"`python -m bench.mini_table`, {today()}, {hardware()}. All four layers; calibrated on the first {TOKENS:,} "
        f"tokens of the training text (enwik8), evaluated on the first {arguments.windows} windows of {WINDOW} tokens "
        "of texts held out. Errors are means over stacks: `functional` in the metric of all routed inputs, "
        "`own functional` in that of each expert's own.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"| --- | --- |{' ---: |' * (len(COLUMNS) - 2)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    if not arguments.only:
        (Path(__file__).parent / "MINI.md").write_text("\n".join(text), encoding="utf-8")


def measured(where: Path, spec: str, ratio: str | None, options: tuple[str, ...], texts: dict[str, Any]) -> list[str]:
    """Bits saved, mean errors and perplexities of one compressed checkpoint; `ratio` None where the spec fixes it."""
    to, out = where / "to", where / "out"
    asked = ratio
    if asked is not None and "ratio_of=model" in spec:  # as many bits as that ratio of gate and up
        asked = str(float(asked) * _share_of_gate_and_up())
    tool(
        where,
        *("compress", "--model", "mini", "--method", spec, "--statistics", "statistics"),
        *(() if asked is None else ("--ratio", asked)),
        *("--to", "to", "--out", "out", "--fresh", "--quiet", *options),
    )
    table = list(csv.DictReader((out / "tables" / "compression.csv").open()))
    saved = json.loads((to / "tdmoe.json").read_text())["bits_saved"]
    counts = [2 if row["projection"] == "gate_up" else 1 for row in table]
    means = [
        sum(float(row[column]) * n for row, n in zip(table, counts, strict=True)) / sum(counts)
        for column in ("weight_error", "functional_error", "functional_error_expert", "operator_error")
    ]
    return [f"{100 * saved:.1f} %", *(f"{mean:.3f}" for mean in means), *perplexities(to, texts)]


def _share_of_gate_and_up() -> float:
    with Checkpoint(MINI) as checkpoint:
        arch = architecture(checkpoint.config)
        experts = [math.prod(arch.shape(projection)) for projection in ("gate", "up")]
        return len(arch.layers) * sum(experts) / parameters(checkpoint)


def windows(name: str, cap: int) -> torch.Tensor:
    """The first windows of a built-in text."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(MINI, trust_remote_code=False)
    return cut_windows(encode(tokenizer, load_text(name)), WINDOW, cap)


def perplexities(folder: Path, texts: dict[str, Any]) -> list[str]:
    """Of every text, with standard errors over windows."""
    import transformers

    import tdmoe.hub  # noqa: F401

    how = {"dtype": torch.float32, "trust_remote_code": False}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **how).eval()
    found = (summary(score(model, ids_WT, model.config.num_experts_per_tok)[0], 1) for ids_WT in texts.values())
    return [f"{f['perplexity']:.2f} ± {f['perplexity_stderr']:.2f}" for f in found]


def tool(where: Path, *arguments: str) -> None:
    """The command, in that folder."""
    done = subprocess.run(
        [sys.executable, "-m", "diag.cli.app", *arguments], cwd=where, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"tdmoe-diag {' '.join(arguments)}:\n{done.stderr}")


def show(row: list[str]) -> None:
    """As it goes."""
    print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
