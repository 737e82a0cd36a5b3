"""One stack of DeepSeek-V3 width in FP8, several times what --memory allows: does the peak stay as planned?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.checkpoints import DEEPSEEK_V3, write
from bench.process import measure, with_torch
from bench.results import Figure
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.blocks import plan_blocks
from tdmoe.stacks.locate import open_stack

MEMORY = 500_000_000


def run(folder: Path) -> Iterator[Figure]:
    """Every figure of the section; `folder` takes about 4 GB."""
    model = write(folder / "wide", DEEPSEEK_V3, projections=("gate",))
    with Checkpoint(model) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, "gate")
        planned = plan_blocks(stack, MEMORY).peak_bytes
    options = ("--projections", "gate", "--memory", MEMORY, "--device", "cpu", "--fresh", "--quiet")
    cost = measure("diag.cli.app", "spectra", "--model", model, *options, "--out", folder / "run-wide")
    grown = cost.peak_bytes - with_torch().peak_bytes
    yield Figure(
        "stack as stored, and as float32", f"{stack.nbytes / 1e9:.2f} GB, {4 * DEEPSEEK_V3.weights / 1e9:.1f} GB"
    )
    yield Figure("whole command, --memory 500MB (read twice)", f"{cost.seconds:.0f} s")
    bound = planned + 3e8  # the command's libraries take 0.2 to 0.3 GB beside torch
    yield Figure(
        "peak memory above Python with torch", f"{grown / 1e9:.2f} GB", f"<= {bound / 1e9:.2f} GB", grown <= bound
    )
