"""Planted runs for the tests of the verdict: plain dicts as commands leave them, every number chosen by the test."""

from __future__ import annotations

from itertools import combinations
from typing import Any

PUBLISHED = "tdmoe:whitening=none,allocation=published,decomposition=hosvd"
DENSE_LOSS = 2.0  # nats, of every text
STDERR = 0.01  # of every paired difference

Row = dict[str, Any]


def run_of(command: str, model: str = "pico-moe", jobs: int = 1, failed: int = 0, **tables: list[Row]) -> Row:
    states = ["done"] * (jobs - failed) + ["failed"] * failed
    return {
        **{"schema": 2, "model": model, "command": command, "command_line": f"tdmoe-diag {command}", "config": {}},
        **{"seed": 0, "versions": {}, "device": "cpu", "fingerprint": "0123abcd", "started": "now", "arrays": {}},
        "jobs": [{"key": f"{command}-{n}", "state": state, "message": None} for n, state in enumerate(states)],
        "tables": tables,
    }


def evaluated(method: str, ratio: float | None, saved: float, added: float, **changes: Any) -> Row:
    """A row of quality.csv that adds so many nats."""
    dense = method == "dense"
    return {
        **{"method": method, "ratio": ratio, "compressed_layers": "" if dense else "0-3", "bits_saved": saved},
        **{"dataset": "wikitext2", "metric": "perplexity", "value": 2.718281828459045 ** (DENSE_LOSS + added)},
        **{"stderr": 0.5, "samples": 16, "status": "ok", "tokens": 4080, "checkpoint": "", "protocol": "windows"},
        **{"loss_difference_nats": None if dense else added, "loss_nats": DENSE_LOSS + added},
        **{"loss_difference_nats_stderr": None if dense else STDERR, "projections": "" if dense else "gate,up"},
    } | changes


def quality(
    published: float | None = 1.0, best: float | None = 0.3, mobe: float | None = 0.1, *more: Row, **changes: Any
) -> Row:
    """Dense, TD-MoE as published and otherwise, and MoBE at one ratio, as far as given."""
    given = [(PUBLISHED, published), ("tdmoe", best), ("mobe", mobe)]
    rows = [evaluated("dense", None, 0.0, 0.0)]
    rows += [evaluated(method, 0.4, 0.25, added) for method, added in given if added is not None]
    return run_of("quality", quality=[*rows, *more], **changes)


def step(name: str, method: str, added: float, ladder: str = "tdmoe", **changes: Any) -> Row:
    """A row of attribution.csv."""
    return {
        **{"step": name, "method": method, "ratio": 0.4, "bits_saved": 0.25, "weight_error": 0.4, "ladder": ladder},
        **{"functional_error": 0.222, "operator_error": 0.34, "angle_deg": 12.0, "norm_ratio": 0.9, "status": "ok"},
        **{"perplexity": 9.0, "perplexity_stderr": 0.2, "gap_closed": None, "gap_low": None, "gap_high": None},
        **{"projections": "gate,up", "ranks": "", "loss_nats": DENSE_LOSS + added, "loss_difference_nats": added},
        **{"loss_difference_nats_stderr": STDERR, "change_nats": None, "change_nats_stderr": None, "seconds": 7.5},
        **{"mode_error_expert": 0.01, "mode_error_output": 0.05, "mode_error_input": 0.19, "floor": 0.19},
        **{"text": "c4-eval", "windows": 64, "tokens": 9000},
    } | changes


def paired(nats: float, reach: float = 0.004) -> Row:
    """The loss beyond the reference MoBE's, paired by window: its columns, and the interval to each side."""
    return {"mobe_difference_nats": nats, "mobe_difference_low": nats - reach, "mobe_difference_high": nats + reach}


def attribution(*more: Row, **changes: Any) -> Row:
    """Published 1.0, exact ranks 0.4, refit 0.3, MoBE 0.1."""
    closed = {"gap_closed": 0.778, "gap_low": 0.74, "gap_high": 0.81}
    rows = [
        step("as published", PUBLISHED, 1.0, gap_closed=0.0),
        step("+ exact ranks", "tdmoe:whitening=none", 0.4, change_nats=-0.6, change_nats_stderr=0.02),
        step("+ core refit", "tdmoe:refit=expert", 0.3, change_nats=-0.1, change_nats_stderr=0.01, **closed),
        step("preset corrected", "mobe", 0.1, "mobe", gap_closed=1.0),
        step("preset published", "mobe:preset=published", 0.15, "mobe", gap_closed=0.944),
        step("dense", "dense", 0.0, "beside", ratio=None, bits_saved=0.0, loss_difference_nats=None),
    ]
    return run_of("attribution", attribution=[*rows, *more], **changes) | {"config": {"layers": "0-3"}}


def shares(
    step_: str = "+ core refit", ladder: str = "tdmoe", like: float | None = 0.737, plain: float = 0.778
) -> list[Row]:
    """How much of the gap that run closes: against MoBE given the same refit (None: not measured), and as it is."""
    rows = []
    for against, closed, gap in (("same_changes", like, 0.95), ("presets", plain, 0.9)):
        row: Row = {"against": against, "step": step_, "ladder": ladder, "text": "c4-eval", "windows": 64}
        row |= {"given": "refit" if against == "same_changes" and like is not None else "", "not_given": "refit"}
        row |= {"not_given": ""} if row["given"] else {}
        if closed is not None:
            rest = gap * (1 - closed)
            row |= {"gap_closed": closed, "gap_low": closed - 0.04, "gap_high": closed + 0.03, "gap_nats": gap}
            row |= {"left_nats": rest, "left_low": rest - 0.03, "left_high": rest + 0.03, "status": "ok"}
        rows.append(row)
    return rows


def shapley() -> list[Row]:
    """Of two switches, exact ranks the larger."""
    common = {"orders": "all", "coalitions": 4, "windows": 64, "status": "ok"}
    return [
        {
            "switch": "whitening",
            "text": "correct whitening",
            "nats": 0.1,
            "nats_low": 0.05,
            "nats_high": 0.15,
            "gap_share": 0.111,
        }
        | common,
        {
            **{
                "switch": "ranks",
                "text": "exact ranks",
                "nats": 0.55,
                "nats_low": 0.5,
                "nats_high": 0.6,
                "gap_share": 0.611,
            },
            **{"gap_share_low": 0.58, "gap_share_high": 0.64, **common},
        },
    ]


def spectra(*alphas: tuple[float, float, float], **changes: Any) -> Row:
    """A stack for each triple of exponents (expert, output, input), all with the same null and errors."""
    rows = []
    for layer, triple in enumerate(alphas):
        for mode, alpha in zip(("expert", "output", "input"), triple, strict=True):
            rows.append(
                {
                    **{"layer": layer, "projection": "gate", "mode": mode, "alpha": alpha, "alpha_null": 0.05},
                    **{
                        "alpha_jackknife_stderr": 0.01,
                        "energy_25": 0.2 + alpha,
                        "energy_25_null": 0.25,
                        "status": "ok",
                    },
                }
                | changes
            )
    return run_of("spectra", spectra=rows)


def experts(*shares: float, null: float = 0.8, **changes: Any) -> Row:
    """A stack for each price share, its interval 0.05 to each side."""
    rows = [
        {
            **{"layer": layer, "projection": "gate", "ratio": 0.4, "metric": "inputs", "experts": 8, "rank_expert": 8},
            **{"gain": -0.14, "gain_low": -0.2, "gain_high": -0.1, "price_share": share, "gain_null": -0.1},
            **{"price_share_low": share - 0.05, "price_share_high": share + 0.05, "price_share_null": null},
            **{"binding": "yes" if share > 0.55 else "no" if share < 0.45 else "undecided", "status": "ok"},
        }
        | changes
        for layer, share in enumerate(shares)
    ]
    return run_of("experts", binding=rows)


def injection(r2: dict[str, float], joint: tuple[float, float, float], reach: float = 0.05, count: int = 12) -> Row:
    """Laws of the three errors with these R^2, and the operator error's exponent beside the others.

    `reach` is that of the intervals of differences of R^2.
    """
    common = {"scope": "all", "layer": None, "projection": "gate,up", "design": None, "families": None, "size": None}
    rows: list[Row] = [
        {
            **common,
            "statistic": "exponent",
            "error": error,
            "value": 2.0,
            "low": 1.9,
            "high": 2.1,
            "count": count,
            "r2": value,
        }
        for error, value in r2.items()
    ]
    rows += [
        {**common, "statistic": "spearman", "error": error, "value": value, "low": value - 0.05, "high": value + 0.05}
        for error, value in r2.items()
    ]
    for (a, x), (b, y) in combinations(r2.items(), 2):
        ends = {"value": x - y, "low": x - y - reach, "high": x - y + reach}
        rows.append({**common, "statistic": "r2_difference", "error": a, "other_error": b, **ends})
    value, low, high = joint
    rows.append({**common, "statistic": "joint", "error": "operator_error", "value": value, "low": low, "high": high})
    return run_of("injection", injection=[], injection_contrasts=rows)


def drifted(method: str, ratio: float | None, angle: float, norm: float, **changes: Any) -> list[Row]:
    """Four layers of drift.csv: the angle grows, fewer experts stay the same."""
    return [
        {
            **{"method": method, "ratio": ratio, "scope": "all", "compressed_layers": "0-3", "layer": layer},
            **{
                "angle_deg": angle * (1 + layer) / 4,
                "angle_stderr": 0.1,
                "norm_ratio": norm,
                "norm_ratio_stderr": 0.001,
            },
            **{"routing_agreement": 1 - 0.01 * angle * layer / 4, "routing_js": 0.1, "tokens": 640, "status": "ok"},
            **{"after_last": int(layer == 3), "windows": 10, "text": "wikitext2", "dtype": "float32"},
            **{"bits_saved": 0.25, "projections": "gate,up", "checkpoint": ""},
        }
        | changes
        for layer in range(4)
    ]


def drift() -> Row:
    """Of the three that `quality` has."""
    rows = [*drifted(PUBLISHED, 0.4, 40.0, 0.6), *drifted("tdmoe", 0.4, 20.0, 0.8), *drifted("mobe", 0.4, 10.0, 0.9)]
    return run_of("drift", drift=rows)
