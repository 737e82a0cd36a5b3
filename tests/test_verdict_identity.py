"""Which rows of different runs are one model, and which losses stand in one column: what differs is kept apart."""

from __future__ import annotations

from typing import Any

import pytest
import verdict_runs as planted
from test_verdict_views import plot, rows, view
from verdict_runs import PUBLISHED, evaluated

from reports.plots import Panels

Run = dict[str, Any]
C4, WIKI = "c4-calibration, 65,536 tokens", "wikitext2-train, 65,536 tokens"
SAID = "text as it is, windows of 512 tokens, 511 of each scored, no BOS, {} weights"


def quality(text: str = "wikitext2", seed: int = 0, config: Run | None = None, **changes: Any) -> Run:
    """Dense, TD-MoE as published, which needs no calibration, and MoBE."""
    about = {"calibration": C4, "protocol": f"{text}: {SAID.format('bfloat16')}", "dataset": text, **changes}
    rows = [evaluated(method, 0.4, 0.25, added, **about) for method, added in ((PUBLISHED, 1.0), ("mobe", 0.1))]
    rows[0]["calibration"] = ""
    dense = evaluated("dense", None, 0.0, 0.0, **about) | {"projections": "", "compressed_layers": ""}
    return planted.run_of("quality", quality=[dense, *rows]) | {"seed": seed, "config": config or {}}


def names(*runs: Run) -> list[str]:
    found = [name.replace("\N{NO-BREAK SPACE}", " ") for name in rows("comparison", *runs)]
    return [name for name in found if name.startswith("MoBE")]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (quality("enwik8"), ["MoBE"]),
        (quality("enwik8", projections="up,gate"), ["MoBE"]),
        (quality("enwik8", projections="gate,up,down"), ["MoBE", "MoBE (gate, up and down)"]),
        (quality("enwik8", calibration=WIKI), ["MoBE", f"MoBE ({WIKI})"]),
        (quality("enwik8", config={"calibration window": 64}), ["MoBE", f"MoBE ({C4}, window 64)"]),
        (quality("enwik8", seed=1), ["MoBE", "MoBE (seed 1)"]),
        (quality("enwik8", bits_saved=0.24), ["MoBE (24.00 % of the bits saved)", "MoBE (25.00 % of the bits saved)"]),
        (quality("enwik8", calibration=None), ["MoBE"]),
        (quality("enwik8", calibration=None, seed=1), ["MoBE", "MoBE (seed 1)"]),
        (quality("enwik8", calibration=None, bits_saved=None),
         ["MoBE (25.00 % of the bits saved)", "MoBE (bits not known)"]),
    ],
)  # fmt: skip
def test_only_the_same_model_shares_a_line(other: Run, expected: list[str]) -> None:
    assert sorted(names(quality(), other)) == sorted(expected)


def test_a_checkpoint_is_the_same_under_any_seed() -> None:
    runs = [quality(text, seed, checkpoint="small", projections="") for seed, text in enumerate(("wikitext2", "c4"))]
    assert names(*runs) == ["MoBE (small)"]


def test_what_fits_several_models_is_none_of_them() -> None:
    unknown = [row | {"compressed_layers": ""} for row in planted.drifted("mobe", 0.4, 5.0, 0.9, calibration=None)]
    runs = [quality(), quality("enwik8", calibration=WIKI), planted.run_of("drift", drift=unknown)]
    found = rows("comparison", *runs)
    angles = [line["angle_deg"] for name, line in found.items() if name.startswith("MoBE")]
    assert sorted(angles, key=str) == [5.0, None, None]
    table = [{"layer": 0, "projection": "gate", "expert": "mean", "method": "mobe", "ratio": 0.4, "weight_error": 0.2}]
    operator = planted.run_of("operator", operator=table)
    assert rows("comparison", quality(), operator)["MoBE"]["weight_error"] == 0.2
    assert rows("comparison", *runs[:2], operator)["MoBE"]["weight_error"] is None
    elsewhere = operator | {"config": {"layers": "0-1", "projections": "gate,up"}}
    assert rows("comparison", quality(), elsewhere)["MoBE"]["weight_error"] is None


def with_ids(run: Run, letter: str) -> Run:
    found = [row | {"variant": f"{row['method']} {letter}"} for row in run["tables"]["quality"]]
    return run | {"tables": {"quality": found}}


def test_ids_decide_where_both_rows_have_one() -> None:
    """Whatever else is said: an id is of all that a model was made with."""
    assert names(with_ids(quality(), "a"), with_ids(quality("enwik8", seed=3), "a")) == ["MoBE"]
    assert len(names(with_ids(quality(), "a"), with_ids(quality("enwik8"), "b"))) == 2
    assert names(with_ids(quality(), "a"), quality("enwik8")) == ["MoBE"], "where one has none, the rest decides"


def ladder(**config: Any) -> Run:
    """Of the same text and number of windows as `quality`."""
    run = planted.attribution()
    rows = [row | {"text": "wikitext2", "windows": 16} for row in run["tables"]["attribution"]]
    return planted.run_of("attribution", attribution=rows) | {"config": {"layers": "0-3", **config}}


@pytest.mark.parametrize(
    ("runs", "columns"),
    [
        ([quality(), ladder(window=512, dtype="bfloat16")], ["wikitext2"]),
        ([quality(), ladder(window=512, dtype="float32")], ["wikitext2 (bfloat16)", "wikitext2 (float32)"]),
        ([quality(), ladder()], ["wikitext2", "wikitext2 (attribution)"]),
        ([quality(), quality(samples=32)], ["wikitext2 (16 windows)", "wikitext2 (32 windows)"]),
        ([quality(), quality(protocol=f"wikitext2: {SAID.format('bfloat16').replace('511', '256')}, stride 256")],
         ["wikitext2 (511 of each scored)", "wikitext2 (256 of each scored, stride 256)"]),
        ([quality(), quality("enwik8", samples=32)], ["wikitext2", "enwik8"]),
        ([quality(), quality(loss_nats=2.1)], ["wikitext2", "wikitext2 (quality, run 2)"]),
        ([ladder(), ladder()], ["wikitext2 (attribution, run 1)", "wikitext2 (attribution, run 2)"]),
    ],
)  # fmt: skip
def test_only_losses_of_one_protocol_share_a_column(runs: list[Run], columns: list[str]) -> None:
    texts = [row["text"] for row in view("comparison", *runs).rows if row.get("text")]
    assert list(dict.fromkeys(texts)) == columns


def test_figures_and_the_papers_table_keep_texts_apart() -> None:
    runs = [quality(), ladder(window=512, dtype="float32")]
    panels = plot("pareto", *runs)
    assert isinstance(panels, Panels)
    assert [panel.title for panel in panels.panels] == ["wikitext2 (bfloat16)", "wikitext2 (float32)"]
    assert "on wikitext2 (float32): MoBE" in panels.caption
    assert "on wikitext2 (float32)" in view("geometry", *runs).columns[-2].heading, "where most were measured"
    assert "measured on wikitext2 (" in view("published-losses", *runs).caption


def test_angles_over_other_windows_are_marked() -> None:
    run = planted.drift()
    other = [row | {"text": "enwik8"} for row in planted.drifted("svd_llm", 0.4, 5.0, 0.9)]
    found = rows("comparison", run, planted.run_of("drift", drift=other))
    assert (found["SVD-LLM"]["angle_on"], found["MoBE"]["angle_on"]) == ("enwik8, 10 windows", "wikitext2, 10 windows")
    assert not any(row["angle_on"] for row in rows("comparison", run).values() if "angle_on" in row)
