"""The page of drift: what it says follows from the rows, and missing values are named, never drawn."""

from __future__ import annotations

from typing import Any

import pytest
from test_figures import HOSTILE

from diag.declare import parse
from diag.pages import answer, claims_of, figures_for, render
from diag.probes.drift.columns import accumulated, ends, largest, named, views
from diag.probes.drift.figures import figures
from reports.tables import tabulated

ALONE = {0: 3.0, 2: 4.0}  # angles after layer 2 of layers compressed alone


def row(scope: str, layers: str, layer: int, angle: float | None, **changes: Any) -> dict[str, Any]:
    last = max(parse.numbers(layers), default=2)
    found = {
        **{"method": "tdmoe", "ratio": 0.4, "scope": scope, "compressed_layers": layers, "layer": layer},
        **{"angle_deg": angle, "angle_stderr": 0.01, "norm_ratio": 0.9, "routing_agreement": 0.8, "routing_js": 0.2},
        **{"tokens": 640, "status": "ok", "after_last": int(layer == last), "norm_ratio_stderr": 0.001},
        **{"routing_agreement_stderr": 0.01, "routing_js_stderr": 0.01, "windows": 10, "text": "wikitext2"},
        **{"dtype": "float32", "bits_saved": 0.25, "projections": "gate,up", "checkpoint": ""},
    }
    return found | changes


def a_run(together: float | None, *more: dict[str, Any], model: str = "m") -> dict[str, Any]:
    rows = [
        row("one", str(chosen), layer, angle * (1 + layer) / 3) for chosen, angle in ALONE.items() for layer in range(3)
    ]
    rows += [row("all", "0,2", layer, None if together is None else together * (1 + layer) / 3) for layer in range(3)]
    return {
        **{
            "schema": 2,
            "model": model,
            "command": "drift",
            "command_line": "tdmoe-diag drift",
            "config": {},
            "seed": 0,
        },
        **{"versions": {}, "device": "cpu", "fingerprint": "0", "started": "now", "jobs": [], "arrays": {}},
        "tables": {"drift": [*rows, *more]},
    }


def found(run: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(c["quantity"], c["subject"]): c for c in claims_of("drift", run["tables"])}


def more() -> list[dict[str, Any]]:
    """A smaller set, another method, and the dense model rounded."""
    small = [row("all", "2", layer, 1.0 + layer) for layer in range(3)]
    other = [row("all", "0,2", layer, 3.0 + layer, method="mobe", norm_ratio=0.95) for layer in range(3)]
    cast = [row("all", "", layer, 0.1, method="cast:dtype=bfloat16", ratio=None, bits_saved=None) for layer in range(3)]
    return [*small, *other, *cast]


@pytest.mark.parametrize("together", [5.0, 6.5, 9.0, 4.0])
def test_layers_together_are_held_against_each_alone(together: float) -> None:
    run = a_run(together)
    (sums,) = accumulated(named(run["tables"]["drift"]))
    assert (sums["independent"], sums["aligned"], sums["together"], sums["layer"]) == (5.0, 7.0, together, 2)
    assert (sums["local"], sums["alone"]) == ({0: 1.0, 2: 4.0}, {0: 3.0, 2: 4.0})
    claims = found(run)
    one = claims["over_independent", "tdmoe at 0.4"]
    assert (one["value"], one["reference"]) == (together / 5, {"in one direction": 1.4})
    assert claims["local", "tdmoe at 0.4 at layer 2"]["value"] == 4.0
    assert claims["carried", "tdmoe at 0.4 at layer 2"]["value"] == 4.0


def test_layers_without_each_alone_are_not_held_against_any() -> None:
    run = a_run(5.0)
    run["tables"]["drift"] = [r for r in run["tables"]["drift"] if r["compressed_layers"] != "0"]
    assert accumulated(named(run["tables"]["drift"])) == []
    assert not {key[0] for key in found(run)} & {"over_independent", "local", "carried"}


def test_claims_are_of_the_largest_set_of_a_method() -> None:
    extra = more()
    extra[3]["routing_agreement"] = 0.5
    claims = found(a_run(6.0, *extra))
    angle = claims["angle_deg", "tdmoe at 0.4"]
    assert (angle["value"], angle["low"], angle["high"]) == pytest.approx((6.0, 6 - 0.0196, 6 + 0.0196))
    assert angle["evidence"]["where"] == {"method": "tdmoe", "ratio": 0.4, "scope": "all", "compressed_layers": "0,2",
                                          "checkpoint": "", "layer": 2}  # fmt: skip
    assert claims["norm_ratio", "mobe at 0.4"]["value"] == 0.95
    assert claims["routing_agreement", "mobe at 0.4 at layer 0"]["value"] == 0.5
    assert claims["rounding", "cast:dtype=bfloat16"]["value"] == 0.1
    assert ("angle_deg", "cast:dtype=bfloat16") not in claims
    growth = claims["growth", "tdmoe at 0.4"]
    assert (growth["value"], growth["reference"]) == (6.0, {"with layers 2": 3.0})


def test_tables_have_the_largest_sets_and_every_variant() -> None:
    rows = a_run(6.0, *more())["tables"]["drift"]
    listed = ends(largest(named(rows)))
    assert [(r["model"], r["compressed_layers"]) for r in listed] == [
        ("tdmoe at 0.4", "0,2"), ("mobe at 0.4", "0,2"), ("cast:dtype=bfloat16", "")]  # fmt: skip
    tables = {v.name: tabulated("", v.columns, v.rows, v.keys, v.across) for v in views({"drift": rows})}
    assert [cell.text for cell in tables["models"].lines[0]] == [
        "TD-MoE", "40.0\u00a0%", "0,2", "25.0\u00a0%", "2", "6.000 ± 0.010°", "0.9000 ± 0.0010", "80.0 ± 1.0\u00a0%",
        "0.200 ± 0.010"]  # fmt: skip
    assert tables["depth"].groups == [("", 1), ("TD-MoE at 0.4", 2), ("MoBE at 0.4", 2), ("dense in bfloat16", 2)]
    assert [line[1].text for line in tables["depth"].lines] == [f"{angle}.000 ± 0.010°" for angle in (2, 4, 6)]
    assert [cell.text for cell in tables["accumulated"].lines[0]] == [
        "TD-MoE at 0.4", "2", "6", "5", "7", "1.20"]  # fmt: skip
    assert len(tables["variants"].lines) == 6 and len(tables["routing"].lines) == 3


def test_figures_draw_what_the_rows_hold() -> None:
    extra = more()
    extra[4] |= {"angle_deg": None}
    plots: dict[str, Any] = {plot.name: plot for plot in figures({"drift": a_run(6.0, *extra)["tables"]["drift"]}, {})}
    assert list(plots) == ["drift-depth", "drift-routing", "drift-accumulated", "drift-sets"]
    angle, norm = plots["drift-depth"].panels
    lines = {one.name: one for one in angle.series}
    assert lines["tdmoe at 0.4"].x == [0, 1, 2] and lines["tdmoe at 0.4"].y == pytest.approx([2, 4, 6])
    assert lines["mobe at 0.4"].y[1] != lines["mobe at 0.4"].y[1], "a gap"
    assert {one.name: one.y for one in norm.series}["mobe at 0.4"] == [0.95] * 3
    ((_, (entry,)),) = plots["drift-accumulated"].groups
    assert (entry.title, [mark.value for mark in entry.marks]) == ("TD-MoE at 0.4", [3.0, 4.0, 5.0, 7.0, 6.0])
    (line,) = plots["drift-sets"].panels[0].series
    assert (line.name, line.x, line.y) == ("tdmoe at 0.4", [1, 2], [3.0, 6.0])
    assert [figure.name for figure in figures_for(a_run(6.0, *extra))] == list(plots)


def test_what_was_not_measured_is_named_and_not_drawn() -> None:
    broken = a_run(None)
    for one in broken["tables"]["drift"]:
        if one["scope"] == "all":
            one.update(norm_ratio=None, routing_agreement=None, routing_js=None, status="not_finite")
        else:
            one.update(routing_agreement=None, routing_js=None, status="dense_layer")
    said, table = answer(broken)
    assert said == ["Answer: not measured, nothing of this run has a result yet."] and figures_for(broken) == []
    assert {cell.note for cell in table.lines[0][5:]} == {"not finite"}
    assert found(a_run(None, *more()))["not_finite", ""]["value"] == 1
    nothing = {**broken, "tables": {"drift": []}}
    assert "nothing of this run has a result" in render([nothing], [figures_for(nothing)])


def test_names_from_outside_are_harmless() -> None:
    other = [row("all", "", layer, 2.0, method=HOSTILE, checkpoint=HOSTILE, ratio=None) for layer in range(3)]
    run = a_run(5.0, *other, model=HOSTILE)
    page = render([run], [figures_for(run)])
    assert "<script>document" not in page and 'onerror="x' not in page
    assert page == render([run], [figures_for(run)])
