"""Every command again, against what it wrote and said when that was recorded; and that the comparison sees changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from golden import cases, compare

HERE = Path(__file__).parent
SPECTRA = next(case for case in cases.CASES if case.key == "run/spectra-qwen3")
ELSEWHERE = '{"torch": "0"}'


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cases are forked")
@pytest.mark.parametrize("options", [("--cheap",), pytest.param((), marks=pytest.mark.slow)], ids=["cheap", "all"])
def test_commands_write_and_say_what_is_recorded(options: tuple[str, ...], tmp_path: Path) -> None:
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    start = [sys.executable, "-m", "golden", *options]
    ended = subprocess.run(start, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path})
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_all_that_is_recorded_is_a_case_and_has_a_name_of_its_own() -> None:
    keys = [case.key for case in cases.CASES]
    recorded = {said.parent.relative_to(compare.RECORDED).as_posix() for said in compare.RECORDED.glob("*/*/said.txt")}
    assert len(set(keys)) == len(keys) and recorded == set(keys)
    assert {case.line.split()[0] for case in cases.CASES if case.kind == "run"} == set(cases.COMMANDS)


def test_what_a_line_reads_runs_before_it() -> None:
    order = [case.key for case in cases.chosen(only="report-several")]
    assert order[-1] == "run/report-several" and set(order) > {"run/drift-qwen3", "run/quality-qwen3"}


def swapped(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "exactly", "elsewhere"),
    [
        (lambda folder: None, 0, 0),
        (swapped("tables/spectra.csv", "0.07090944192552247", "0.070909443"), 1, 0),
        (swapped("tables/spectra.csv", "0.07090944192552247", "0.0715"), 1, 1),
        (swapped("tables/spectra.csv", "0,gate,output,20", "0,gate,output,21"), 1, 1),
        (swapped("tables/spectra.csv", "insufficient_tail", "ok"), 1, 1),
        (swapped("tables/spectra.csv", "alpha_stderr", "alpha_error"), 1, 1),
        (swapped("said.txt", "exit code 0", "exit code 1"), 1, 1),
        (swapped("said.txt", "input", "inputs"), 1, 1),
        (swapped("said.txt", "━", ""), 1, 0),
        (swapped("files.csv", "spectra-depth.svg", "depth.svg"), 1, 1),
        (lambda folder: (folder / "tables" / "spectra.csv").unlink(), 1, 1),
        (lambda folder: (folder / "tables" / "more.csv").write_text("x\n1\n"), 1, 1),
    ],
)
def test_a_change_is_seen(change: Callable[[Path], object], exactly: int, elsewhere: int, tmp_path: Path) -> None:
    """`exactly` on the machine that recorded; `elsewhere` last digits, and how wide a table is, may differ."""
    folder = tmp_path / SPECTRA.key
    shutil.copytree(compare.RECORDED / SPECTRA.key, folder)
    change(folder)
    for fingerprint, expected in ((None, exactly), (ELSEWHERE, elsewhere)):
        shutil.copy(compare.RECORDED / compare.FINGERPRINT, tmp_path)
        if fingerprint is not None:
            (tmp_path / compare.FINGERPRINT).write_text(fingerprint)
        found = compare.compare([SPECTRA], tmp_path)
        assert (len(found.differences), found.exact) == (expected, fingerprint is None), found.said


def test_digests_are_not_compared_where_bytes_may_differ() -> None:
    one, other = "method,shard_sha256,error\nsvd,abc,0.5\n", "method,shard_sha256,error\nsvd,def,0.5\n"
    assert compare.tables_close(one, other, 0.0) and not compare.tables_close(one, other.replace("0.5", "0.6"))
