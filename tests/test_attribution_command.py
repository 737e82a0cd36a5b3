"""`tdmoe-diag attribution` on a pico model: its tables against `quality` and `drift`, resuming, what goes wrong."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from damage import REMEDY
from safetensors.numpy import load_file
from test_superweights import TEXT, write_tokenizer
from tiny import single_thread

from diag.cli import app as cli
from diag.compression.calibrating import Settings
from diag.compression.execution import make_factors
from diag.compression.factors import Recipe, Source
from diag.compression.layer_factors import groups
from diag.lockstep import runner
from diag.lockstep.window_ends import WindowEnds
from diag.probes.attribution import run as attribution_run
from diag.probes.attribution.columns import TABLES as COLUMNS_OF
from diag.probes.attribution.plan import Plan
from diag.probes.attribution.plan import Request as AttributionRequest
from diag.runs import partial
from diag.runs.folder import RunFolder
from tdmoe.methods.mobe import MoBE
from tdmoe.problems import WeightError

SHORT = ("--text", "a.txt", "--calibration-text", "b.txt", "--calibration-tokens", 256, "--window", 16)
COMPRESSED = ("--projections", "gate,up", "--device", "cpu", "--quiet")
ASKED = (*SHORT, *COMPRESSED, "--windows", 8, "--shapley", 1, "--mobe-steps", 3)
TABLES = ("attribution", "attribution_shapley", "attribution_predictors", "attribution_shares")

Rows = list[dict[str, str]]


@pytest.fixture(scope="module", autouse=True)
def page() -> Iterator[None]:
    """One thread, short fits."""
    with pytest.MonkeyPatch.context() as patch, single_thread():
        patch.setattr("tdmoe.mobe.fit.STEPS", 12)
        yield


def command(patch: pytest.MonkeyPatch, *arguments: object) -> int:
    patch.setattr("sys.argv", ["tdmoe-diag", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def rows_of(out: Path, table: str = "attribution") -> Rows:
    with (out / "tables" / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_seconds(out: Path) -> dict[str, Rows]:
    return {
        table: [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(out, table)] for table in TABLES
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a pico model, two texts and a finished run of the full ladder."""
    home = tmp_path_factory.mktemp("attribution")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_tokenizer(zoo.save(zoo.build(zoo.FAMILIES["qwen3_moe"], torch.float32), home / "pico", fused=False))
        (home / "a.txt").write_text(TEXT * 6)
        (home / "b.txt").write_text(TEXT[::-1] * 6)
        assert command(patch, "attribution", "--model", "pico", *ASKED, "--out", "out") == 0
        yield home


@pytest.fixture
def here(work: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """In that folder, so that factors are found again."""
    monkeypatch.chdir(work)
    return monkeypatch


def test_tables(work: Path) -> None:
    found = {table: rows_of(work / "out", table) for table in TABLES}
    for table, rows in found.items():
        assert tuple(rows[0]) == COLUMNS_OF[table]
    rows = found["attribution"]
    assert [row["ladder"] for row in rows] == ["tdmoe"] * 11 + ["mobe"] * 11 + ["beside"] * 9
    assert rows[0]["step"] == "as published" and {row["status"] for row in rows} <= {"ok", "no_gap"}
    assert {row["tokens"] for row in rows} == {str(8 * 15)} and {row["windows"] for row in rows} == {"8"}
    for row in rows:
        first = row in (rows[0], rows[11]) or row["step"].startswith("preset published")
        assert (row["change_nats"] != "") == (row["ladder"] != "beside" and not first)
        assert (row["gap_closed"] == "") == (row["status"] == "no_gap")
        if row["method"].startswith("tdmoe"):
            errors = [float(row[f"mode_error_{mode}"]) for mode in ("expert", "output", "input")]
            assert 0 < max(errors) == float(row["floor"]) <= float(row["functional_error"])
        else:
            assert row["floor"] == row["mode_error_input"] == ""
    seen = {row["method"].partition(":")[0]: row["calibration"] for row in rows}
    assert seen["svd_llm"] == "b.txt, 256 tokens" and seen["rtn"] == seen["dense"] == ""
    by_step = {row["step"]: row for row in rows}
    published, stored = rows[:2]  # 7 x 20 x 24: the published input rank is full, and pays for a factor
    assert published["ranks"].startswith("gate:7x8x24") and stored["ranks"].startswith("gate:7x11x24")
    assert float(published["bits_saved"]) > float(stored["bits_saved"])
    dense, same = by_step["dense"], by_step["nothing changed"]
    assert dense["method"] == "dense" and float(dense["loss_difference_nats"]) == float(dense["angle_deg"]) == 0
    assert dense["weight_error"] == "" and float(same["weight_error"]) == 0
    assert float(same["loss_nats"]) == pytest.approx(float(dense["loss_nats"]), abs=1e-5)
    for row in rows:
        if row["change_nats"]:
            before = rows[rows.index(row) - 1]
            change = float(row["loss_nats"]) - float(before["loss_nats"])
            assert float(row["change_nats"]) == pytest.approx(change, abs=1e-9)
        assert float(row["perplexity"]) == pytest.approx(np.exp(float(row["loss_nats"])))
    meeting = by_step["1 basis, phi identity (input-mode Tucker)"]
    assert meeting["projections"] == "gate,up" and rows[10]["projections"] == "gate,up,down"
    runs = {row["error"]: int(row["runs"]) for row in found["attribution_predictors"]}
    assert set(runs.values()) <= set(range(21, 28)) and len(runs) == 5  # dense, identity and cast have no part


def losses_of(out: Path, rows: Iterable[dict[str, str]]) -> Iterator[tuple[str, Path]]:
    """Steps with the file that keeps their losses: the one whose mean is theirs."""
    files = {path: load_file(path).get("losses") for path in (out / "results").glob("*.safetensors")}
    means = {path: values.mean() for path, values in files.items() if values is not None}
    for row in rows:
        yield row["step"], min(means, key=lambda path: abs(means[path] - float(row["loss_nats"])))


def test_shares_of_the_gap_and_shapley_values(work: Path) -> None:
    """From the losses by window that the run keeps, by plain loops."""
    rows = {row["step"]: row for row in rows_of(work / "out")}
    loss = {step: float(row["loss_nats"]) for step, row in rows.items() if row["ladder"] != "beside"}
    mobe = min(value for step, value in loss.items() if "preset" in step)
    for step, value in loss.items():
        if rows[step]["gap_closed"]:
            expected = (loss["as published"] - value) / (loss["as published"] - mobe)
            assert float(rows[step]["gap_closed"]) == pytest.approx(expected)
            assert float(rows[step]["gap_low"]) <= expected <= float(rows[step]["gap_high"])
        assert float(rows[step]["mobe_difference_nats"]) == pytest.approx(value - mobe, abs=1e-12)
    like, plain = rows_of(work / "out", "attribution_shares")
    models = {row["step"]: row for row in rows.values() if row["projections"] == "gate,up"}
    losses = {model: load_file(path)["losses"] for model, path in losses_of(work / "out", models.values())}
    ours = [step for step in models if models[step]["ladder"] == "tdmoe"]
    halves = (slice(4), slice(4, 8))
    best = [min(ours, key=lambda step, on=on: losses[step][on].mean()) for on in reversed(halves)]
    assert [plain["step_first_half"], plain["step_second_half"]] == best
    told = np.mean([losses[step][on].mean() for step, on in zip(best, halves, strict=True)])
    assert float(plain["left_nats"]) == pytest.approx(told - mobe)
    assert float(plain["gap_nats"]) == pytest.approx(loss["as published"] - mobe)
    assert float(like["left_nats"]) >= float(plain["left_nats"]) - 1e-12
    values = rows_of(work / "out", "attribution_shapley")
    assert [row["switch"] for row in values] == ["stored", "whitening", "ranks", "fine", "hooi", "joint", "refit"]
    assert {row["orders"] for row in values} == {"1"} and all(row["nats"] for row in values)
    whole = loss["as published"] - loss["+ core refit"]
    assert sum(float(row["nats"]) for row in values) == pytest.approx(whole, abs=1e-12)
    for row in values:
        assert row["nats_low"] == row["nats_high"] == row["gap_share_low"] == ""  # one order has no spread
        assert (row["gap_share"] != "") == (row["status"] == "ok")


def test_the_best_combination_has_a_row(work: Path, here: pytest.MonkeyPatch) -> None:
    """Of all coalitions of one stack's switches, by the losses that the run keeps of each model."""
    asked = ("attribution", "--model", "pico", *SHORT, "--windows", 8, "--ladder", "quick", "--layers", 2)
    asked = (*asked, "--projections", "down", "--shapley", "all", "--device", "cpu", "--quiet", "--out", "all")
    assert command(here, *asked) == 0
    *ladder, last = rows_of(work / "all")
    models = [load_file(path) for path in (work / "all" / "results").glob("*tdmoe*.safetensors")]
    least = min(float(model["losses"].mean()) for model in models)
    listed = [row for row in ladder if row["ladder"] == "tdmoe"]
    assert len(models) == 32  # of 64 coalitions, and no step that is none of them
    if last["ladder"] == "combination":
        assert last["step"].startswith("best of 32 combinations: ") and last["change_nats"] == ""
        assert float(last["loss_nats"]) == pytest.approx(least)
        assert all(float(row["loss_nats"]) >= least for row in listed)
    else:
        assert min(float(row["loss_nats"]) for row in listed) == pytest.approx(least)


def test_losses_are_those_of_quality_and_angles_those_of_drift(work: Path, here: pytest.MonkeyPatch) -> None:
    specs = "tdmoe:decomposition=hosvd,alignment=1,svd_llm,rtn:bits=3"
    shared = (
        *SHORT[2:],
        "--methods",
        specs,
        "--ratios",
        "0.4",
        "--projections",
        "gate,up",
        "--device",
        "cpu",
        "--quiet",
    )
    quality = ("--texts", "a.txt", "--windows", 8, "--dtype", "float32", "--out", "quality")
    drift = ("--text", "a.txt", "--tokens", 8 * 16, "--scope", "all", "--out", "drift")
    assert command(here, "quality", "--model", "pico", *shared, *quality) == 0
    assert command(here, "drift", "--model", "pico", *shared, *drift) == 0
    ours = {row["method"]: row for row in rows_of(work / "out")}
    theirs = rows_of(work / "quality", "quality")
    assert len(theirs) == 4
    for row in theirs:
        own = ours[row["method"]]
        for name, other in (("loss_nats", "loss_nats"), ("perplexity", "value"), ("bits_saved", "bits_saved")):
            assert float(own[name]) == pytest.approx(float(row[other]), rel=1e-6, abs=1e-9)
        if row["loss_difference_nats"]:
            assert float(own["loss_difference_nats"]) == pytest.approx(float(row["loss_difference_nats"]), abs=1e-6)
    last = [row for row in rows_of(work / "drift", "drift") if row["layer"] == "2" and row["method"] in ours]
    assert len(last) == 3
    for row in last:
        assert float(ours[row["method"]]["angle_deg"]) == pytest.approx(float(row["angle_deg"]), rel=1e-4)
        assert float(ours[row["method"]]["norm_ratio"]) == pytest.approx(float(row["norm_ratio"]), rel=1e-5)


def test_hooi_that_improves_nothing_is_not_made_again(work: Path) -> None:
    """Where the exact ranks cut one mode, both rows are one model; and they are on disk once."""
    made = {json.loads(p.read_text())["config"]["method"] for p in work.glob("runs/pico-factors-*/run/run.json")}
    rows = {row["method"]: row for row in rows_of(work / "out")}
    one_shot, swept = (rows[text] for text in ("tdmoe:decomposition=hosvd,alignment=1", "tdmoe:alignment=1"))
    ranks = [map(int, triple.partition(":")[2].split("x")) for triple in swept["ranks"].split()]
    cut = max(sum(rank < size for rank, size in zip(triple, (7, 20, 24), strict=True)) for triple in ranks)
    assert one_shot["ranks"] == swept["ranks"] and one_shot["method"] in made
    assert (swept["method"] in made) == (cut > 1)
    if cut <= 1:
        assert one_shot["loss_nats"] == swept["loss_nats"] and float(swept["change_nats"]) == 0


def test_a_stopped_run_goes_on(work: Path, here: pytest.MonkeyPatch) -> None:
    """Two parts lost, stopped in the middle of their walk: nothing else is measured again, the tables are the same."""
    shutil.copytree(work / "out", work / "again")
    expected = without_seconds(work / "again")
    lost = [next((work / "again" / "results").glob(f"attribution-{name}*.json")) for name in ("svd-llm-0.4", "dense")]
    kept = {path: path.stat().st_mtime_ns for path in (work / "again" / "results").iterdir() if path not in lost}
    for path in lost:
        path.unlink()
    asked = ("attribution", "--model", "pico", *ASKED, "--out", "again")
    real, seen = WindowEnds._ends, []

    def stopping(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 2 + 1:  # both models of the first batch are one call each
            raise KeyboardInterrupt
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution_run, "BATCH_TOKENS", 32)
        patch.setattr(runner, "SAVE_SECONDS", -1.0)
        patch.setattr(runner, "SAVE_SPACING", 0.0)
        patch.setattr(WindowEnds, "_ends", stopping)
        assert command(patch, *asked) == 130
        assert (work / "again" / partial.FILE).is_file() and not [*(work / "again").glob("tables/*.csv")]
        patch.setattr(WindowEnds, "_ends", lambda *given: (seen.append(1), real(*given))[1])
        assert command(patch, *asked) == 0
    assert len(seen) == 3 + 2 * 3  # of four batches the first was walked already
    assert not (work / "again" / partial.FILE).exists()
    found = without_seconds(work / "again")
    assert [row["step"] for row in found["attribution"]] == [row["step"] for row in expected["attribution"]]
    for one, other in zip(found["attribution"], expected["attribution"], strict=True):  # batches were other ones
        assert float(one["loss_nats"]) == pytest.approx(float(other["loss_nats"]), rel=1e-6)
        assert {**one, "status": ""}.keys() == other.keys() and one["ranks"] == other["ranks"]
    changed = {path.name for path, time in kept.items() if path.stat().st_mtime_ns != time}
    assert all("tables" in name or "svd-llm-0.4" in name or "dense" in name for name in changed)


def test_a_method_that_fails_leaves_the_others(
    work: Path, here: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("attribution", "--model", "pico", *SHORT, "--windows", 8, "--ladder", "quick", "--layers", 2)
    asked = (*asked, "--device", "cpu", "--quiet", "--out", "part")
    real = MoBE.compress

    def failing(self: MoBE, reader: Any, options: Any, *rest: Any, **named: Any) -> Any:
        if options.bases == 0 and options.refit == "none":
            raise WeightError("planted")
        return real(self, reader, options, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MoBE, "compress", failing)
        assert command(patch, *asked) == 1
    rows = {row["step"]: row for row in rows_of(work / "part")}
    failed = rows["+ phi tanh: preset corrected"]
    assert failed["status"] == "failed" and failed["loss_nats"] == "" and failed["method"] == "mobe"
    others = [row for row in rows.values() if row is not failed]
    assert all(row["loss_nats"] and row["gap_closed"] == "" for row in others)
    assert {row["status"] for row in others} == {"not_measured"}  # the gap has no other end
    assert rows_of(work / "part", "attribution_shapley") == rows_of(work / "part", "attribution_shares") == []
    assert "Share of the gap that is how TD-MoE was run" not in capsys.readouterr().out
    assert command(here, *asked) == 0
    assert "Share of the gap that is how TD-MoE was run: " in capsys.readouterr().out
    assert [row["against"] for row in rows_of(work / "part", "attribution_shares")] == ["same_changes", "presets"]
    assert {row["status"] for row in rows_of(work / "part")} <= {"ok", "no_gap"}


def test_dry_run(work: Path, here: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("attribution", "--model", "pico", *SHORT, "--windows", 8, "--dry-run", "--out", "nothing")
    assert command(here, *asked) == 0
    out = capsys.readouterr().out
    assert "as published" in out and "128 coalitions of 7 switches" in out and "nothing was run" in out
    assert "8 windows of 16 tokens of a.txt" in out and not (work / "nothing").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ratio", "1.2"), "--ratio 1.2: give a fraction"),
        (("--ladder", "long"), "--ladder long: give one of quick, full"),
        (("--shapley", "few"), "--shapley few: give all, none, or a number"),
        (("--windows", "7"), "--windows 7: are 7 of --text a.txt, intervals need 8"),
        (("--projections", "gate,side"), "'side' is none of gate, up, down"),
        (("--mobe-steps", "0"), "--mobe-steps 0: give at least 1"),
        (("--text", "b.txt"), "--text b.txt: is the calibration text"),
        (("--text", "c.txt"), "--text c.txt"),
        (("--window", "4000"), "--window 4000"),
        (("--layers", "1"), "layer 1 is not a Mixture-of-Experts layer"),
    ],
)
def test_wrong_input_is_refused(
    work: Path,
    here: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    before = set(work.iterdir())
    assert command(here, "attribution", "--model", "pico", *SHORT, *options, "--out", "wrong") == 2
    out, err = capsys.readouterr()
    assert message in err and REMEDY.search(err) and not out and set(work.iterdir()) == before


def test_layer_by_layer_and_in_groups_as_all_at_once(work: Path, here: pytest.MonkeyPatch) -> None:
    """With little memory experts are read as they are walked; the losses are those of the whole model."""
    asked = AttributionRequest("pico", text="a.txt", windows=8, window=16, layers="0,2", projections="gate,up",
        calibration=Settings("b.txt", 256, 16), device="cpu", shapley="none", ladder="quick")  # fmt: skip
    with Plan(asked) as opened:
        source = Source(opened, "pico", [0, 2], "gate,up", Settings("b.txt", 256, 16))
        made = make_factors([Recipe(text, None) for text in ("rtn:bits=2", "identity")], source, quiet=True)
        found, sizes = [], []
        for memory in (10**9, 4000):
            plan = copy.copy(opened)
            plan.request = replace(asked, memory=memory)
            plan.folder = RunFolder(work / "nowhere", {}, {plan.summary: {"parts": ""}})
            plan.parts = dict.fromkeys(("dense", "a", "b"), plan.summary)
            plan.folder.identities[plan.summary]["variant"] = ""
            run = attribution_run.Run(plan, make_factors, lambda count: None)
            assert run.by_layer == (memory == 4000)
            found.append(run.walked(dict(zip(plan.parts, [None, *made], strict=True))))
            chosen = {"dense": None, "a": made[0], "b": made[1], "c": made[1]}
            sizes.append(
                [len(group) for group in groups(chosen, lambda factors: factors.layer_parameters, memory // 4 / 4)]
            )
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6, atol=1e-6)
    assert sizes == [[4], [2, 2]]  # the same factors twice take no more room
    losses_VW = found[0][:, 0]
    assert np.abs(losses_VW[1] - losses_VW[0]).min() > 1e-5 and np.allclose(losses_VW[2], losses_VW[0], atol=1e-6)


def test_losses_by_window_are_kept(work: Path) -> None:
    row = next(row for row in rows_of(work / "out") if row["step"] == "SVD-LLM")
    found = (work / "out" / "results").glob("attribution-svd-llm-0.4-*.safetensors")
    path = next(path for path in found if "moments" not in path.name)
    arrays = load_file(path)
    assert set(arrays) == {"losses", "angles", "norm_ratios"} and all(a.shape == (8,) for a in arrays.values())
    assert float(arrays["losses"].mean()) == float(row["loss_nats"])
