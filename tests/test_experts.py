"""The command `experts`: its tables, its page, and what it refuses."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import Result
from planted import write_stack
from safetensors.numpy import load_file
from test_expert_mode import draw, prototypes
from test_figures import HOSTILE
from test_page import Outline, words

from diag.pages import claims_of, figures_for, render
from diag.probes.experts import columns
from diag.probes.experts import figures as draw_of
from diag.probes.experts import measure as probe
from reports.plots import Forest, Panels
from reports.tables import tabulated

Tool = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("one_thread")

FROZEN = (
    "layer,projection,expert_mode,allocation,rank_expert,rank_output,rank_input,parameters,kept_ratio,"
    "weight_error,functional_error,operator_error,status"
)
QUICK = ("--layers", "2", "--projections", "gate", "--jackknife", "3", "--draws", "2", "--quiet")


def table(out: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "tables" / f"{name}.csv").open()))


def test_mini_end_to_end(tool: Tool, statistics: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = tool("experts", "--model", "mini", "--statistics", statistics, *QUICK, "--out", out)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-4:] == [
        *(str(out / "tables" / f"{name}.csv") for name in ("experts", "binding", "similarity")),
        str(out / "report.html"),
    ]
    assert (out / "tables" / "experts.csv").read_text().startswith(FROZEN + ",")
    points, bindings, similar = (table(out, name) for name in ("experts", "binding", "similarity"))
    assert len(points) == 2 * (4 + 32) and len(bindings) == 2
    for row in points:
        if (row["allocation"], row["expert_mode"], row["ratio"]) == ("published", "compress", "0.4"):
            assert (row["status"], row["functional_error"]) == ("nothing_to_cut", "")  # it keeps all 32 experts
            continue
        measured = row["point"] == "headline"
        assert row["status"] == ("ok" if measured else "from_table")
        assert row["functional_error"] and bool(row["operator_error"]) == bool(row["weight_error"]) == measured
    exact = [row for row in points if row["allocation"] == "exact" and row["point"] == "headline"]
    for row in exact:  # measured of bf16 factors, predicted by the table
        assert float(row["functional_error"]) == pytest.approx(float(row["metric_error"]), rel=0.02)
    assert {row["expert_mode"] for row in exact} == {"preserve", "compress"}
    for row in bindings:
        assert float(row["gain_low"]) < float(row["gain"]) < float(row["gain_high"])
        assert row["binding"] in {"yes", "no", "undecided"}
        assert row["metric"] == "inputs" and row["groups"] == "3" and row["price_share_null"]
    assert "cka" in {row["measure"] for row in similar} and len(similar) == 9
    arrays = load_file(out / "results" / "experts-L002-gate.safetensors")
    for row in similar:
        values = arrays[row["measure"]]
        assert (int(row["pairs"]), float(row["mean"])) == (values.size, pytest.approx(values.mean()))
        assert float(row["null_mean"]) == pytest.approx(arrays[f"{row['measure']}_null"].mean())
        assert values.size == (64 if row["measure"] == "aligned_cosine" else 496)
    said = words((out / "report.html").read_text(encoding="utf-8"))
    assert "The expert mode is the binding constraint" in said
    again = tool("experts", "--model", "mini", "--statistics", statistics, *QUICK[:-1], "--out", out)
    assert "1 of 1 job is done already" in again.err


def test_without_statistics_nothing_is_called_functional(tool: Tool, tmp_path: Path) -> None:
    W_EOI = prototypes(3, (9, 24, 40), noise=0.02)
    out, model = tmp_path / "out", write_stack(tmp_path / "model", W_EOI)
    result = tool("experts", "--model", model, "--ratios", "0.4", "--quiet", "--out", out, "--jackknife", "3")
    assert result.code == 0
    points = table(out, "experts")
    assert not any(row["functional_error"] for row in points)
    assert {row["status"] for row in points if row["point"] == "headline"} == {"not_calibrated"}
    assert [row["binding"] for row in table(out, "binding")] == ["no"] * 3
    rows = {(row["projection"], row["measure"]): row for row in table(out, "similarity")}
    assert ("gate", "cka_isotropic") in rows and ("gate", "cka") not in rows
    free = {
        measure for (projection, measure), row in rows.items() if projection == "gate" and row["order_free"] == "True"
    }
    assert free == {"aligned_cosine", "cka_isotropic", *(f"input_{n}" for n in ("overlap", "angle", "angle_least"))}
    free = {
        measure for (projection, measure), row in rows.items() if projection == "down" and row["order_free"] == "True"
    }
    assert free == {"aligned_cosine", *(f"output_{n}" for n in ("overlap", "angle", "angle_least"))}
    said = words((out / "report.html").read_text(encoding="utf-8"))
    for sentence in (
        "The expert mode is the binding constraint: 40 % removed 0 of 3",
        "Cutting experts certainly lowers the least error: 40 % removed 3 of 3",
        "Saving told apart from that of independent experts: 40 % removed 3 of 3",
    ):
        assert sentence in said and sentence in " ".join(result.out.replace("\N{NO-BREAK SPACE}", " ").split())
    assert "Of these, cheaper to cut than independent experts: 40 % removed 3 of 3" in said, "prototypes are shared"


@pytest.mark.parametrize(("name", "experts"), [("zeros", 5), ("single", 1)])
def test_stacks_without_an_answer_still_end_in_tables_and_a_page(
    tool: Tool, tmp_path: Path, name: str, experts: int
) -> None:
    W_EOI = draw(experts, 16, 24) * (name != "zeros")
    out, model = tmp_path / "out", write_stack(tmp_path / name, W_EOI)
    result = tool("experts", "--model", model, "--projections", "gate", "--ratios", "0.3", "--quiet", "--out", out)
    assert (result.code, result.err) == (0, "")
    expected = "zero_weights" if name == "zeros" else "nothing_to_cut"
    assert expected in {row["status"] for row in table(out, "experts")}
    assert [row["status"] for row in table(out, "similarity")] == ["too_few_experts"]
    assert "not measured, no stack has experts that could be cut" in words(
        (out / "report.html").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("ratio", ["0.6", "0.3"])
def test_a_published_triple_that_cuts_no_expert_is_no_point_of_the_ablation(
    tool: Tool, tmp_path: Path, ratio: str
) -> None:
    """Of 4 x 16 x 24 both modes' published triples are 4 x 8 x 8 at ratio 0.6; at 0.3 compress keeps 2 experts."""
    out, model = tmp_path / "out", write_stack(tmp_path / "model", draw(4, 16, 24))
    asked = ("--projections", "gate", "--ratios", ratio, "--jackknife", "2", "--draws", "1", "--quiet", "--out", out)
    assert tool("experts", "--model", model, *asked).code == 0
    points = {(row["allocation"], row["expert_mode"]): row for row in table(out, "experts") if row["method"]}
    row, (found,) = points["published", "compress"], table(out, "binding")
    apart = ("published_difference", "due_to_experts", "due_to_ranks")
    same, page = ratio == "0.6", words((out / "report.html").read_text(encoding="utf-8"))
    assert points["published", "preserve"]["status"] == "not_calibrated"
    assert (row["status"], row["metric_error"] == "") == ("nothing_to_cut" if same else "not_calibrated", same)
    assert (found["status"], found["rank_expert_published"]) == (("nothing_to_cut", "4") if same else ("ok", "2"))
    assert [found[name] == "" for name in apart] == [same] * 3 and found["gain"] and found["price_share"]
    assert f"Published compress triples that cut experts: {float(ratio):.0%} removed".replace("%", " %") in page
    assert ("Of these, error above that of the published preserve triple" in page) != same


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ratios", "0.2,1.5"), r"--ratios 0.2,1.5: '1.5' is no fraction"),
        (("--ratios", ""), "--ratios"),
        (("--ratios", "0.999"), "--ratios 0.999: no ranks of a"),
        (("--jackknife", "1"), "--jackknife 1: leaves no other group"),
        (("--directions", "0.6"), r"--directions 0.6: .*at most 0.5"),
        (("--directions", "nan"), "--directions nan"),
        (("--whitening", "input"), "--whitening input: needs statistics of the inputs; give --statistics"),
        (("--statistics", "nowhere"), "--statistics nowhere: is no run folder of tdmoe-diag calibrate"),
        (("--memory", "1kB"), "--memory"),
    ],
)
def test_wrong_input_is_refused_before_any_work(
    tool: Tool, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = tool("experts", "--model", "mini", *options, "--out", tmp_path / "out")
    assert result.code == 2 and not (tmp_path / "out").exists()
    assert re.search(message, " ".join(result.err.split()))


def test_weights_that_are_no_numbers_fail_their_job_alone(tool: Tool, tmp_path: Path) -> None:
    W_EOI = draw(5, 16, 24)
    W_EOI[3, 2, 1] = torch.nan
    model, out = write_stack(tmp_path / "model", W_EOI), tmp_path / "out"
    result = tool("experts", "--model", model, "--projections", "gate", "--quiet", "--out", out)
    assert result.code == 1
    assert "experts.3.gate_proj.weight: 1 weight of expert 3 is NaN or infinite" in result.err
    assert table(out, "experts")[0]["status"] == "failed"
    assert "1 of 1 job did not finish" in words((out / "report.html").read_text(encoding="utf-8"))


def test_streamed_weights_give_the_same_rows(tool: Tool, tmp_path: Path) -> None:
    model = write_stack(tmp_path / "model", draw(6, 16, 24).float())
    asked = ("experts", "--model", model, "--projections", "gate", "--draws", "1", "--jackknife", "2", "--quiet")
    for name, memory in (("whole", "1GB"), ("streamed", "4kB")):
        assert tool(*asked, "--memory", memory, "--out", tmp_path / name).code == 0
    for name in ("experts", "binding", "similarity"):
        for a, b in zip(table(tmp_path / "whole", name), table(tmp_path / "streamed", name), strict=True):
            for column, value in a.items():
                number = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", value)
                assert (
                    (float(b[column]) == pytest.approx(float(value), rel=1e-6, abs=1e-9))
                    if number
                    else b[column] == value
                )


# The page


@pytest.fixture(scope="module")
def run_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of three stacks, made through the probe."""
    from diag.runs.folder import Job
    from tdmoe.checkpoint.reader import Checkpoint
    from tdmoe.stacks.architecture import architecture
    from tdmoe.stacks.locate import open_stack

    checkpoint = Checkpoint(write_stack(tmp_path_factory.mktemp("page"), prototypes(4, (6, 16, 24), noise=0.5)))
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in probe.TABLES}
    jobs, arrays = [], {}
    for projection in ("gate", "up", "down"):
        stack = open_stack(checkpoint, architecture(checkpoint.config), 0, projection)
        settings = probe.Settings(jackknife=3, draws=2).by_itself().settled(10**9)
        rows, found = probe.run(stack, settings, device="cpu", seed=1, model="planted")
        for name in tables:
            tables[name] += rows[name]
        key = Job("experts", 0, projection).key
        jobs.append({"key": key, "state": "done", "message": None})
        arrays[key] = found
    return {
        **{"schema": 2, "model": "planted", "command": "experts", "command_line": "tdmoe-diag experts", "seed": 0},
        **{"config": {}, "versions": {}, "device": "cpu", "fingerprint": "0", "started": "2026-01-02T03:04:05+00:00"},
        **{"jobs": jobs, "tables": tables, "arrays": arrays},
    }


def test_figures_are_the_same_bytes_again_and_described(run_data: dict[str, Any]) -> None:
    figures = figures_for(run_data)
    assert [figure.name for figure in figures] == ["experts-depth", "experts-L000", "similarity-L000"]
    shuffled = run_data | {"jobs": run_data["jobs"][::-1]}
    shuffled["tables"] = {name: list(rows) for name, rows in run_data["tables"].items()}
    assert figures_for(shuffled) == figures
    assert all(len(figure.alt) > 60 and len(figure.caption) > 60 for figure in figures)
    page = Outline(render([run_data], [figures]))
    assert len(page.all("img")) == 3


def claims(tables: dict[str, list[dict[str, Any]]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (claim["quantity"], claim["subject"].replace("\N{NO-BREAK SPACE}", " ")): claim
        for claim in claims_of("experts", tables)
    }


def test_claims_are_what_the_rows_say(run_data: dict[str, Any]) -> None:
    found, at = claims(run_data["tables"]), "40 % removed"
    rows = [row for row in run_data["tables"]["binding"] if row["ratio"] == 0.4]
    for quantity, word in (("binding", "yes"), ("not_binding", "no")):
        counted = found[quantity, at]
        assert (counted["value"], counted["of"]) == (sum(row["binding"] == word for row in rows), 3)
    for quantity in ("gain", "price_share"):
        claim = found[quantity, at]
        assert claim["value"] == float(np.median([row[quantity] for row in rows]))
        assert claim["reference"] == {
            "independent experts": float(np.median([row[f"{quantity}_null"] for row in rows]))
        }
        assert (claim["low"], claim["high"]) == (None, None)
    cka = [
        row["mean"]
        for row in run_data["tables"]["similarity"]
        if row["measure"] == "cka_isotropic" and row["order_free"]
    ]
    assert len(cka) == 2
    assert found["similarity", "CKA on isotropic inputs"]["value"] == pytest.approx(float(np.median(cka)))


def test_one_stack_has_its_interval_and_several_are_told_apart_one_by_one(run_data: dict[str, Any]) -> None:
    (row,) = [row for row in run_data["tables"]["binding"] if (row["ratio"], row["projection"]) == (0.4, "up")]
    known = row | {"gain": 0.10, "gain_low": 0.08, "gain_high": 0.12, "gain_null": 0.01}
    at, tables = "40 % removed", run_data["tables"]
    found = claims(tables | {"binding": [known]})
    assert [found["gain", at][key] for key in ("value", "low", "high", "strength")] == [0.10, 0.08, 0.12, "clear"]
    others = [known | {"gain_null": 0.09}, known | {"gain_null": 0.2}]
    found = claims(tables | {"binding": [known, *others, known | {"gain_low": None, "gain_high": None}]})
    assert (found["told_apart", at]["value"], found["told_apart", at]["of"]) == (2, 3)
    assert (found["cheaper", at]["value"], found["cheaper", at]["of"]) == (1, 2)


def test_without_intervals_nothing_is_counted(run_data: dict[str, Any]) -> None:
    blank = dict.fromkeys(("binding", "gain_low", "gain_high", "price_share_low", "price_share_high"))
    found = claims(run_data["tables"] | {"binding": [row | blank for row in run_data["tables"]["binding"]]})
    assert found["binding", "no group of experts was left out for an interval (--jackknife)"]["strength"] == "missing"
    assert not {quantity for quantity, _ in found} & {"not_binding", "told_apart", "cheaper"}


def test_the_published_difference_is_of_the_stacks_whose_triple_cuts_experts(run_data: dict[str, Any]) -> None:
    parts = {"published_difference": 0.05, "due_to_experts": 0.04, "due_to_ranks": 0.01}
    cut = {"experts": 6, "rank_expert_published": 4, "status": "ok"} | parts
    whole = {"experts": 6, "rank_expert_published": 6, "status": "nothing_to_cut"} | dict.fromkeys(parts)
    rows = [row for row in run_data["tables"]["binding"] if row["ratio"] == 0.4]
    for changes in ((cut, cut, cut), (cut, whole, cut), (whole, cut, whole), (whole, whole, whole)):
        changed = [row | change for row, change in zip(rows, changes, strict=True)]
        found, at = claims(run_data["tables"] | {"binding": changed}), "40 % removed"
        assert (found["published_cut", at]["value"], found["published_cut", at]["of"]) == (changes.count(cut), 3)
        if cut in changes:
            difference = found["published_difference", at]
            assert difference["value"] == 0.05
            assert difference["reference"] == {"expert mode": 0.04, "other ranks": 0.01}
            assert difference["evidence"]["rows"] == changes.count(cut)
        else:
            assert ("published_difference", at) not in found
        (view,) = [v for v in columns.views(run_data["tables"] | {"binding": changed}) if v.name == "ranks"]
        cells = tabulated("", view.columns, view.rows)
        place = cells.headings.index("compress less preserve")
        assert [cells_of[place].note == "nothing to cut" for cells_of in cells.lines] == [c is whole for c in changes]


def test_figures_hold_the_rows_and_nothing_else(run_data: dict[str, Any]) -> None:
    depth, curves, similarity = draw_of.figures(run_data["tables"], run_data["arrays"])
    assert isinstance(depth, Panels) and isinstance(curves, Panels) and isinstance(similarity, Forest)
    binding = {(row["ratio"], row["projection"]): row for row in run_data["tables"]["binding"]}
    for panel, ratio in zip(depth.panels, (0.2, 0.4), strict=True):
        for one in [one for one in panel.series if one.name != "control"]:
            row = binding[ratio, one.name]
            assert [[*one.y], one.low, one.high] == [[row[f"price_share{end}"]] for end in ("", "_low", "_high")]
    points = [row for row in run_data["tables"]["experts"] if row["point"] == "curve"]
    for panel in curves.panels:
        for ratio, one in zip((0.2, 0.4), [one for one in panel.series if one.mark == "no"], strict=True):
            rows = [row for row in points if (row["projection"], row["ratio"]) == (panel.title, ratio)]
            assert dict(zip(one.x, one.y, strict=True)) == {row["rank_expert"]: row["metric_error"] for row in rows}
    similar = {(row["measure"], row["projection"]): row for row in run_data["tables"]["similarity"]}
    for heading, entries in similarity.groups:
        (measure,) = [name for name, text in columns.MEASURES.items() if text == heading]
        for entry in entries:
            null, own = entry.marks
            assert own.value == pytest.approx(similar[measure, entry.title]["median"])
            assert own.hollow != similar[measure, entry.title]["order_free"]
            assert null.name == "control" and not null.hollow


def test_a_stack_without_interval_and_null_is_drawn_without_them(run_data: dict[str, Any]) -> None:
    blank = dict.fromkeys(("price_share_low", "price_share_high", "price_share_null"))
    rows = [row | blank for row in run_data["tables"]["binding"]]
    depth = draw_of.figures(run_data["tables"] | {"binding": rows}, {})[0]
    assert isinstance(depth, Panels)
    assert all(np.isnan([*one.low, *one.high]).all() for panel in depth.panels for one in panel.series)
    figures_for(run_data | {"tables": run_data["tables"] | {"binding": rows}})


def test_a_run_with_a_failed_job_says_so_and_hostile_names_stay_text(run_data: dict[str, Any]) -> None:
    run = run_data | {
        "model": HOSTILE,
        "jobs": [*run_data["jobs"], {"key": "experts-L001-up", "state": "failed", "message": "x"}],
    }
    page = render([run], [figures_for(run)])
    outline = Outline(page)
    assert not {tag for tag, _ in outline.tags} & {"b", "svg"} and len(outline.all("script")) == 1
    assert "Measured: 3 of 4 jobs" in words(page) and "The run is incomplete" in words(page)
    assert "failed" in words(page)


def test_a_run_of_which_nothing_was_measured_has_a_page(run_data: dict[str, Any]) -> None:
    jobs = [job | {"state": "failed", "message": "no"} for job in run_data["jobs"]]
    empty = run_data | {"jobs": jobs, "tables": {name: [] for name in probe.TABLES}, "arrays": {}}
    assert figures_for(empty) == []
    assert "nothing of this run has a result yet" in words(render([empty], [[]]))
