"""TD-MoE beside MoBE in the sections of spectra and experts: ranks, errors and routing as the other runs have them."""

from __future__ import annotations

from typing import Any

import pytest
import verdict_runs as planted
from test_page import Outline, words
from test_verdict_blocks import told
from verdict_runs import PUBLISHED, step

from diag.pages import render
from reports.sections import Block
from reports.verdict import BESIDE

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


def block(command: str, *runs: Run) -> Block:
    found = BESIDE[command](runs)
    assert found is not None
    return found


def test_what_is_kept_of_each_mode() -> None:
    found = block("spectra", SPECTRA, ladder())
    lines = told(found)
    modes = ("expert mode", "output mode", "input mode")
    assert [lines["TD-MoE as published"][mode] for mode in modes] == ["8 of 8", "16 of 24", "32 of 40"]
    assert [lines["TD-MoE, “+ shared”"][mode] for mode in modes] == ["8 of 8", "48 of 48", "20 of 40"], "of both"
    assert lines["TD-MoE, “+ shared”"]["error by input mode"] == "0.180"
    mobe = lines["MoBE"]
    assert [mobe[mode] for mode in modes] == [
        "2 to 3 bases", "12 to 16 of 24 each its own",
        "12 to 16 of 40 each its own; bases span up to 32 to 36",
    ]  # fmt: skip
    assert (mobe["error by input mode"], mobe["functional error"]) == ("— cuts no mode", "0.150")
    assert found.text == (
        "TD-MoE, “+ shared” keeps 20 input directions in one basis for all experts, which alone costs a functional "
        "error of 0.180; MoBE keeps 12 to 16 of each expert's own, mixed from 2 to 3 bases, with an error of 0.150 in "
        "all."
    )


def test_what_experts_share_and_lose() -> None:
    found = block("experts", EXPERTS, ladder(), planted.drift())
    lines = told(found)
    assert lines["TD-MoE, “+ shared”"]["expert mode"] == "rank 8 of 8" and lines["MoBE"]["expert mode"].startswith(
        "2 to 3"
    )
    assert lines["MoBE"]["functional error, own inputs"] == "0.110"
    assert lines["MoBE"]["same experts chosen, least"] == "92.5 % layer 3"
    assert found.text == (
        "Functional error under each expert's own inputs: TD-MoE, “+ shared” 0.120 (pooled 0.222) and MoBE 0.110 "
        "(pooled 0.150)."
    )
    assert found.table.caption.endswith("; not measured: operator error, worst expert")


def test_operator_gives_ranks_and_the_worst_expert_where_attribution_is_missing() -> None:
    common = {"projection": "gate", "mode": None, "method": "mobe", "ratio": 0.4, "rank": "3x12"}
    rows = [
        {**common, "layer": layer, "expert": which, "operator_error": error, "weight_error": 0.2}
        for layer in (0, 1)
        for which, error in (("mean", 0.2 + layer / 10), ("max", 0.5 + layer / 5))
    ]
    runs = planted.quality(), planted.run_of("operator", operator=rows)
    lines = told(block("experts", EXPERTS, *runs))
    assert list(lines) == ["MoBE"], "of TD-MoE nothing is known that this table has"
    assert lines["MoBE"]["operator error, mean expert"] == "0.250"
    assert lines["MoBE"]["operator error, worst expert"] == "0.600"
    kept = block("spectra", SPECTRA, *runs)
    assert told(kept)["MoBE"]["output mode"] == "12 of 24 each its own"
    assert kept.table.caption.endswith("and TD-MoE") and kept.text == ""


def test_errors_over_other_projections_are_not_set_beside_each_other() -> None:
    assert block("spectra", SPECTRA, ladder(projections="gate,up,down")).text == ""


@pytest.mark.parametrize("command", list(BESIDE))
def test_nothing_is_said_where_neither_was_measured(command: str) -> None:
    assert BESIDE[command]([SPECTRA, EXPERTS]) is None


def test_the_first_section_of_a_command_has_it_on_a_page_of_several_runs() -> None:
    page = render([SPECTRA | {"seed": 1}, SPECTRA, EXPERTS, ladder()], [[]] * 4)
    found = [str(attributes["id"]) for _, attributes in Outline(page).tags if "beside-" in str(attributes.get("id"))]
    assert found == ["spectra-beside-modes", "experts-beside-experts"]
    assert "beside-modes" not in render([SPECTRA], [[]])
    assert "TD-MoE beside MoBE: expert by expert" in words(page)
