"""The page of drift: what it says follows from the rows, and missing values are named, never drawn."""

from __future__ import annotations

from typing import Any

import pytest
from test_figures import HOSTILE

from diag.pages import figures_for, render
from reports.drift.variants import accumulations, largest, layers_of, variants

ALONE = {0: 3.0, 2: 4.0}  # angles after layer 2 of layers compressed alone


def row(scope: str, layers: str, layer: int, angle: float | None, **changes: Any) -> dict[str, Any]:
    last = max(layers_of(layers), default=2)
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


@pytest.mark.parametrize(
    ("together", "said"),
    [
        (5.0, "it is what independent errors of single layers would give"),
        (6.5, "they accumulate in common directions"),
        (9.0, "layers make each other&#39;s errors worse"),
        (4.0, "it is less than independent errors would give"),
    ],
)
def test_local_against_accumulated_is_told_by_the_numbers(together: float, said: str) -> None:
    run = a_run(together)
    (found,) = accumulations(variants(run))
    assert (found.root_sum_square, found.sum, found.together, found.layer) == (5.0, 7.0, together, 2)
    assert found.local == {0: 1.0, 2: 4.0}
    page = render([run], [figures_for(run)])
    assert said in page and "TD-MoE at 0.4 turns the residual stream by" in page


def test_the_largest_set_stands_for_a_method_and_growing_sets_are_drawn() -> None:
    small = [row("all", "2", layer, 1.0 + layer) for layer in range(3)]
    cast = [row("all", "", layer, 0.1, method="cast:dtype=bfloat16", ratio=None, bits_saved=None) for layer in range(3)]
    run = a_run(5.0, *small, *cast)
    assert [v.layers for v in largest(variants(run))] == ["0,2", ""]
    names = [figure.name for figure in figures_for(run)]
    assert names == ["drift-depth", "drift-routing", "drift-accumulated", "drift-sets"]
    page = render([run], [figures_for(run)])
    assert "TD-MoE at 0.4 from 3.00 ± 0.01° with 1 layer to 5.00 ± 0.01° with 2" in page
    assert "running the dense model in bfloat16 alone turns the stream by 0.10 ± 0.01°" in page


def test_what_was_not_measured_is_named_and_not_drawn() -> None:
    broken = a_run(None)
    for one in broken["tables"]["drift"]:
        if one["scope"] == "all":
            one.update(norm_ratio=None, routing_agreement=None, routing_js=None, status="not_finite")
        else:
            one.update(routing_agreement=None, routing_js=None, status="dense_layer")
    page = render([broken], [figures_for(broken)])
    assert figures_for(broken) == [] and "this run answers nothing yet" in page and "not finite" in page
    nothing = {**broken, "tables": {"drift": []}}
    assert "answers nothing yet" in render([nothing], [figures_for(nothing)])


def test_names_from_outside_are_harmless() -> None:
    other = [row("all", "", layer, 2.0, method=HOSTILE, checkpoint=HOSTILE, ratio=None) for layer in range(3)]
    run = a_run(5.0, *other, model=HOSTILE)
    page = render([run], [figures_for(run)])
    assert "<script>document" not in page and 'onerror="x' not in page
    assert page == render([run], [figures_for(run)])
