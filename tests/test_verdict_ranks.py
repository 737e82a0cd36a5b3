"""TD-MoE and MoBE mode by mode and expert by expert: ranks and errors as the runs have them."""

from __future__ import annotations

from typing import Any

import verdict_runs as planted
from test_verdict_views import rows
from verdict_runs import PUBLISHED, step

from diag.verdict import verdicts

Run = dict[str, Any]
SIZES = {"expert": 8, "output": 24, "input": 40}
SHAPES = [
    {"layer": 0, "projection": projection, "mode": mode, "n": n, "alpha": 0.1, "alpha_null": 0.05, "status": "ok"}
    for projection in ("gate", "up")
    for mode, n in SIZES.items()
]
SPECTRA = planted.run_of("spectra", spectra=SHAPES)
EXPERTS = planted.experts(0.8)


def ladder(**of_mobe: Any) -> Run:
    """Published, gate and up as one stack, MoBE of two sizes."""
    cut = {
        "mode_error_expert": 0.0,
        "mode_error_output": 0.0,
        "mode_error_input": 0.18,
        "functional_error_expert": 0.12,
    }
    none = dict.fromkeys(("mode_error_expert", "mode_error_output", "mode_error_input", "floor"))
    mobe = {**none, "functional_error": 0.15, "functional_error_expert": 0.11, "ranks": "gate:3x12 up:2x16", **of_mobe}
    rows = [
        step("as published", PUBLISHED, 1.0, ranks="gate:8x16x32 up:8x16x32", gap_closed=0.0, functional_error=0.5),
        step("+ shared", "tdmoe:gate_up=joint", 0.3, ranks="gate_up:8x48x20", gap_closed=0.7, **cut),
        step("preset corrected", "mobe", 0.1, "mobe", gap_closed=1.0, **mobe),
        step("dense", "dense", 0.0, "beside", ratio=None, bits_saved=0.0, loss_difference_nats=None),
    ]
    return planted.run_of("attribution", attribution=rows) | {"config": {"layers": "0-3"}}


MODES = ("expert_kept", "output_kept", "input_kept")


def test_what_is_kept_of_each_mode() -> None:
    found = rows("ranks", SPECTRA, ladder())
    assert [found["TD-MoE as published"][mode] for mode in MODES] == ["8 of 8", "16 of 24", "32 of 40"]
    joint = found["TD-MoE, “+ shared”"]
    assert [joint[mode] for mode in MODES] == ["8 of 8", "48 of 48", "20 of 40"], "of gate and up together"
    assert joint["mode_error_input"] == 0.18
    mobe = found["MoBE"]
    assert [mobe[mode] for mode in MODES] == [
        "2 to 3 bases", "12 to 16 of 24, each its own",
        "12 to 16 of 40, each its own; bases span up to 32 to 36",
    ]  # fmt: skip
    assert (mobe["mode_error_input"], mobe["functional_error"]) == (None, 0.15), "it cuts no mode"


def test_what_experts_share_and_lose() -> None:
    found = rows("experts", EXPERTS, ladder(), planted.drift())
    assert found["TD-MoE, “+ shared”"]["expert_kept"] == "8 of 8"
    assert found["MoBE"]["expert_kept"] == "2 to 3 bases"
    own, pooled = "functional_error_expert", "functional_error"
    assert (found["TD-MoE, “+ shared”"][own], found["TD-MoE, “+ shared”"][pooled]) == (0.12, 0.222)
    assert (found["MoBE"][own], found["MoBE"][pooled], found["MoBE"]["worst"]) == (0.11, 0.15, None)


def test_operator_gives_ranks_and_the_worst_expert_where_attribution_is_missing() -> None:
    common = {"projection": "gate", "mode": None, "method": "mobe", "ratio": 0.4, "rank": "3x12"}
    table = [
        {**common, "layer": layer, "expert": which, "operator_error": error, "weight_error": 0.2}
        for layer in (0, 1)
        for which, error in (("mean", 0.2 + layer / 10), ("max", 0.5 + layer / 5))
    ]
    runs = planted.quality(), planted.run_of("operator", operator=table)
    found = rows("experts", EXPERTS, *runs)
    assert list(found) == ["MoBE"], "of TD-MoE nothing is known that this table has"
    assert (found["MoBE"]["operator_error"], found["MoBE"]["worst"]) == (0.25, 0.6)
    assert rows("ranks", SPECTRA, *runs)["MoBE"]["output_kept"] == "12 of 24, each its own"


def test_nothing_is_said_where_neither_was_measured() -> None:
    (found,) = verdicts([SPECTRA, EXPERTS])
    assert not {"verdict-ranks", "verdict-experts"} & {view.name for view in found.views}
