"""The probe `operator`: bounds against numbers computed by hand, rows against dense formulas, command and page."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import Result
from planted import MODES, open_planted, orthonormal, planted, write_stack
from safetensors.torch import load_file, save_file
from test_page import words
from tiny import plain_checkpoint, single_thread, write_checkpoint
from torch import Tensor

from diag.probes.operator import bounds
from diag.probes.operator import measure as probe
from diag.probes.operator.cases import HOOI, HOSVD
from diag.probes.operator.measure import Settings
from tdmoe.numerics.gram import ModeGram

SHAPE = (9, 12, 20)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def measured(folder: Path, W_EOI: Tensor, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    asked = {"ranks": (0.25, 0.5), "ratios": (0.4,), "methods": ("rtn",)} | settings
    stack = open_planted(folder, W_EOI)
    settled = Settings(**asked)
    probe.plan(stack, settled)
    tables, _ = probe.run(stack, settled, device="cpu", seed=0, model="planted")
    for name, rows in tables.items():
        assert all(tuple(row) == probe.TABLES[name] for row in rows)
    return dict(tables)


def only(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (found,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return found


def table(folder: Path, name: str = "operator") -> list[dict[str, str]]:
    with (folder / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_corollary_1_by_hand() -> None:
    sigma = np.array([5.0, 4.0, 2.0, 1.0])
    assert bounds.paper(sigma, 1) == pytest.approx(math.sqrt(3) * math.sqrt(1 + 0.25 + 0.0625))  # 2.2734
    assert bounds.paper(sigma, 3) == pytest.approx(1.7320508)
    other = np.array([6.0, 3.0])
    assert bounds.proven([(sigma, 2), (other, 1)], 2.0) == pytest.approx(math.sqrt(4 + 1 + 9) / 2)
    assert bounds.proven([(sigma, 2), (other, 2)], 2.0) == pytest.approx(math.sqrt(5) / 2), "a full mode has no tail"


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.3, 0.9])
def test_the_bound_of_an_exact_power_law_grows_as_the_paper_says(alpha: float) -> None:
    """N^(1/2 - alpha) below 1/2, bounded above it, for widths far above the rank."""
    widths = [2**14, 2**16, 2**18]
    found = [bounds.paper(np.arange(1.0, n + 1) ** -alpha, 2) for n in widths]
    slope = float(np.polyfit(np.log(widths), np.log(found), 1)[0])
    assert slope == pytest.approx(max(0.0, 0.5 - alpha), abs=0.02)


def test_growth_of_flat_spectra_is_that_of_their_width(tmp_path: Path) -> None:
    """G = 1: every part has sigma = 1, alpha = 0, bound sqrt(3 (N - k))."""
    size = 64
    gram = ModeGram(torch.eye(size, dtype=torch.float64), 0.0)
    found = bounds.growth(gram, 0, (size, 50, 70), torch.Generator().manual_seed(0))
    assert [at.width for at in found.widths] == [8, 16, 32, 48, 64] and {at.k for at in found.widths} == {2}
    for at in found.widths:
        assert at.alpha == pytest.approx(0.0, abs=1e-12) and at.bound == pytest.approx(math.sqrt(3 * (at.width - 2)))
    assert found.predicted == pytest.approx(0.5)
    assert found.measured == pytest.approx(found.power_law)
    few = bounds.growth(ModeGram(torch.eye(9, dtype=torch.float64), 0.0), 0, (9, 50, 70), torch.Generator())
    assert (len(few.widths), few.measured, few.predicted) == (1, None, None)


def test_a_planted_residual_is_found_and_its_bounds_hold(tmp_path: Path) -> None:
    sigma = np.array([8.0, 6.0, 3.0, 2.0, 1.0, 0.5])
    rows = measured(tmp_path, planted(SHAPE, "output", sigma), ranks=(0.25,))["operator"]  # of 12: rank 3
    row = only(rows, method="truncate:mode=output", mode="output")
    assert row["rank"] == "3" and row["upper_end"] == "closed_form" and row["status"] == "not_calibrated"
    assert row["operator_norm"] == row["operator_norm_upper"] == pytest.approx(2.0, rel=1e-6)
    assert row["operator_error"] == pytest.approx(2.0 / 8.0, rel=1e-6)
    assert row["operator_over_optimal"] == pytest.approx(1.0, rel=1e-6)
    assert row["weight_error"] == pytest.approx(math.sqrt(4 + 1 + 0.25) / np.linalg.norm(sigma), rel=1e-6)
    assert row["bound_proven"] == pytest.approx(math.sqrt(1 + 0.25 + 0.0625), rel=1e-6)
    assert row["bound_paper"] == pytest.approx(math.sqrt(3) * row["bound_proven"], rel=1e-9)
    assert row["functional_error"] is None


@pytest.mark.parametrize(
    ("core", "above_corollary_1"), [((7.0, 5.0, 3.0, 2.0, 1.0), False), ((7.0, 5.0, 3.0, 0.2, 0.1), True)]
)
def test_a_planted_tucker_tensor_loses_what_was_left_out(
    tmp_path: Path, core: tuple[float, ...], above_corollary_1: bool
) -> None:
    """A diagonal core: HOSVD at ranks (2, 3, 5) keeps two of its terms, so that E has the norm of the third."""
    factors = [orthonormal(5, n, seed=n) for n in SHAPE]
    W = torch.einsum("r,re,ro,ri->eoi", torch.tensor(core).double(), *factors)
    rows = measured(tmp_path, W, ranks=(0.25,))["operator"]
    left = sum(c * c for c in core[2:])
    for method in (HOSVD, HOOI):
        for mode in MODES:
            row = only(rows, method=method, mode=mode, ratio=None)
            assert row["rank"] == "2x3x5" and row["operator_norm"] == pytest.approx(3.0, rel=1e-5)
            assert row["weight_error"] == pytest.approx(math.sqrt(left / sum(c * c for c in core)), rel=1e-5)
        assert row["status"] == "below_noise_floor", "the input rank is all that the tensor has"
        assert row["bound_paper"] is row["bound_proven"] is row["operator_over_optimal"] is None
        row = only(rows, method=method, mode="output", ratio=None)
        paper = math.sqrt(3) * math.sqrt(1 + (core[4] / core[3]) ** 2)
        proven = math.sqrt(left + core[3] ** 2 + core[4] ** 2) / core[3]
        assert row["sigma_next"] == pytest.approx(core[3], rel=1e-5)
        assert row["operator_over_optimal"] == pytest.approx(3.0 / core[3], rel=1e-5)
        assert (row["bound_paper"], row["bound_proven"]) == (pytest.approx(paper, 1e-5), pytest.approx(proven, 1e-5))
        assert (row["operator_over_optimal"] > row["bound_paper"]) is above_corollary_1
        assert row["operator_over_optimal"] <= row["bound_proven"]


def test_every_measured_error_keeps_the_proven_bound_and_eckart_young(tmp_path: Path) -> None:
    W = draw(*SHAPE) * torch.arange(1, SHAPE[2] + 1) ** -1.5
    methods = ("tdmoe:whitening=none,allocation=published,decomposition=hosvd", "tdmoe:whitening=none")
    rows = measured(tmp_path, W, ranks=(0.25, 0.5, 0.75), methods=methods, ratios=(0.2, 0.5))["operator"]
    with_bound = [row for row in rows if row["bound_proven"] is not None]
    assert len(with_bound) > 30
    for row in with_bound:
        assert row["operator_norm_upper"] / row["sigma_next"] <= row["bound_proven"] * (1 + 1e-6)
        assert row["weight_over_optimal"] >= 1 - 1e-9
    assert all(row["operator_over_optimal"] >= 1 - 1e-6 for row in rows if row["operator_over_optimal"] is not None)
    assert any(row["bound_proven"] > row["bound_paper"] for row in with_bound)


def test_rows_equal_dense_formulas(tmp_path: Path) -> None:
    W = draw(*SHAPE)
    rows = measured(tmp_path, W, per_expert=True)["operator"]
    sigma, bits = torch.linalg.svdvals(W), 32
    row = only(rows, method="svd", expert="mean", rank="6", ratio=None)
    exact = (sigma[:, 6] / sigma[:, 0]).numpy()
    assert row["operator_error"] == row["operator_error_upper"] == pytest.approx(exact.mean(), rel=1e-6)
    assert row["operator_over_optimal"] == row["weight_over_optimal"] == pytest.approx(1.0)
    assert row["stored_bits"] == bits * SHAPE[0] * 6 * (SHAPE[1] + SHAPE[2])
    assert row["kept_ratio"] == pytest.approx(6 * 32 / 240)
    assert only(rows, method="svd", expert="max", rank="6")["operator_error"] == pytest.approx(exact.max(), rel=1e-6)
    each = [r for r in rows if (r["method"], r["rank"]) == ("svd", "6") and isinstance(r["expert"], int)]
    assert [r["operator_error"] for r in each] == pytest.approx(list(exact), rel=1e-6)
    U = torch.linalg.svd(W.permute(2, 0, 1).flatten(1))[0][:, :10]
    E = W - W @ U @ U.T
    norms = torch.linalg.svdvals(E)[:, 0]
    row = only(rows, method="truncate:mode=input", expert="mean", rank="10")
    assert row["weight_error"] == pytest.approx(float(E.norm() / W.norm()), rel=1e-6)
    assert row["operator_over_optimal"] == pytest.approx(float((norms / sigma[:, 10]).mean()), rel=1e-6)
    kept = SHAPE[0] * 12 * 10 + 20 * 10
    assert row["stored_bits"] == bits * kept
    rank = kept // (SHAPE[0] * 32)
    beside = float((norms / sigma[:, 0]).mean() / (sigma[:, rank] / sigma[:, 0]).mean())
    assert row["operator_over_svd"] == pytest.approx(beside, rel=1e-6)
    assert row["weight_over_svd"] == pytest.approx(float(E.norm() / sigma[:, rank:].norm()), rel=1e-6)
    rtn = only(rows, method="rtn", expert="mean")
    assert rtn["status"] == "full_rank" and rtn["operator_over_optimal"] is None and rtn["rank"] == ""
    at_its_storage = [r["ratio"] for r in rows if r["method"] == "svd" and r["expert"] == "mean" and r["ratio"]]
    assert at_its_storage == [0.4, pytest.approx(1 - rtn["kept_ratio"], abs=1e-6)]


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e25])
def test_stacks_of_any_scale(tmp_path: Path, scale: float) -> None:
    W = (scale * draw(*SHAPE)).float()
    W[3] = 0.0  # a dead expert is no part of means
    tables = measured(tmp_path, W)
    for row in tables["operator"]:
        assert all(math.isfinite(v) for v in row.values() if isinstance(v, float))
    if scale:
        row = only(tables["operator"], method="svd", expert="mean", rank="6")
        sigma = torch.linalg.svdvals(W.double())
        alive = [e for e in range(SHAPE[0]) if e != 3]
        assert row["operator_error"] == pytest.approx(float((sigma[alive, 6] / sigma[alive, 0]).mean()), rel=1e-5)
    else:
        assert {row["status"] for row in tables["tensor_norm"]} == {"zero"}


def test_a_rank_that_rounds_to_the_whole_mode_is_full(tmp_path: Path) -> None:
    rows = measured(tmp_path, draw(2, 5, 7), ranks=(0.9,), methods=())["operator"]
    row = only(rows, method="truncate:mode=expert", mode="expert")
    assert (row["status"], row["operator_error"], row["bound_paper"]) == ("full_rank", 0.0, None)


def test_the_command_writes_its_tables_and_resumes(tool: Callable[..., Result], tmp_path: Path) -> None:
    config, tensors = plain_checkpoint(experts=9, hidden=20, width=12, moe_layers=(0, 1))
    model = write_checkpoint(tmp_path / "model", config, tensors)
    asked = ("operator", "--model", model, "--out", "run", "--device", "cpu", "--projections", "gate")
    how = ("--ranks", "0.5", "--ratios", "0.4")
    planned = tool(*asked, *how, "--dry-run")
    assert planned.code == 0 and "9 x 12 x 20" in planned.out and not Path("run").exists()
    first = tool(*asked, *how, "--layers", "0")
    assert first.code == 0 and "operator error" in first.out
    before = table(Path("run"))
    header = (Path("run") / "tables" / "operator.csv").read_text().splitlines()[0]
    assert header.startswith(
        "layer,projection,expert,mode,method,rank,stored_bits,kept_ratio,weight_error,functional_error,operator_error,"
        "operator_error_upper,operator_over_optimal,bound_paper,bound_proven,status"
    )
    assert {(row["layer"], row["projection"]) for row in before} == {("0", "gate")}
    both = tool(*asked, *how)
    assert both.code == 0 and "1 of 2 jobs is done already" in both.err
    assert [row for row in table(Path("run")) if row["layer"] == "0"] == before
    assert {row["mode"] for row in table(Path("run"), "growth")} == set(MODES)
    page = words((Path("run") / "report.html").read_text(encoding="utf-8"))
    assert "Corollary 1" in page and "Measured: 2 of 2 jobs" in page and "over the SVD" in page
    figures = sorted(path.name for path in Path("run/figures").glob("*.svg"))
    assert figures[0] == "operator-bounds.svg" and "operator-storage.svg" in figures


def test_with_statistics_errors_are_functional_too(
    tool: Callable[..., Result], statistics: Path, tmp_path: Path
) -> None:
    asked = (
        "operator",
        "--model",
        "mini",
        "--layers",
        "1",
        "--projections",
        "down",
        "--device",
        "cpu",
        "--ranks",
        "0.5",
    )
    done = tool(
        *asked, "--ratios", "0.4", "--methods", "tdmoe:alignment=4,svd_llm", "--statistics", statistics, "--out", "r"
    )
    assert done.code == 0, done.err
    rows = [row for row in table(Path("r")) if row["expert"] == "mean"]
    assert all(row["functional_error"] and row["status"] != "not_calibrated" for row in rows)
    by_method = {row["method"]: float(row["functional_error"]) for row in rows if row["ratio"]}
    assert by_method["svd_llm"] < by_method["svd"], "it minimises just that"
    assert tool(*asked, "--methods", "rtn", "--statistics", "nowhere").code == 2
    page = words(Path("r/report.html").read_text(encoding="utf-8"))
    assert "functional errors were not measured" not in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ranks", "0.5,2"), "--ranks 0.5,2: '2' is no fraction between 0 and 1"),
        (("--ratios", "0"), "--ratios 0: '0' is no fraction"),
        (("--methods", "nonsense"), "--methods nonsense: is no method"),
        (("--methods", "rtn:bits=4,rtn:bits=99"), "bits is 99; give 2 to 8"),
        (("--methods", "tdmoe:gate_up=joint"), "gate_up=joint joins stacks"),
        (("--methods", "tdmoe:across=global"), "across=global joins stacks or shares a budget"),
        (("--methods", "svd_llm"), "needs statistics of the inputs; give --statistics"),
        (("--methods", "svd", "--ratios", "0.999"), "rank 1 takes"),
        (("--statistics", "nowhere"), "--statistics nowhere: is no run folder of tdmoe-diag calibrate"),
    ],
)
def test_wrong_input_is_refused_before_any_work(
    tool: Callable[..., Result], good: Path, options: tuple[str, ...], message: str
) -> None:
    refused = tool("operator", "--model", good, "--out", "run", *options)
    assert refused.code == 2 and message in refused.err and not Path("run").exists()


def test_a_weight_that_is_no_number_fails_its_stack_only(tool: Callable[..., Result], tmp_path: Path) -> None:
    W = draw(*SHAPE)
    folder = write_stack(tmp_path / "model", W)
    held = load_file(folder / "model.safetensors")
    held["model.layers.0.mlp.experts.4.up_proj.weight"][2, 3] = math.nan
    save_file(held, folder / "model.safetensors")
    done = tool("operator", "--model", folder, "--out", "run", "--device", "cpu", "--ranks", "0.5", "--ratios", "0.4")
    assert done.code == 1 and "experts.4.up_proj.weight: 1 weight of expert 4 is NaN" in done.err
    assert {row["projection"] for row in table(Path("run")) if row["status"] == "failed"} == {"up"}
    states = {job["key"]: job["state"] for job in json.loads(Path("run/run.json").read_text())["jobs"]}
    assert states == {"operator-L000-gate": "done", "operator-L000-up": "failed", "operator-L000-down": "done"}
    assert "Measured: 2 of 3 jobs. The run is incomplete" in words(Path("run/report.html").read_text())
