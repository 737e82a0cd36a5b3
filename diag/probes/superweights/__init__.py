"""Probe `superweights`: super weights, how much of them and of other entries a low rank keeps, and life without them.

Tables and settings; the work is in diag/probes/superweights/run.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from diag.declare.defaults import MEMORY_BYTES

NAME = "superweights"
VERSION = 2
PLACE = ("layer", "projection", "expert")
TABLES = {
    "superweights": (
        *(*PLACE, "row", "column", "value", "input_activation", "output_activation", "tokens", "status"),
        *("input_ratio", "output_ratio", "output_share", "source", "token", "published"),
    ),
    "recovery": (
        *(*PLACE, "method", "group", "rank", "stored_bits", "recovered_fraction", "stays_recovered_fraction"),
        *("entries", "status", "kept_ratio", "ratio", "role", "calibration", "variant"),
    ),
    "entries": (
        *(*PLACE, "role", "group", "row", "column", "value", "first_rank", "stays_from_rank", "dominant_component"),
        *("dominant_share", "half_rank", "full_rank", "outputs", "inputs", "status"),
    ),
    "spikes": (
        *(*PLACE, "row", "column", "value", "input_activation", "output_activation", "input_ratio", "output_ratio"),
        *("output_share", "source", "token", "tokens", "same_token", "threshold", "status"),
    ),
    "ablation": (
        *(*PLACE, "group", "draw", "zeroed", "loss", "loss_stderr", "loss_change", "loss_change_stderr"),
        *("perplexity", "perplexity_stderr", "text", "windows", "window", "status"),
    ),
}
METHODS = "tdmoe:whitening=none,mobe:whitening=none,steps=60,rtn:bits=2,rtn:bits=3,rtn:bits=4,rtn:bits=6,rtn:bits=8"
RATIOS = "0.2,0.4,0.6"


@dataclass(frozen=True)
class Settings:
    """Settings that change results. `text` is searched for spikes and gives the inputs' second moments."""

    prompt: str = "Apple Inc. is a worldwide tech company."  # of the published procedure
    text: str = "c4-calibration"
    tokens: int = 8192
    window: int | None = None
    threshold: float = 50.0
    most: int = 20
    entries: int = 128
    ranks: int = 128
    control_layer: int | None = None
    methods: str = METHODS
    ratios: str = RATIOS
    evaluation: str = "wikitext2"
    windows: int = 16
    draws: int = 5
    memory: int = MEMORY_BYTES
