"""What the verdict claims by the errors that tables have: paired by window, beside the dense model, or none at all."""

from __future__ import annotations

from typing import Any

import pytest
import verdict_runs as planted
from test_verdict import Run, said
from verdict_runs import evaluated, step

NO_ERROR = {"loss_difference_nats_stderr": None, "stderr": None, "samples": 1}


def without_errors(run: Run, **changes: Any) -> Run:
    """As one window leaves it."""
    (table, rows), *_ = run["tables"].items()
    return run | {"tables": {table: [row | NO_ERROR | {"windows": 1} | changes for row in rows]}}


def test_without_an_error_nothing_is_claimed_and_nothing_agrees() -> None:
    rtn = evaluated("rtn", None, 0.45, 0.005)
    run = without_errors(planted.quality(1.0, 0.3, 0.1, rtn))
    first, second, *_, fifth = said(run)
    assert first == (
        "Whether TD-MoE loses to MoBE, as published and at its best, cannot be told without an error: 0.900 and 0.200 "
        "nats a token more on wikitext2 (1 window), 40 % of gate and up of layers 0-3 removed, 25.0 % of bits saved."
    )
    assert second == (
        "How much of it is how TD-MoE was run: cannot be told without an error of the gap of 0.900 nats; with default "
        "options TD-MoE closes 77.8 % of it. Which change did it: not measured (attribution does that)."
    )
    assert fifth.endswith(
        " saves more and loses less; of decompositions MoBE, +0.1 at 25.0 %. No error of these is known."
    )
    known = planted.quality(1.0, 0.3, 0.1, rtn)
    elsewhere = without_errors(planted.quality(1.0, 0.3, 0.1, rtn), dataset="enwik8")
    assert not any("elsewhere" in sentence for sentence in said(known, elsewhere))
    assert not any("elsewhere" in sentence for sentence in said(elsewhere, run))


@pytest.mark.parametrize(
    ("published", "best", "mobe", "second"),
    [
        (
            0.1,
            0.05,
            0.5,
            "no gap to divide, as TD-MoE adds no more to the loss as published (no error known).",
        ),
        (1.0, None, 0.1, "cannot be told without an error of the gap of 0.900 nats, and for want of a TD-MoE that was"),
        (0.12, 0.11, 0.1, "cannot be told without an error of the gap of 0.0200 nats; with default options TD-MoE"),
    ],
)
def test_gaps_without_an_error(published: float, best: float | None, mobe: float, second: str) -> None:
    found = said(without_errors(planted.quality(published, best, mobe)))
    assert second in found[1] and "cannot be told apart" not in "".join(found)


def test_too_few_windows_for_an_interval_leave_the_difference_without_one() -> None:
    run = paired_run(0.09, 0.12)
    rows = [row | {"mobe_difference_low": None, "mobe_difference_high": None} for row in run["tables"]["attribution"]]
    first, *_, fifth = said(run | {"tables": {"attribution": rows}})
    assert first.startswith(
        "Whether TD-MoE loses to MoBE, as published and at its best, cannot be told without an error: 0.900 and 0.0200"
    )
    assert "cannot be told apart" not in fifth.partition(" Cannot")[0]


def test_what_remains_of_a_chosen_combination_is_told_on_windows_that_it_was_not_chosen_on() -> None:
    """Its own loss is too low: 0.01 nats above MoBE, where the table of shares has 0.09 of 0.9."""
    best = step("best of 4 combinations: exact ranks", "tdmoe:alignment=1", 0.11, "combination", gap_closed=0.99)
    run = paired_run(0.09, 0.12)
    run["tables"]["attribution"].append(best | planted.paired(0.01))
    run["tables"]["attribution_shares"] = planted.shares(best["step"], "combination", None, 0.9)
    second = said(run)[1]
    assert "90.0 % (95 % interval 86.0 to 93.0), with the “best of 4 combinations” (exact ranks)" in second
    assert "What remains, 0.090 nats, bounds" in second


def test_a_best_run_without_an_error_is_told() -> None:
    run = planted.quality()
    rows = [row | (NO_ERROR if row["method"] == "tdmoe" else {}) for row in run["tables"]["quality"]]
    found = said(run | {"tables": {"quality": rows}})
    assert "What remains, 0.200 nats, has no known error." in found[1]
    assert found[4].endswith("; TD-MoE (default options), +0.3 at 25.0 %, no error known.")
    assert found[0].startswith(
        "TD-MoE as published loses to MoBE, at its best without a known error: 0.900 (95 % interval 0.861 to 0.939) "
        "and 0.200 nats a token more"
    )


def paired_run(rtn: float, tdmoe: float, reach: float = 0.004, **closed: float) -> Run:
    """Standard errors of 0.01 beside the dense model, of differences to MoBE much less."""
    return planted.run_of(
        "attribution",
        attribution=[
            step("as published", planted.PUBLISHED, 1.0, gap_closed=0.0, **planted.paired(0.9)),
            step("+ core refit", "tdmoe:refit=expert", tdmoe, **planted.paired(tdmoe - 0.1, reach), **closed),
            step("preset corrected", "mobe", 0.1, "mobe", gap_closed=1.0, **planted.paired(0.0, 0.0)),
            step("RTN, 4 bits", "rtn", rtn, "beside", ratio=None, bits_saved=0.45, **planted.paired(rtn - 0.1)),
        ],
    )


def test_differences_to_the_reference_are_those_that_attribution_paired_by_window() -> None:
    closed = {"gap_closed": 0.978, "gap_low": 0.973, "gap_high": 0.982}
    first, second, *_, fifth = said(paired_run(0.09, 0.12, **closed))
    assert first.startswith(
        "TD-MoE as published loses to MoBE, and still does at its best: 0.9000 (95 % interval 0.8960 to 0.9040) and "
        "0.0200 (0.0160 to 0.0240) nats a token more on c4-eval"
    )
    assert "97.8 % (95 % interval 97.3 to 98.2)" in second
    assert "What remains, 0.0200 nats, bounds the structure's cost" in second, "its interval is that of the share"
    assert "; of decompositions MoBE, +0.100 ± 0.010" in fifth and "cannot be told apart" not in fifth
    turned = said(paired_run(0.11, 0.12, **closed))[4]
    assert turned.startswith(
        "What to do instead is a trade-off on c4-eval: rounding to 4 bits (RTN) +0.110 ± 0.010 nats"
    )
    assert "; MoBE +0.100 ± 0.010 at 25.0 %; nothing" in turned, "told apart, turned for the other order"
    tied = said(paired_run(0.102, 0.12))[4]
    assert tied.startswith("What to do instead: rounding to 4 bits (RTN).")
    assert "; of decompositions MoBE, +0.100 ± 0.010 at 25.0 %, which cannot be told apart." in tied


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (0.990, 0.999, "What remains, 0.0050 nats, bounds"),
        (0.985, 1.002, "What remains, +0.0050 nats, cannot be told from nothing."),
    ],
)
def test_a_remainder_has_one_interval_that_of_the_share(low: float, high: float, told: str) -> None:
    """Whatever the interval of the difference holds."""
    closed = {"gap_closed": 0.9944, "gap_low": low, "gap_high": high}
    assert told in said(paired_run(0.5, 0.105, **closed))[1]
    ahead = {"gap_closed": 1.02, "gap_low": 1.01, "gap_high": 1.03}
    assert said(paired_run(0.5, 0.08, **ahead))[1].endswith(
        "Nothing remains for the structure: at its best TD-MoE loses 0.0200 nats a token less than MoBE."
    )
