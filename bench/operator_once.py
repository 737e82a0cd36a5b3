"""Operator errors of one stack of truncations: python -m bench.operator_once HOW MODEL RESULT.json

ours     every mode at four ranks, norms of all experts and unfoldings of each; and every expert's SVD at all ranks
plain    what one writes first, for one of these (the input mode at a quarter of its rank): basis from the unfolding's
         Gram, the dense residual of the whole stack, torch's svdvals of every expert and of the three unfoldings
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench.tucker_once import load

FRACTIONS = (0.125, 0.25, 0.5, 0.75)
PLAIN = 0.25  # of the input mode
MODES = ("expert", "output", "input")


def main() -> None:
    how, model, result = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    started, busy = time.perf_counter(), time.process_time()
    found = {"ours": ours, "plain": plain}[how](model)
    found |= {"seconds": time.perf_counter() - started, "processor": time.process_time() - busy}
    result.write_text(json.dumps(found))


def ours(model: Path) -> dict[str, Any]:
    from tdmoe.checkpoint.reader import Checkpoint
    from tdmoe.stacks.architecture import architecture
    from tdmoe.stacks.blocks import BlockReader
    from tdmoe.stacks.locate import open_stack
    from tdmoe.tucker.modes import mode_bases
    from tdmoe.tucker.truncation import expert_components, expert_truncation, mode_truncations

    parts, cases = {}, 0
    clock = time.process_time
    with Checkpoint(model) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, "gate")
        reader = BlockReader(stack, 4_000_000_000)
        started = clock()
        bases = mode_bases(reader, {})
        parts["bases"] = clock() - started
        chosen: dict[str, float] = {}
        for mode, size in zip(MODES, stack.shape, strict=True):
            started = clock()
            ranks = [round(part * size) for part in FRACTIONS]
            found = mode_truncations(reader, mode, bases[mode], ranks)
            cases += len(found)
            parts[mode] = clock() - started
            if mode == "input":
                at = found[round(PLAIN * size)]
                chosen = {"expert 0": float(at.experts.lower_B[0])}
                chosen |= {m: float(norms.lower_B[0]) for m, norms in at.unfoldings.items()}
        started = clock()
        components = expert_components(reader)
        for part in FRACTIONS:
            expert_truncation(*components, round(part * min(stack.shape[1:])))
        parts["SVD of experts"] = clock() - started
    return {"cases": cases, "parts": parts, "norms": chosen}


def plain(model: Path) -> dict[str, Any]:
    W_EOI = load(model)
    unfolded = torch.moveaxis(W_EOI, 2, 0).reshape(W_EOI.shape[2], -1)
    values, vectors = torch.linalg.eigh(unfolded @ unfolded.T)
    U = vectors[:, values.argsort(descending=True)[: round(PLAIN * len(values))]]
    E_EOI = W_EOI - W_EOI @ U @ U.T
    norms = {"expert 0": float(torch.linalg.svdvals(E_EOI)[:, 0][0])}
    for axis, mode in enumerate(MODES):
        residual = torch.moveaxis(E_EOI, axis, 0).reshape(E_EOI.shape[axis], -1)
        norms[mode] = float(torch.linalg.svdvals(residual)[0])
    return {"cases": 1, "norms": norms}


if __name__ == "__main__":
    main()
