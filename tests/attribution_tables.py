"""Planted tables of `attribution` with the sizes that the built-in model has: 1.45 nats above dense as published."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

DENSE = 3.742  # nats
PUBLISHED, MOBE = 1.452, 0.049  # above it
GAP = PUBLISHED - MOBE

_ONE_SHOT = "decomposition=hosvd"

# step, spec, damage, its error, change's error, bits saved, weight, functional, own, operator, expert, output, input
TDMOE = (
    ("as published", f"tdmoe:whitening=none,allocation=published,{_ONE_SHOT}",
     1.452, 0.0121, None, 0.248, 0.570, 0.499, 0.466, 0.520, 0.0, 0.381, 0.241),
    ("full modes store no factor", f"tdmoe:whitening=none,allocation=published_stored,{_ONE_SHOT}",
     1.431, 0.0119, 0.0021, 0.251, 0.566, 0.495, 0.462, 0.517, 0.0, 0.377, 0.239),
    ("+ correct whitening", f"tdmoe:allocation=published_stored,{_ONE_SHOT}",
     1.279, 0.0110, 0.0052, 0.251, 0.580, 0.470, 0.445, 0.532, 0.0, 0.377, 0.218),
    ("+ exact ranks", f"tdmoe:alignment=1,{_ONE_SHOT}",
     0.316, 0.0049, 0.0091, 0.251, 0.424, 0.190, 0.172, 0.340, 0.0, 0.0, 0.190),
    ("+ HOOI", "tdmoe:alignment=1",
     0.316, 0.0049, 0.0001, 0.251, 0.424, 0.190, 0.172, 0.340, 0.0, 0.0, 0.190),
    ("+ shared input factor", "tdmoe:gate_up=joint,alignment=1",
     0.325, 0.0050, 0.0019, 0.251, 0.431, 0.191, 0.169, 0.352, 0.0, 0.0, 0.191),
    ("+ core refit", "tdmoe:gate_up=joint,refit=expert,alignment=1",
     0.136, 0.0031, 0.0041, 0.251, 0.476, 0.247, 0.142, 0.410, 0.0, 0.0, 0.191),
    ("+ budget shared with down by measured sensitivity",
     "tdmoe:gate_up=joint,refit=expert,across=global,weigh=sensitivity,ratio_of=model,alignment=1",
     0.069, 0.0024, 0.0021, 0.248, 0.271, 0.163, 0.117, 0.238, 0.04, 0.03, 0.121),
)  # fmt: skip
_NO_MODES = (None, None, None)
LADDER_OF_MOBE = (
    ("1 basis, phi identity (input-mode Tucker)", "mobe:phi=identity,bases=1",
     0.319, 0.0050, None, 0.251, 0.424, 0.190, 0.172, 0.340, *_NO_MODES),
    ("2 bases, phi identity", "mobe:phi=identity,bases=2",
     0.231, 0.0045, 0.0031, 0.251, 0.391, 0.184, 0.165, 0.309, *_NO_MODES),
    ("4 bases, phi identity", "mobe:phi=identity,bases=4",
     0.141, 0.0038, 0.0029, 0.251, 0.352, 0.174, 0.155, 0.271, *_NO_MODES),
    ("+ number of bases searched", "mobe:phi=identity",
     0.112, 0.0036, 0.0016, 0.251, 0.339, 0.169, 0.150, 0.262, *_NO_MODES),
    ("+ phi silu", "mobe:phi=silu", 0.058, 0.0025, 0.0019, 0.251, 0.310, 0.151, 0.133, 0.231, *_NO_MODES),
    ("+ phi tanh: preset corrected", "mobe", MOBE, 0.0022, 0.0011, 0.251, 0.304, 0.145, 0.127, 0.228, *_NO_MODES),
    ("+ left factors refitted", "mobe:refit=expert",
     0.048, 0.0021, 0.0004, 0.251, 0.331, 0.169, 0.101, 0.251, *_NO_MODES),
    ("preset published, 3,000 steps", "mobe:preset=published,steps=3000",
     0.067, 0.0026, 0.0013, 0.264, 0.290, 0.179, 0.158, 0.210, *_NO_MODES),
    ("published training, free mixing", "mobe:preset=published,mixing=free,steps=3000",
     0.071, 0.0026, 0.0013, 0.264, 0.291, 0.180, 0.159, 0.211, *_NO_MODES),
)  # fmt: skip
BESIDE = (
    ("dense", "dense", None, None, None, 0.0, *(7 * (None,))),
    ("TD-MoE, inverse whitening", f"tdmoe:whitening_direction=inverse,allocation=published_stored,{_ONE_SHOT}",
     2.650, 0.0190, None, 0.251, 0.611, 0.628, 0.582, 0.576, *_NO_MODES),
    ("SVD-LLM", "svd_llm", 0.310, 0.0049, None, 0.257, 0.446, 0.271, 0.250, 0.342, *_NO_MODES),
    ("SVD-LLM, each expert's own inputs", "svd_llm:moments=expert",
     0.188, 0.0039, None, 0.257, 0.453, 0.305, 0.210, 0.356, *_NO_MODES),
    ("RTN, 4 bits", "rtn:bits=4", 0.0057, 0.0012, None, 0.457, 0.114, 0.080, 0.072, 0.072, *_NO_MODES),
    ("nothing changed", "identity", 0.0, 0.0, None, 0.0, 0.0, 0.0, 0.0, 0.0, *_NO_MODES),
)  # fmt: skip
SHAPLEY = (
    ("stored", "full modes store no factor", 0.009, 0.007, 0.011, 0.021, 0.000),
    ("whitening", "correct whitening", 0.132, 0.126, 0.139, 0.151, 0.074),
    ("ranks", "exact ranks", 0.938, 0.921, 0.955, 1.056, 0.701),
    ("hooi", "HOOI", 0.000, -0.001, 0.001, 0.001, 0.000),
    ("joint", "shared input factor", 0.006, 0.002, 0.010, -0.004, 0.011),
    ("refit", "core refit", 0.231, 0.224, 0.239, 0.312, 0.189),
)
PREDICTORS = (
    ("functional_error_expert", 0.956, 0.871, 0.991),
    ("functional_error", 0.874, 0.633, 0.962),
    ("angle_deg", 0.982, 0.920, 1.0),
    ("operator_error", 0.753, 0.402, 0.921),
    ("weight_error", 0.721, 0.351, 0.902),
)


def step_rows(ladder: str, steps: tuple[tuple[Any, ...], ...]) -> list[Row]:
    """Rows of attribution.csv; shares of the gap follow from the damage, their intervals are 0.006 to each side."""
    rows: list[Row] = []
    before: float | None = None
    for step, method, damage, stderr, change_stderr, saved, weight, functional, own, operator, *modes in steps:
        dense = method == "dense"
        closed = None if damage is None else (PUBLISHED - damage) / GAP
        ends = step == "as published" or damage == MOBE
        change = None if change_stderr is None or before is None else damage - before
        known = [value for value in modes if value is not None]
        rows.append(
            {
                **{"step": step, "method": method, "ratio": None if dense or "rtn" in method else 0.4},
                **{"bits_saved": saved, "weight_error": weight, "functional_error": functional},
                **{"operator_error": operator, "angle_deg": None if damage is None else 12 * damage**0.5 + 4},
                **{"perplexity": 2.718281828459045 ** (DENSE + (damage or 0.0)), "perplexity_stderr": 0.64},
                **{"gap_closed": closed, "gap_low": None if closed is None else closed - 0.006 * (not ends)},
                **{"gap_high": None if closed is None else closed + 0.006 * (not ends), "status": "ok"},
                **{"ladder": ladder, "projections": "gate,up,down" if "down" in step else "gate,up"},
                **{"ranks": "32,80,88" if modes[0] is not None else "", "loss_nats": DENSE + (damage or 0.0)},
                **{"loss_nats_stderr": 0.015, "loss_difference_nats": damage},
                **{"loss_difference_nats_stderr": stderr, "change_nats": change},
                **{"change_nats_stderr": change_stderr, "functional_error_expert": own},
                **{f"mode_error_{m}": v for m, v in zip(("expert", "output", "input"), modes, strict=True)},
                **{"floor": max(known) if known else None, "norm_ratio": 1.0 - 0.05 * (damage or 0.0)},
                **{"seconds": 9.2, "text": "enwik8", "windows": 256, "tokens": 130816},
                **over_mobe(damage),
            }
        )
        before = damage
    return rows


def over_mobe(damage: float | None) -> Row:
    """Paired with MoBE; the interval is 0.01 to each side."""
    more = None if damage is None else damage - MOBE
    reach = 0.01 * (damage != MOBE)
    ends = (None, None) if more is None else (more - reach, more + reach)
    return {"mobe_difference_nats": more, "mobe_difference_low": ends[0], "mobe_difference_high": ends[1]}


def attribution_rows() -> list[Row]:
    return [*step_rows("tdmoe", TDMOE), *step_rows("mobe", LADDER_OF_MOBE), *step_rows("beside", BESIDE)]


def shapley_rows() -> list[Row]:
    return [
        {
            **{"switch": switch, "text": text, "nats": nats, "nats_low": low, "nats_high": high},
            **{"gap_share": nats / GAP, "gap_share_low": low / GAP, "gap_share_high": high / GAP},
            **{"alone_nats": alone, "last_nats": last, "orders": "all", "coalitions": 64, "windows": 32},
            "status": "ok",
        }
        for switch, text, nats, low, high, alone, last in SHAPLEY
    ]


def predictor_rows() -> list[Row]:
    return [
        {
            **{"error": error, "response": "loss_difference_nats", "rank_correlation": value, "low": low},
            **{"high": high, "runs": 17, "status": "ok"},
        }
        for error, value, low, high in PREDICTORS
    ]


def share_rows(step: str = "+ core refit", damage: float = 0.136) -> list[Row]:
    """Against MoBE given the same refit, and as it is."""
    rows = []
    kinds = (
        ("same_changes", 0.048, "refit", "+ left factors refitted"),
        ("presets", MOBE, "", "+ phi tanh: preset corrected"),
    )
    for against, mobe, given, mobe_step in kinds:
        closed, left = (PUBLISHED - damage) / (PUBLISHED - mobe), damage - mobe
        row: Row = {"against": against, "step": step, "ladder": "tdmoe", "given": given, "gap_closed": closed}
        row |= {"not_given": "" if given else "refit", "gap_low": closed - 0.007, "gap_high": closed + 0.007}
        row |= {"gap_nats": PUBLISHED - mobe, "gap_nats_low": PUBLISHED - mobe - 0.02}
        row |= {"gap_nats_high": PUBLISHED - mobe + 0.02, "mobe": mobe_step}
        row |= {"left_nats": left, "left_low": left - 0.009, "left_high": left + 0.009, "status": "ok"}
        rows.append(row)
    return rows


def run_of(
    steps: list[Row] | None = None,
    shapley: list[Row] | None = None,
    predictors: list[Row] | None = None,
    shares: list[Row] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A run with these tables; the planted ones where none are given, shares only of the planted steps."""
    tables = {
        "attribution": attribution_rows() if steps is None else steps,
        "attribution_shapley": shapley_rows() if shapley is None else shapley,
        "attribution_predictors": predictor_rows() if predictors is None else predictors,
        "attribution_shares": (share_rows() if steps is None else []) if shares is None else shares,
    }
    return {
        **{"schema": 2, "model": "pico-moe", "command": "attribution", "command_line": "tdmoe-diag attribution"},
        **{"config": {"ratio": 0.4}, "seed": 0, "versions": {"numpy": "2.4"}, "device": "cpu"},
        **{"fingerprint": "0123abcd", "started": "2026-01-02T03:04:05+00:00", "arrays": {}},
        "jobs": [{"key": "attribution-losses", "state": "done", "message": None}],
        "tables": tables,
    } | changes
