"""All methods on the built-in model at matched stored bits: every one compressed by the command, loaded and scored.

    python -m bench.methods_table --text TRAIN.txt.gz      writes bench/METHODS.md; about an hour on two cores

Calibrated on the first tokens of the text that the model was trained on, evaluated on texts that it has not seen.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from bench.checkpoints import MINI
from bench.machine import hardware, today
from bench.mini_table import GATE_UP, TEXTS, TOKENS, WINDOW, measured, perplexities, show, tool, windows

RATIOS = ("0.2", "0.4")
METHODS = (
    ("TD-MoE as published", "tdmoe:whitening=none,allocation=published,decomposition=hosvd"),
    ("TD-MoE", "tdmoe:alignment=1"),  # mini is small: steps of 8 would miss the budget by up to 3 %
    ("TD-MoE, shared input factor, core refit", "tdmoe:gate_up=joint,refit=expert,alignment=1"),
    ("MoBE as published, 3000 steps", "mobe:preset=published,steps=3000"),
    ("MoBE", "mobe"),
    ("MoBE, by weights alone", "mobe:whitening=none"),
    ("MoE-SVD as published", "moe_svd:preset=published"),
    ("MoE-SVD", "moe_svd"),
    ("SVD", "svd"),
    ("SVD-LLM", "svd_llm"),
    ("SVD-LLM, each expert's own inputs", "svd_llm:moments=expert"),
    ("D2-MoE", "d2_moe"),
)
FIXED = (
    ("RTN, 8 bits, groups of 128", "rtn:bits=8"),
    ("RTN, 4 bits, groups of 128", "rtn:bits=4"),
    ("RTN, 4 bits, a scale a matrix", "rtn:bits=4,scale=tensor"),
    ("RTN, 3 bits, groups of 128", "rtn:bits=3"),
    ("nothing changed", "identity"),
    ("mean expert", "mean"),
    ("experts dropped", "drop"),
)
PROJECTIONS = {"gate and up": GATE_UP, "gate, up and down": ()}
COLUMNS = (
    *("projections", "rho", "method", "bits saved", "weight", "functional", "own functional", "operator"),
    *(f"{t} ppl" for t in TEXTS),
    "seconds",
)


def main() -> None:
    """Every method at every ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, help="training text of the model, for calibration")
    parser.add_argument("--statistics", type=Path, help="run folder of that calibration, where it is there already")
    parser.add_argument("--only", default="", help="methods whose name holds this; nothing is written then")
    parser.add_argument("--ratio", choices=RATIOS, action="append", help="one of them alone [default: all]")
    parser.add_argument("--projections", choices=PROJECTIONS, action="append", help="likewise")
    parser.add_argument("--windows", type=int, default=256, help="of each text")
    arguments = parser.parse_args()
    texts = {name: windows(name, arguments.windows) for name in TEXTS}
    rows = [["", "", "dense", "", "", "", "", "", *perplexities(MINI, texts), ""]]
    show(rows[0])
    asked = [(ratio, *method) for ratio in arguments.ratio or RATIOS for method in METHODS] + [
        (None, *method) for method in FIXED
    ]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        calibrate = ("--text", arguments.text, "--tokens", str(TOKENS), "--per-expert", "all", "--outputs")
        if arguments.statistics is not None:
            (where / "statistics").symlink_to(arguments.statistics.absolute())
        else:
            tool(where, "calibrate", "--model", "mini", *calibrate, "--out", "statistics", "--quiet")
        for projections in arguments.projections or PROJECTIONS:
            options = PROJECTIONS[projections]
            for ratio, name, spec in asked:
                if arguments.only not in name:
                    continue
                found = measured(where, spec, ratio, options, texts)
                table = list(csv.DictReader((where / "out" / "tables" / "compression.csv").open()))
                seconds = sum(float(row["seconds"]) for row in table)
                rows.append([projections, ratio or "", name, *found, f"{seconds:.1f}"])
                show(rows[-1])
    text = [
        "# All methods on the built-in model",
        "",
        f"`python -m bench.methods_table`, {today()}, {hardware()}. All four layers; calibrated on the first "
        f"{TOKENS:,} tokens of the training text (enwik8), evaluated on the first {arguments.windows} windows of "
        f"{WINDOW} tokens of texts held out. Errors are means over stacks: `functional` in the metric of all inputs, "
        "`own functional` in that of each expert's own. Seconds are of all stacks, errors measured included.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"| --- | --- | --- |{' ---: |' * (len(COLUMNS) - 3)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    if not arguments.only:
        (Path(__file__).parent / "METHODS.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
