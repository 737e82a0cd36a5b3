"""What `superweights` concludes, tables and draws: claims hold the rows' numbers, no text is trusted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from test_figures import HOSTILE
from test_page import Outline, words

from diag.pages import answer, claims_of, figures_for, render
from diag.probes.superweights import columns, figures
from diag.probes.superweights.columns import matrices
from reports.plots import Forest, Panels, Plot, Scatter

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
    return render([run], [figures_for(run)])


def claims(run: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(c["quantity"], c["subject"]): c for c in claims_of("superweights", run["tables"], run["jobs"])}


def test_claims_hold_the_numbers() -> None:
    found = claims(synthetic_run())
    assert found["found", ""]["value"] == 1
    weight = found["weight", "layer 1 down [6, 7]"]
    assert (weight["value"], weight["reference"]) == (-1.5, {"input": 130.0, "output": -195.0})
    assert (found["published", ""]["value"], found["published", ""]["of"]) == (1, 1)
    first, control = "layer 1 down (with a super weight)", "layer 3 down expert 5 (control)"
    ranks = {key: (c["value"], c["reference"]) for key, c in found.items() if key[0].startswith("half_rank")}
    assert ranks["half_rank_superweight", first] == (7, {"all": 7, "full rank": 10})
    assert ranks["half_rank_top_magnitude", first] == (5, {"all": 9, "full rank": 10})
    assert ranks["half_rank_activation_weighted", control] == (6, {"all": 8, "full rank": 10})
    assert ("half_rank_superweight", control) not in ranks
    stays = {key: c["value"] for key, c in found.items() if key[0].startswith("stays_recovered")}
    assert stays["stays_recovered_superweight", first] == 0.0
    assert stays["stays_recovered_top_magnitude", first] == 0.5, "3 and 5 of 3, 5, 7, 9 up to rank 6 of 6.67"
    made = {key: (c["value"], c["reference"]["kept"]) for key, c in found.items() if key[0].startswith("recovered")}
    assert made["recovered_superweight", "svd"] == (0.0, 0.6)
    assert made["recovered_top_magnitude", "svd"] == (0.25, 0.6)
    assert made["recovered_top_magnitude", "rtn:bits=3"] == (0.5, 0.22)
    assert not {key for key in made if "random" in key[0]}


def test_changes_of_the_loss_have_intervals_over_windows() -> None:
    run = synthetic_run()
    place = {"layer": 3, "projection": "down", "expert": 5}
    entry = run["tables"]["ablation"][1] | place | {"group": "top_magnitude", "zeroed": 4, "loss_change": 0.5}
    run["tables"]["ablation"].append(entry)
    found = claims(run)
    t = 2.131450  # Student's 97.5 % quantile of 15 degrees of freedom
    for key, value, error in (
        (("perplexity", "16 windows of 512 tokens of wikitext2"), 7.39, 0.74),
        (("loss_change", "1 super weight"), 3.25, 0.125),
        (("loss_change", "as many random weights, mean over draws"), 0.001, 0.0004),
        (("loss_change of layer 3 down expert 5", "4 largest entries"), 0.5, 0.125),
    ):
        claim = found[key]
        assert [claim[end] for end in ("value", "low", "high")] == pytest.approx(
            [value, value - t * error, value + t * error], rel=1e-5
        )
    run["tables"]["ablation"][1]["windows"] = 1
    assert claims(run)["loss_change", "1 super weight"]["strength"] == "estimate"


@pytest.mark.parametrize(("share", "rank"), [(0.25, 3), (0.26, 5), (0.5, 5), (0.75, 7), (1.0, 9)])
def test_rank_for_a_share(share: float, rank: int) -> None:
    (matrix, control) = matrices(synthetic_run()["tables"])
    assert control.role == "control" and matrix.dense_rank == pytest.approx(20 / 3)
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
    first, other = run["tables"]["spikes"]
    first["input_activation"] = 44.0
    other |= {"input_activation": 48.0, "same_token": False}
    found = claims(run)
    assert found["found", ""]["value"] == 0 and "50" in found["found", ""]["after"]
    strongest = found["strongest_spike", "layer 1 down [6, 7]"]
    assert (strongest["value"], strongest["reference"]["input"]) == (44.0, 44.0)
    assert not {quantity for quantity, _ in found} & {"weight", "published"}
    _, table = answer(run)
    assert [line[0].text for line in table.lines] == ["layer 1 down [6, 7]", "layer 3 down expert 5 [6, 7]"]


def test_a_published_weight_without_a_spike_is_counted_as_missed() -> None:
    run = synthetic_run()
    missed = run["tables"]["superweights"][0] | {"layer": 2, "status": "published"}
    run["tables"]["superweights"].append(missed | {"input_activation": None, "output_activation": None})
    found = claims(run)
    assert (found["published", ""]["value"], found["published", ""]["of"], found["found", ""]["value"]) == (1, 2, 1)


def test_tables_say_where_entries_are_recovered_and_lie() -> None:
    views = {view.name: view for view in columns.views(synthetic_run()["tables"])}
    assert list(views) == ["found", "spikes", "recovery", "methods", "ablation", "positions", "entries"]
    (row,) = [r for r in views["recovery"].rows if (r["matrix"][:7], r["group"]) == ("layer 1", "top_magnitude")]
    assert [row[f"rank_{share}"] for share in (0.25, 0.5, 0.75, 0.9, 1.0)] == [3, 5, 7, 9, 9]
    assert (row["entries"], row["lost"], row["dominant_component"]) == (4, 4, 2.5)
    (row,) = [r for r in views["positions"].rows if (r["matrix"][:7], r["group"]) == ("layer 3", "random_inlier")]
    assert [row[name] for name in ("rows", "row", "of_row", "columns", "of_column")] == [2, 0, 1, 2, 1]
    assert {row["method"] for row in views["methods"].rows} == {"rtn:bits=3"}
    assert len(views["entries"].rows) == 17


def test_figures_hold_the_rows() -> None:
    run = synthetic_run()
    drawn: dict[str, Plot] = {plot.name.removeprefix("superweights-"): plot for plot in
                              figures.figures(run["tables"], {})}  # fmt: skip
    spikes, recovery, methods = (drawn[name] for name in ("spikes", "recovery", "methods"))
    assert isinstance(spikes, Panels) and isinstance(recovery, Panels) and isinstance(methods, Panels)
    assert [[*one.y] for one in spikes.panels[0].series] == [[130.0, 3.0], [195.0, 195.0]]
    stays = [one for one in recovery.panels[0].series if one.label is None]
    assert [one.name for one in stays] == list(columns.GROUPS)
    assert [*stays[1].y] == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0, 1.0]
    assert [[(one.name, [*one.x][-1]) for one in panel.series] for panel in methods.panels] == [
        [("svd", 1.2), ("rtn", 0.22)]
    ] * 4
    ablation, positions = drawn["ablation"], drawn["positions"]
    assert isinstance(ablation, Forest) and isinstance(positions, Scatter)
    ((_, (entry,)),) = [group for group in ablation.groups if group[0] == ""]
    assert [mark.value for mark in entry.marks] == [0.002, -0.001, 0.002, 3.25]
    assert [len(panel.series) for panel in positions.panels] == [4, 3]


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
    assert figures_for(run) == []
    assert "nothing of this run has a result yet" in words(page_of(run))


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
