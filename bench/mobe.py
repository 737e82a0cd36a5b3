"""MoBE: loss against time of the published training and of the fit, at equal storage, in one run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from bench.checkpoints import MINI, QWEN3_30B, write
from bench.results import Figure
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.forms.bases import BasisWeights
from tdmoe.mobe import fit, published, sizes
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.locate import open_stack

RATIO = 0.4
PUBLISHED_STEPS = 3000
WIDE_STEPS, WIDE_EVALUATIONS = 4, 10
MARKS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds at which errors are told


def run(folder: Path) -> Iterator[Figure]:
    """Every figure of the section; `folder` takes 0.4 GB, memory 12 GB."""
    for projection in ("gate", "down"):
        yield from _mini(_stack(MINI, 1, projection), f"mini, layer 1 {projection}")
    yield from _wide(_stack(write(folder, QWEN3_30B, projections=("gate",)), 0, "gate"))


def _mini(W_EOI: Tensor, name: str) -> Iterator[Figure]:
    """To the error that the published training reaches."""
    shape = (W_EOI.shape[0], W_EOI.shape[1], W_EOI.shape[2])
    theirs = sizes.published(shape, RATIO, 1)
    long = published.trained(W_EOI, theirs, "silu", PUBLISHED_STEPS)
    error, seconds = _error(long, W_EOI), _curve(long)[-1][1]
    yield Figure(f"{name}: published, {PUBLISHED_STEPS:,} steps", f"{_told(long)}, weight error {error:.4f}")
    for how, choices in (("sizes searched", sizes.ladder(shape, RATIO, 1)), ("sizes as published", [theirs])):
        made = fit.fitted(W_EOI, choices, "tanh")
        reached = next((t for _, t, e in _curve(made) if e <= error), None)
        times = f"{seconds / reached:.1f}" if reached else "never"
        met = bool(reached and seconds / reached >= 10)
        yield Figure(f"{name}: fit, {how}", f"{_told(made)}, weight error {_error(made, W_EOI):.4f}")
        yield Figure(f"{name}: times sooner at that error, {how}", times, ">= 10", met)


def _wide(W_EOI: Tensor) -> Iterator[Figure]:
    """A few steps of both: what one costs, and what the rest would."""
    shape = (W_EOI.shape[0], W_EOI.shape[1], W_EOI.shape[2])
    chosen = sizes.published(shape, RATIO, 1)
    training = published.Training(W_EOI, chosen, "silu")
    training.step()
    began = time.perf_counter()
    for _ in range(WIDE_STEPS):
        training.step()
    step = (time.perf_counter() - began) / WIDE_STEPS
    hours = step * PUBLISHED_STEPS / 3600
    yield Figure(
        f"128 x 768 x 2048, {chosen.bases} bases of rank {chosen.rank}: a published step",
        f"{step:.2f} s; {PUBLISHED_STEPS:,} steps would take {hours:.1f} h (extrapolated)",
    )
    del training
    made = fit.fitted(W_EOI, [chosen], "tanh", WIDE_EVALUATIONS)
    curve = _curve(made)
    each = (curve[-1][1] - curve[1][1]) / (curve[-1][0] - curve[1][0])
    yield Figure(
        "the same: an evaluation of the fit",
        f"{each:.2f} s, {each / step:.2f} published steps; {fit.STEPS} would take {each * fit.STEPS / 3600:.1f} h",
    )


def _stack(model: Path, layer: int, projection: str) -> Tensor:
    with Checkpoint(model) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), layer, projection)
        return stack.weights(0, stack.shape[0]).float()


def _error(made: BasisWeights, W_EOI: Tensor) -> float:
    return float((made.members(0, len(W_EOI)) - W_EOI).norm() / W_EOI.norm())


def _curve(made: BasisWeights) -> tuple[tuple[int, float, float], ...]:
    assert made.fit is not None
    return made.fit.curve


def _told(made: BasisWeights) -> str:
    """Sizes, and errors at some seconds."""
    curve = _curve(made)
    last = curve[-1]
    at = {mark: next((e for _, t, e in reversed(curve) if t <= mark), None) for mark in MARKS if mark < last[1]}
    marks = ", ".join(f"{error:.3f} at {mark:g} s" for mark, error in at.items() if error is not None)
    bases, rank = made.ranks
    return f"{bases} bases of rank {rank}; {marks}; {last[0]} evaluations in {last[1]:.1f} s"
