"""Figures: the same bytes for the same run, harmless whatever the names, honest about what is missing."""

import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
import pytest

from diag.pages import figures_for
from reports.formats import fixed, percent, significant, visible, without_folders

SHAPES = {"gate": (6, 20, 32), "up": (6, 20, 32), "down": (6, 32, 20)}
MODES = ("expert", "output", "input")
HOSTILE = "<script>document.title='owned'</script>\" onerror=\"x $\\frac{$ \u202egnp\u2066 & 模型"


def synthetic_row(layer: int, projection: str, mode: str, spectrum: np.ndarray, **changes: Any) -> dict[str, Any]:
    """One row of spectra.csv, every column given; the exponents differ from cell to cell so that mix-ups show."""
    n = len(spectrum)
    alpha = 0.1 + 0.01 * layer + 0.001 * MODES.index(mode)
    row = {
        "layer": layer,
        "projection": projection,
        "mode": mode,
        "n": n,
        "alpha": alpha,
        "alpha_stderr": 0.0021,
        "r2": 0.97,
        "fit_first": 1,
        "fit_last": n,
        "alpha_null": 0.05,
        "alpha_density": 3.25,
        "effective_rank": n * 0.8,
        "stable_rank": n * 0.3,
        "sigma_max": float(spectrum[0]),
        "noise_floor": float(spectrum[-1]) / 2,
        "status": "ok",
        "alpha_jackknife_stderr": 0.004,
        "alpha_density_stderr": 0.12,
        "density_xmin": 1.5,
        "density_tail": 12,
        "lognormal_ratio": -2.0,
        "lognormal_p": 0.01,
        "truncated_ratio": 0.5,
        "truncated_p": 0.4,
        "effective_rank_null": n * 0.95,
        "energy_10": 0.2,
        "energy_25": 0.36,
        "energy_50": 0.7,
        "energy_10_null": 0.12,
        "energy_25_null": 0.28,
        "energy_50_null": 0.55,
        "alpha_paper": None,
        "precision": "float64",
    }
    return row | changes


def synthetic_run(
    layers: Iterable[int] = (0, 3), projections: Iterable[str] = ("gate", "up", "down"), model: str = "pico-moe"
) -> dict[str, Any]:
    """A complete run of `spectra` without randomness."""
    projections = tuple(projections)
    jobs, rows = [], []
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for layer in layers:
        for projection in projections:
            key = f"spectra-L{layer:03d}-{projection}"
            jobs.append({"key": key, "state": "done", "message": None})
            arrays[key] = {}
            for mode, n in zip(MODES, SHAPES.get(projection, (6, 20, 32)), strict=True):
                spectrum = 9.0 * np.arange(1, n + 1) ** -(0.1 + 0.01 * layer)
                arrays[key][mode] = spectrum
                arrays[key][f"{mode}_null"] = np.full(n, np.sqrt((spectrum**2).mean()))
                rows.append(synthetic_row(layer, projection, mode, spectrum))
    return {
        "schema": 1, "model": model, "command": "spectra", "command_line": "tdmoe-diag spectra --model pico-moe",
        "config": {"fit": "full", "layers": [0, 3]}, "seed": 0, "versions": {"numpy": "2.4"}, "device": "cpu",
        "fingerprint": "0123abcd", "started": "2026-01-02T03:04:05+00:00", "jobs": jobs, "tables": {"spectra": rows},
        "arrays": arrays,
    }  # fmt: skip


def fail(run: dict[str, Any], key: str, message: str, state: str = "failed") -> dict[str, Any]:
    """The same run with one job that left nothing."""
    layer, projection = int(key[9:12]), key[13:]
    run["jobs"] = [{"key": key, "state": state, "message": message} if j["key"] == key else j for j in run["jobs"]]
    rows = run["tables"]["spectra"]
    run["tables"]["spectra"] = [r for r in rows if (r["layer"], r["projection"]) != (layer, projection)]
    del run["arrays"][key]
    return run


def test_rendering_twice_gives_the_same_bytes_whatever_the_users_settings() -> None:
    first = figures_for(synthetic_run())
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "none"}):
        second = figures_for(synthetic_run())
    shuffled = synthetic_run()
    shuffled["tables"]["spectra"].reverse()
    shuffled["jobs"].reverse()
    assert first == second == figures_for(shuffled)


def test_drawing_leaves_no_global_state() -> None:
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    figures_for(synthetic_run())
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("layers", [(7,), (0, 3), range(94)], ids=["one", "two", "many"])
@pytest.mark.parametrize("projections", [("gate",), ("gate", "up", "down")], ids=["gate", "all"])
def test_heat_map_and_one_figure_a_layer(layers: Iterable[int], projections: tuple[str, ...]) -> None:
    layers = list(layers)
    run = synthetic_run(layers, projections)
    if len(layers) > 2:  # the heat map is what many layers try; drawing all their spectra shows nothing more
        run["arrays"] = {key: value for key, value in run["arrays"].items() if key[9:12] in {"000", "093"}}
    figures = figures_for(run)
    drawn = sorted({int(key[9:12]) for key in run["arrays"]})
    assert [figure.name for figure in figures] == ["spectra-depth", *(f"spectra-L{layer:03d}" for layer in drawn)]
    for figure in figures:
        assert ElementTree.fromstring(figure.svg).tag.endswith("svg")
        assert len(figure.svg) < 90_000
        assert figure.alt
        assert figure.caption
        assert figure.title


def test_only_few_layers_are_annotated() -> None:
    few, many = (figures_for(synthetic_run(range(count)) | {"arrays": {}})[0] for count in (4, 60))
    assert few.svg.count(b"<use") > 4 * 9 * len("0.110") > many.svg.count(b"<use") / 2


def test_a_failed_cell_is_blank_and_said_in_the_alternative_text() -> None:
    figures = figures_for(fail(synthetic_run(), "spectra-L003-up", "broken"))
    assert "3 cells were not measured" in figures[0].alt
    assert "up" not in figures[-1].alt


def test_a_layer_without_any_result_has_no_figure_but_keeps_its_row() -> None:
    run = synthetic_run((0, 3), ("gate",))
    figures = figures_for(fail(run, "spectra-L003-gate", "broken"))
    assert [figure.name for figure in figures] == ["spectra-depth", "spectra-L000"]
    assert "2 by 3 cells" in figures[0].alt
    assert figures_for(fail(run, "spectra-L000-gate", "broken")) == []


def test_hostile_names_are_drawn_as_text_without_warning() -> None:
    run = synthetic_run((0,), ("gate", "$x^$<b>"), model=HOSTILE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = figures_for(run)
    for figure in figures:
        assert b"<script" not in figure.svg
        ElementTree.fromstring(figure.svg)


def test_the_figure_carries_no_trace_of_when_and_with_what_it_was_made() -> None:
    for figure in figures_for(synthetic_run()):
        assert b"metadata" not in figure.svg
        assert b"matplotlib.org" not in figure.svg


def test_values_under_the_noise_floor_are_drawn_apart() -> None:
    run = synthetic_run((0,), ("gate",))
    plain = figures_for(run)[1].svg
    for row in run["tables"]["spectra"]:
        row["noise_floor"] = row["sigma_max"] * 0.9
    assert plain.count(b"stroke-opacity: 0.6") == 0
    assert figures_for(run)[1].svg.count(b"stroke-opacity: 0.6") == 3


def test_an_unfitted_and_empty_spectrum_is_drawn_without_error() -> None:
    run = synthetic_run((0,), ("gate",))
    for row in run["tables"]["spectra"]:
        row.update(alpha=None, alpha_null=None, fit_first=None, fit_last=None, status="insufficient_points")
    run["arrays"]["spectra-L000-gate"] |= {"expert": np.zeros(6), "input": np.array([2.0]), "input_null": np.array([])}
    assert "No cell was measured" in figures_for(run)[0].alt


def test_a_command_without_figures_draws_none() -> None:
    assert figures_for(synthetic_run() | {"command": "models"}) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fixed(None), "—"),
        (fixed(float("nan")), "—"),
        (fixed(-0.0471), "−0.047"),
        (fixed(-0.0001), "0.000"),
        (fixed(0.05, signed=True), "+0.050"),
        (fixed(float("inf")), "∞"),
        (significant(0.0000312, 2), "3.1 × 10⁻⁵"),
        (significant(12.3456), "12.3"),
        (percent(0.3125), "31.2\u00a0%"),
        (percent(None), "—"),
        (visible("a\u202eb\x00"), "a⟨U+202E⟩b⟨U+0000⟩"),
        (without_folders("file /home/ann/models/a/b.safetensors: bad"), "file …/b.safetensors: bad"),
        (without_folders("--out=/home/ann --to '/data/x/y'"), "--out=… --to '…/y'"),
        (without_folders(r"C:\Users\ann\x.json"), "…/x.json"),
        (without_folders("Qwen/Qwen3-30B-A3B, 3/4, https://a.b/c/d"), "Qwen/Qwen3-30B-A3B, 3/4, https://a.b/c/d"),
    ],
)
def test_values_as_text(text: str, expected: str) -> None:
    assert text == expected
