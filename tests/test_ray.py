"""--engine ray: real clusters on this machine, workers and machines killed in the middle, and what cannot run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from damage import Result, refuses
from tiny import plain_checkpoint, write_checkpoint

from diag.jobs import on_ray
from diag.jobs.session import Request, Session
from diag.jobs.work import Failed
from diag.probes.spectra.measure import Settings

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="workers are found through /proc")

MARK = "TDMOE_TEST_CLUSTER"  # in the environment of every process that a test starts
SLOW = ("--jackknife", "16")  # as many eigenproblems of 768 x 768: a job of about a second


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six jobs: gate and up of three layers."""
    config, tensors = plain_checkpoint(experts=16, hidden=768, width=40, moe_layers=(0, 1, 2))
    return write_checkpoint(tmp_path_factory.mktemp("wide") / "model", config, tensors)


def start(model: Path, out: Path, *options: str, mark: str = "", **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "diag.cli.app", "spectra", "--model", str(model), *SLOW, "--out", str(out)]
    command += ["--projections", "gate,up"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", MARK: mark, **environment}
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables
    )


def table(out: Path) -> bytes:
    return (out / "tables" / "spectra.csv").read_bytes()


def processes(mark: str, title: str) -> list[int]:
    """Processes of the cluster `mark` whose command line holds `title`."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            ours = folder.name.isdecimal() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes()
            if ours and title.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            pass
    return found


def kill_one(mark: str, title: str, seconds: float = 240) -> None:
    """SIGKILL the first process that shows up with that title."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := processes(mark, title):
            os.kill(found[0], signal.SIGKILL)
            return
        time.sleep(0.005)
    raise AssertionError(f"no process {title!r} in {seconds} s")


@pytest.fixture(scope="module")
def inline(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table of the same jobs with one thread, without Ray."""
    out = tmp_path_factory.mktemp("inline") / "run"
    process = start(wide, out)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return table(out)


def test_a_killed_worker_costs_its_job_which_is_done_elsewhere(wide: Path, inline: bytes, tmp_path: Path) -> None:
    """A local cluster of two workers, one of them killed while it works; the cluster is gone afterwards."""
    mark = uuid.uuid4().hex
    process = start(wide, tmp_path / "run", "--engine", "ray", mark=mark, HOME=str(tmp_path))
    kill_one(mark, "ray::spectra-L001")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "spectra-L001-" in err and "its worker was lost" in err and "tried again" in err
    assert table(tmp_path / "run") == inline
    assert "report.html" in out
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["engine"] == "ray" and manifest["threads"] == 1
    assert {job["state"] for job in manifest["jobs"]} == {"done"}
    assert not processes(mark, "ray")
    assert not (tmp_path / ".ray").exists(), "the token of its own cluster is nobody else's"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two "machines" with one processor each; their processes carry the marks "first" and "second"."""
    from ray.cluster_utils import Cluster

    machine = {"num_cpus": 1, "memory": 2_000_000_000, "object_store_memory": 100_000_000}
    monkeypatch.setenv(MARK, "first")
    machines = Cluster(initialize_head=True, head_node_args={**machine, "include_dashboard": False})
    try:
        monkeypatch.setenv(MARK, "second")
        machines.add_node(**machine)
        yield machines
    finally:
        machines.shutdown()


def test_a_lost_machine_costs_its_jobs_which_are_done_elsewhere(
    cluster: Any, wide: Path, inline: bytes, tmp_path: Path
) -> None:
    process = start(wide, tmp_path / "run", "--engine", "ray", RAY_ADDRESS=cluster.address)
    wait_for(lambda: processes("second", "ray::spectra"))
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "its worker was lost" in err
    assert table(tmp_path / "run") == inline
    assert processes("first", "raylet"), "the cluster is not ours to stop"


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        ({"OMP_NUM_THREADS": "4096"}, (), r"spectra-L000-gate needs 4096 CPU, .* no machine .* has that .*; lower"),
        ({}, ("--device", "cuda:1"), "--device cuda:1: with --engine ray every job is given a GPU of its own; use"),
        ({}, ("--device", "tpu"), "--device tpu: is none of auto, cpu, cuda"),
        ({"RAY_ADDRESS": "127.0.0.1:9"}, (), r"RAY_ADDRESS=127.0.0.1:9: cannot connect .*; check that"),
    ],
)
def test_what_no_cluster_can_run_is_refused_before_any_work(
    run: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = run("--model", "mini", "--engine", "ray", "--out", tmp_path / "out", *options)
    refuses(result, message, tmp_path / "out")


def test_without_ray_it_says_what_to_install(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "diag.jobs.on_ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    result = run("--model", "mini", "--engine", "ray", "--out", tmp_path / "out")
    refuses(result, "--engine ray: Ray is not installed; run pip install", tmp_path / "out")


# What a worker finds on its machine


@pytest.fixture
def task(model: Path, tmp_path: Path) -> Iterator[object]:
    on_ray._opened.cache_clear()
    request = Request("spectra", str(model), Settings(), layers="2", projections="up", out=tmp_path / "run")
    with Session(request) as session:
        yield session._task(next(iter(session.stacks)))


def test_a_worker_does_the_job_that_it_is_sent(task: object, tmp_path: Path) -> None:
    result = on_ray._work(task, 1)
    assert [row["mode"] for row in result.tables["spectra"]] == ["expert", "output", "input"] and result.arrays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: replace(t, weights="0"), r"on \S+: the weights of spectra-L002-up are not those .*copied with"),
        (lambda t: replace(t, versions={**t.versions, "torch": "1.0"}), r"on \S+: has torch .* \(not 1.0\); install"),
        (
            lambda t: replace(t, model=replace(t.model, folder=Path("/nowhere"))),
            r"on \S+: checkpoint /nowhere: no such folder",
        ),
    ],
)
def test_a_worker_on_a_machine_that_differs_says_how(
    task: object, change: Callable[[object], object], message: str
) -> None:
    import re

    result = on_ray._work(change(task), 1)
    assert isinstance(result, Failed) and re.search(message, result.message)
