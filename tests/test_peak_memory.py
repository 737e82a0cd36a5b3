"""Peak memory of runs: what the system says of this process, kept over resumes, and nothing where it is not known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from diag.runs import peak_memory
from diag.runs.folder import Part, RunFolder
from diag.runs.manifest import make_manifest

ONE, TWO = Part("quality", "one"), Part("quality", "two")


def folder(path: Path, **known: str) -> RunFolder[Part]:
    manifest = make_manifest(**{"command": "quality", "fingerprint": "0", "config": {}, "device": "cpu"} | known)
    return RunFolder(path, manifest, {ONE: {}, TWO: {}})


def saved(path: Path) -> int | None:
    found: int | None = json.loads((path / "run.json").read_text())["peak_memory_bytes"]
    return found


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The process's high-water mark, as a test moves it; no run was measured before."""
    found = [100]
    monkeypatch.setattr(peak_memory, "_host_begun", False)
    monkeypatch.setattr(peak_memory, "high_water", lambda: found[0])
    yield found


def test_it_is_that_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/status").is_file():
        pytest.skip("no /proc")
    monkeypatch.setattr(peak_memory, "_host_begun", False)
    run = folder(tmp_path / "run")
    run.open()
    held = np.ones(8 << 20)  # 64 MB
    run.finish(ONE, {}, {}, 0.0)
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    found = saved(tmp_path / "run")
    assert found is not None and held.nbytes < now - 2**20 <= found <= most
    run.close()
    assert run.data(())["peak_memory_bytes"] == found


def test_a_run_inside_a_process_that_needed_more_before_does_not_know(tmp_path: Path, marks: list[int]) -> None:
    first, second = folder(tmp_path / "a"), folder(tmp_path / "b")
    first.open()
    assert saved(tmp_path / "a") == 100
    second.open()
    second.finish(ONE, {}, {}, 0.0)
    assert saved(tmp_path / "b") is None
    marks[0] = 300
    second.finish(TWO, {}, {}, 0.0)
    first.finish(ONE, {}, {}, 0.0)
    assert saved(tmp_path / "b") == saved(tmp_path / "a") == 300


@pytest.mark.parametrize(("before", "now", "expected"), [(200, 150, 200), (200, 250, 250), (None, 250, None)])
def test_the_largest_of_all_processes_is_kept(
    tmp_path: Path,
    marks: list[int],
    monkeypatch: pytest.MonkeyPatch,
    before: int | None,
    now: int,
    expected: int | None,
) -> None:
    run = folder(tmp_path / "run")
    run.open()
    run.finish(ONE, {}, {}, 0.0)
    run.close()
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest | {"peak_memory_bytes": before}))
    marks[0] = now
    monkeypatch.setattr(peak_memory, "_host_begun", False)  # another process
    again = folder(tmp_path / "run")
    again.open()
    again.finish(TWO, {}, {}, 0.0)
    assert saved(tmp_path / "run") == expected
    again.close()
    fresh = folder(tmp_path / "run")
    fresh.open(fresh=True)
    marks[0] = now + 1
    fresh.finish(ONE, {}, {}, 0.0)
    assert saved(tmp_path / "run") == now + 1


def test_work_elsewhere_is_not_that_of_this_process(tmp_path: Path, marks: list[int]) -> None:
    run = folder(tmp_path / "run", engine="ray")
    run.open()
    assert saved(tmp_path / "run") is None


def test_runs_inside_one_another_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's mark is set back for the inner run, and the outer one still knows its own."""
    mark = [0]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: mark[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: mark.__setitem__(0, 5))
    outer = peak_memory.measuring("cuda:0", "inline")
    assert outer is not None
    mark[0] = 90
    inner = peak_memory.measuring("cuda:0", "inline")
    assert inner is not None
    mark[0] = 40
    assert (inner.bytes(), outer.bytes()) == (40, 90)
    inner.end()
    mark[0] = 120
    assert outer.bytes() == 120
    outer.end()


def test_notes_are_kept_with_the_results_that_they_are_of(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    assert run.open(notes=["few tokens", "few tokens"])[0] == "few tokens"
    run.note(["calibration: old"])
    run.finish(ONE, {}, {}, 0.0)
    run.close()
    again = folder(tmp_path / "run")
    again.open(notes=["other"])
    assert again.data(())["notes"] == ["few tokens", "calibration: old", "other"]
    again.close()
    fresh = folder(tmp_path / "run")
    fresh.open(fresh=True, notes=["other"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["notes"] == ["other"]
