"""Probe `superweights`: super weights, how much of them and of other entries a low rank keeps, and life without them.

Tables and settings; the work is in diag/probes/superweights/run.py.
"""

from __future__ import annotations

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
        *("entries", "status", "kept_ratio", "ratio", "role", "calibration"),
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
