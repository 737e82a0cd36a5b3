"""The page of `superweights`: sentences hold the rows' numbers, what is missing says so, no text is trusted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from test_figures import HOSTILE
from test_page import Outline, words

from diag.pages import render
from reports.superweights.answer import answer
from reports.superweights.figures import superweights_figures
from reports.superweights.matrices import Matrix, matrices

SITES = ((1, "down", None, "superweight"), (3, "down", 5, "control"))
PLACE = ("layer", "projection", "expert", "role")


def synthetic_run() -> dict[str, Any]:
    """One super weight in a dense layer, a control in an expert; ranks 1 to 10 of 20 x 10 matrices."""
    entries: list[dict[str, Any]] = []
    recovery: list[dict[str, Any]] = []
    for site in SITES:
        about = dict(zip(PLACE, site, strict=True))
        groups = {"top_magnitude": [3, 5, 7, 9], "activation_weighted": [6, 8], "random_inlier": [10, 10]}
        if site[3] == "superweight":
            groups = {"superweight": [7], **groups}
        for group, stays in groups.items():
            entries += [
                {
                    **about,
                    **{"group": group, "row": 2 * n, "column": n, "value": 0.1 * n - 0.2, "first_rank": rank - 1},
                    **{"stays_from_rank": rank, "dominant_component": n + 1, "dominant_share": 0.25, "half_rank": 4},
                    **{"full_rank": 10, "outputs": 20, "inputs": 10, "status": "ok"},
                }
                for n, rank in enumerate(stays)
            ]
            for rank in range(1, 11):
                share = sum(r <= rank for r in stays) / len(stays)
                recovery.append(
                    {
                        **about,
                        **{"method": "svd", "group": group, "rank": rank, "stored_bits": 480 * rank, "ratio": None},
                        **{"recovered_fraction": share, "stays_recovered_fraction": share, "entries": len(stays)},
                        **{"kept_ratio": rank * 30 / 200, "status": "ok"},
                    }
                )
            if site[3] == "superweight":
                row = {"method": "rtn:bits=3", "group": group, "rank": "", "stored_bits": 700, "kept_ratio": 0.22}
                row |= {"recovered_fraction": 0.5, "stays_recovered_fraction": 0.5, "entries": len(stays)}
                recovery.append(about | row | {"ratio": None, "status": "ok"})
    found = {
        **{"layer": 1, "projection": "down", "expert": None, "row": 6, "column": 7, "value": -1.5, "tokens": 9},
        **{"input_activation": 130.0, "output_activation": -195.0, "input_ratio": 900.0, "output_ratio": 700.0},
        **{"output_share": 0.98, "source": "prompt", "token": 0, "published": True, "status": "found"},
    }
    spike = {**found, "threshold": 50.0, "same_token": True, "status": "above"}
    spikes = [spike, {**spike, "layer": 3, "expert": 5, "input_activation": 3.0, "status": "below"}]
    loss = {"loss": 2.0, "loss_stderr": 0.1, "perplexity": 7.39, "perplexity_stderr": 0.74}
    about = {"layer": None, "projection": None, "expert": None, "draw": None, "text": "wikitext2", "window": 512}
    about |= {"windows": 16, "status": "ok"}
    zeroed = {"group": "superweight", "zeroed": 1, "loss_change": 3.25, "loss_change_stderr": 0.125}
    random = [
        {**about, **loss, "group": "random", "draw": d, "zeroed": 1, "loss_change": c, "loss_change_stderr": 0.001}
        for d, c in enumerate((0.002, -0.001, 0.002))
    ]
    mean = {"group": "random_mean", "draw": None, "zeroed": 1, "loss_change": 0.001, "loss_change_stderr": 0.0004}
    random.append({**about, **loss, **mean})
    dense = {**about, **loss, "group": "dense", "zeroed": 0, "loss_change": None}
    keys = ("discovery", "recovery-l001-down", "recovery-l003-down-e005", "methods-l001-down", "ablation")
    return {
        **{"schema": 2, "model": "toy", "command": "superweights", "command_line": "tdmoe-diag superweights"},
        **{"config": {"threshold": 50.0, "most": 20}, "seed": 0, "versions": {"torch": "2"}, "device": "cpu"},
        **{"fingerprint": "f", "started": "2025-01-01", "arrays": {}},
        "jobs": [{"key": f"superweights-{key}", "state": "done", "message": None} for key in keys],
        "tables": {
            **{"superweights": [found], "spikes": spikes, "recovery": recovery, "entries": entries},
            "ablation": [dense, {**about, **loss, **zeroed, "perplexity": 190.57}, *random],
        },
    }


def page_of(run: dict[str, Any]) -> str:
    return render([run], [superweights_figures(run)])


def test_the_answer_holds_the_numbers() -> None:
    found, matrix, control, methods, ablation = answer(synthetic_run())
    assert found == (
        "1 super weight was found: −1.5 at [6, 7] of L1 down (input 130, output −195). Of these, 1 is published."
    )
    assert "full rank 10" in matrix
    assert "the super weight from rank 7 on" in matrix
    assert "half of the 4 largest entries from rank 5 on, all from 9" in matrix
    assert "At rank 6, where it still stores less than the matrix: 0 % of the super weights, 50 %" in _plain(matrix)
    assert control.startswith("L3 down, expert 5 (control)")
    assert "truncated SVD at 60 % recovers 0 % of the super weights, 25 % of the largest" in _plain(methods)
    assert "RTN bits=3 at 22 % recovers 50 %" in _plain(methods)
    assert "1 super weight changes the loss by +3.25 ± 0.12 nats (perplexity 190.57)" in ablation
    assert "as many random weights +0.00100 ± 0.00040 (mean of 3 draws)" in ablation


def _plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(("share", "rank"), [(0.25, 3), (0.26, 5), (0.5, 5), (0.75, 7), (1.0, 9)])
def test_rank_for_a_share(share: float, rank: int) -> None:
    (matrix, _) = matrices(synthetic_run())
    assert isinstance(matrix, Matrix)
    assert matrix.rank_for("top_magnitude", share) == rank


def test_page_has_every_figure_with_its_words() -> None:
    outline = Outline(page_of(synthetic_run()))
    images = outline.all("img")
    assert len(images) == 5
    assert all(len(image["alt"] or "") > 40 for image in images)
    assert page_of(synthetic_run()) == page_of(synthetic_run())


def test_none_found_is_said_with_the_strongest_spike() -> None:
    run = synthetic_run()
    row = dict.fromkeys(run["tables"]["superweights"][0])
    run["tables"]["superweights"] = [{**row, "status": "none_found"}]
    for spike in run["tables"]["spikes"]:
        spike["input_activation"] = 44.0
    said = answer(run)[0]
    assert said.startswith("No super weight was found: no down projection has both an input and an output above 50")
    assert "44 (900 times the median magnitude)" in said


@pytest.mark.parametrize("missing", ["ablation", "entries", "recovery", "spikes", "superweights"])
def test_a_table_that_is_missing_leaves_the_rest(missing: str) -> None:
    run = synthetic_run()
    run["tables"][missing] = [{"status": "failed"}]
    run["jobs"][0] |= {"state": "failed", "message": "broken"}
    page = page_of(run)
    assert "broken" in words(page)


def test_nothing_measured_is_said() -> None:
    run = synthetic_run()
    run["tables"] = {name: [] for name in run["tables"]}
    assert superweights_figures(run) == []
    assert "this run answers nothing yet" in words(page_of(run))


def test_text_from_outside_is_no_markup() -> None:
    run = copy.deepcopy(synthetic_run())
    run["model"] = HOSTILE
    for table in run["tables"].values():
        for row in table:
            row["projection"] = HOSTILE
    for row in run["tables"]["ablation"]:
        row["text"] = HOSTILE
    outline = Outline(page_of(run))
    assert outline.all("script") == [{}]
    assert len(outline.all("img")) == 5
