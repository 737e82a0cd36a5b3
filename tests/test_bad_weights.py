"""What only reading can find fails its job by name, and no other; after a repair the same command goes on."""

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import (
    EXPERT,
    GATE,
    SECOND,
    THIRD,
    Damage,
    Result,
    cut,
    put,
)
from tiny import (
    read_json,
    read_tensors,
)
from torch import Tensor

from diag.jobs import session
from tdmoe.checkpoint.reader import Checkpoint
from tdmoe.problems import WeightError
from tdmoe.stacks.architecture import architecture
from tdmoe.stacks.locate import open_stack

pytestmark = pytest.mark.usefixtures("one_thread")


def spoil(folder: Path, name: str, value: float) -> Tensor:
    """Puts `value` into one weight of `name`; returns the tensor as it was."""
    before = read_tensors(folder)[name]
    put(name, lambda t: t.clone().index_fill_(1, torch.tensor([3]), value))(folder)
    return before


FAST = ("--device", "cpu", "--quiet")


@pytest.mark.parametrize(("value", "memory"), [("nan", "1GB"), ("inf", "100B"), ("-inf", "1GB")])
def test_one_bad_weight_fails_its_job_and_no_other(
    value: str, memory: str, model: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    bad = EXPERT.format(2, 1, "up")
    spoil(model, bad, float(value))
    out = tmp_path / "out"
    result = run("--model", model, "--out", out, "--layers", "2", "--memory", memory, *FAST)
    assert result.code == 1
    pattern = rf"failed: spectra-L002-up: {re.escape(bad)}: 6 weights of expert 1 are NaN or inf.*; download .*--layers"
    assert re.search(pattern, result.err), result.err
    with (out / "tables" / "spectra.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["projection"] for row in rows] == ["gate"] * 3 + ["up"] + ["down"] * 3
    assert {k: v for k, v in rows[3].items() if v} == {"layer": "2", "projection": "up", "status": "failed"}
    assert all(row["sigma_max"] for row in rows if row["projection"] != "up")
    jobs = {job["key"]: job for job in read_json(out / "run.json")["jobs"]}
    assert {key: job["state"] for key, job in jobs.items()} == {
        "spectra-L002-gate": "done",
        "spectra-L002-up": "failed",
        "spectra-L002-down": "done",
    }
    assert bad in jobs["spectra-L002-up"]["message"]
    page = (out / "report.html").read_text()
    assert bad in page, "the page names what is missing"


@pytest.mark.parametrize("folder", ["default", "out"])
def test_after_a_repair_the_same_command_does_what_is_missing(
    folder: str, model: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    """What was measured from shards that did not change is kept; everything else is measured from the new bytes."""
    bad = EXPERT.format(2, 1, "up")
    whole = spoil(model, bad, float("nan"))
    options = ("--out", tmp_path / "out") if folder == "out" else ()
    arguments = ("--model", model, "--projections", "up", "--device", "cpu", *options)
    assert run(*arguments).code == 1
    (out,) = Path("runs").iterdir() if folder == "default" else [tmp_path / "out"]
    kept = (out / "results" / "spectra-L001-up.json").stat()
    assert (out / "errors" / "spectra-L002-up.txt").is_file()

    put(bad, lambda _: whole)(model)
    again = run(*arguments)
    assert again.code == 0 and "failed" not in again.err
    after = (out / "results" / "spectra-L001-up.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns), "what was done is kept"
    assert folder == "out" or list(Path("runs").iterdir()) == [out], "the same command finds its run again"
    assert [job["state"] for job in read_json(out / "run.json")["jobs"]] == ["done", "done"]
    rows = [line.split(",")[0] for line in (out / "tables" / "spectra.csv").read_text().splitlines()[1:]]
    assert rows == ["1"] * 3 + ["2"] * 3
    assert bad not in (out / "report.html").read_text()
    assert not list((out / "errors").glob("*")), "the error of a job that is done now is gone"


def test_other_weights_of_the_same_shape_are_measured_again(
    model: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    arguments = ("--model", model, "--out", tmp_path / "out", "--projections", "up", "--device", "cpu")
    table = tmp_path / "out" / "tables" / "spectra.csv"
    assert run(*arguments).code == 0
    before = table.read_text().splitlines()
    put(EXPERT.format(2, 2, "up"), lambda t: 3 * t)(model)
    again = run(*arguments)
    after = table.read_text().splitlines()
    assert again.code == 0 and re.search(r"spectra-L002-up: measured again, weights changed", again.err)
    assert "spectra-L001-up" not in again.err
    assert after[:4] == before[:4], "layer 1"
    assert not set(after[4:]) & set(before[4:]), "layer 2"


def test_weights_that_are_overwritten_while_a_command_runs_are_not_mixed(
    model: Path, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two layers: what was computed by then stays, the other has failed; the same command goes on."""
    original = session.RunFolder.finish

    def overwritten(folder: Any, job: Any, *result: Any) -> None:
        if job.key == "spectra-L002-up":
            put(EXPERT.format(2, 2, "up"), lambda t: 3 * t)(model)
        original(folder, job, *result)

    monkeypatch.setattr(session.RunFolder, "finish", overwritten)
    arguments = ("--model", model, "--out", tmp_path / "out", "--projections", "up", "--device", "cpu")
    result = run(*arguments)
    assert result.code == 1 and re.search(rf"failed: spectra-L002-up: .*{THIRD}: changed while the command", result.err)
    with (tmp_path / "out" / "tables" / "spectra.csv").open(newline="") as file:
        failed = [(row["layer"], row["status"] == "failed") for row in csv.DictReader(file)]
    assert failed == [("1", False)] * 3 + [("2", True)]
    monkeypatch.setattr(session.RunFolder, "finish", original)
    assert run(*arguments).code == 0


def test_a_file_that_shrinks_during_the_run_fails_its_job_by_name(model: Path) -> None:
    with Checkpoint(model) as checkpoint:
        stack = open_stack(checkpoint, architecture(checkpoint.config), 2, "down")
        cut(THIRD, 250)(model)  # into the last expert
        with pytest.raises(
            WeightError, match=rf"{THIRD}: ends inside tensor '.*2.down_proj.*'; the file changed during the run"
        ):
            stack.weights(0, 3)


# As a process of its own


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (cut(SECOND, 10), 2, rf"tdmoe-diag: {SECOND}: .*truncated, download it again\n"),
        (
            lambda folder: spoil(folder, GATE, float("nan")),
            1,
            rf"failed: spectra-L001-gate: {re.escape(GATE)}: 6 weights",
        ),
    ],
    ids=["refused", "failed"],
)
def test_exit_codes_of_the_process(damage: Damage, code: int, message: str, model: Path, tmp_path: Path) -> None:
    damage(model)
    arguments = [
        "spectra",
        "--model",
        str(model),
        "--out",
        str(tmp_path / "out"),
        "--layers",
        "1",
        "--projections",
        "gate",
    ]
    command = [sys.executable, "-m", "diag.cli.app", *arguments, *FAST]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr, re.DOTALL) and "Traceback" not in done.stderr
    assert (tmp_path / "out").exists() == (code == 1)
