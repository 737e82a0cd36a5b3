"""A run folder taken up again: what its files are worth, which of them are ours, and what it says."""

from __future__ import annotations

import csv
import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import Result, signed

from diag.runs import partial
from diag.runs.files import lock
from diag.runs.folder import Part, RunFolder
from diag.runs.manifest import make_manifest
from diag.runs.results import Row

PARTS = [Part("probe", name) for name in ("a", "b")]
COLUMNS = {"table": ("text", "value", "status")}
ROW = {"text": "x", "value": 0.125, "status": "ok"}


def folder(path: Path, config: Row | None = None, **chosen: Any) -> RunFolder[Part]:
    known = {"command": "probe", "model": "m", "fingerprint": "f", "device": "cpu", "config": config or {}}
    return RunFolder(
        path, make_manifest(**known), {part: {"weights": "w"} for part in PARTS}, columns=COLUMNS, **chosen
    )


def finished(path: Path, rows: list[Row] | None = None, config: Row | None = None) -> None:
    run = folder(path, config)
    run.open()
    for part in PARTS:
        run.finish(part, {"table": rows or [ROW]}, {"values": np.arange(7.0)}, 1.0)
    run.write_table("table", COLUMNS["table"])
    run.close()


def edit(change: Callable[[Row], object], *, sign: bool = True) -> Callable[[Path], None]:
    """Of a result, with the SHA-256 that its new content has."""

    def edited(file: Path) -> None:
        found = json.loads(file.read_text())
        change(found)
        file.write_text(json.dumps(signed(found) if sign else found))

    return edited


def flipped(file: Path) -> None:
    arrays = file.with_suffix(".safetensors")
    arrays.write_bytes(arrays.read_bytes()[:-1] + b"!")


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edit(lambda r: r["tables"]["table"][0].update(value=0.126), sign=False), "its SHA-256 does not match"),
        (edit(lambda r: r.update(seconds=2.0), sign=False), "its SHA-256 does not match"),
        (edit(lambda r: r.pop("sha256"), sign=False), "it has no SHA-256"),
        (edit(lambda r: r["tables"]["table"][0].update(foreign=1)), "table table has a foreign column 'foreign'"),
        (edit(lambda r: r["tables"]["table"][0].update(value=[1])), "column value of table table holds a list"),
        (edit(lambda r: r.update(tables=[])), "tables is no object"),
        (edit(lambda r: r.update(job="probe-b")), "it is of another job"),
        (edit(lambda r: r.update(weights="v")), "weights changed"),
        (flipped, "the SHA-256 of its arrays does not match"),
        (lambda file: file.with_suffix(".safetensors").unlink(), "No such file"),
        (lambda file: pipe(file), "is not a regular file"),
        (lambda file: pipe(file.with_suffix(".safetensors")), "is not a regular file"),
        (lambda file: file.write_text("[" * 100_000), "it is nested too deeply"),
        (lambda file: file.write_bytes(b"\xff"), "utf-8"),
    ],
)
def test_what_is_not_as_it_was_written_is_done_again(
    damage: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    finished(tmp_path / "run")
    damage(tmp_path / "run" / "results" / "probe-a.json")
    run = folder(tmp_path / "run")
    told = run.open()
    assert [part.key for part in run.pending()] == ["probe-a"]
    assert any(re.match(rf"probe-a: measured again, .*{reason}", note) for note in told), told
    run.finish(PARTS[0], {"table": [ROW]}, {}, 1.0)
    run.close()
    again = folder(tmp_path / "run")
    assert again.open() == ["2 of 2 jobs are done already"] and again.rows("table") == [ROW, ROW]


def test_a_pipe_as_run_json_is_not_waited_for(tmp_path: Path) -> None:
    finished(tmp_path / "run")
    pipe(tmp_path / "run" / "run.json")
    with pytest.raises(ValueError, match="run.json is not one of ours"):
        folder(tmp_path / "run").open()


def test_sums_of_a_stopped_run_that_changed_begin_anew(tmp_path: Path) -> None:
    """A bit anywhere: header, data. What is of something else, likewise."""
    sums = {"a": np.arange(6.0).reshape(2, 3), "counts": np.arange(4), "one": np.array(2.5)}
    partial.save(tmp_path, {"x": 1}, 3, sums)
    found = partial.load(tmp_path, {"x": 1})
    assert (
        found is not None
        and found[1] == 3
        and {n: a.tolist() for n, a in found[0].items()} == {name: array.tolist() for name, array in sums.items()}
    )
    assert partial.load(tmp_path, {"x": 2}) is None
    whole = (tmp_path / partial.FILE).read_bytes()
    for place in range(8, len(whole), 7):
        (tmp_path / partial.FILE).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert partial.load(tmp_path, {"x": 1}) is None, place
    partial.forget(tmp_path)
    assert partial.load(tmp_path, {"x": 1}) is None


def test_only_what_we_left_half_written_is_removed(tmp_path: Path) -> None:
    finished(tmp_path / "run")
    ours = [
        tmp_path / "run" / name for name in (".run.json.7.tmp", "results/.probe-a.json.81.tmp", "tables/.t.csv.9.tmp")
    ]
    theirs = [tmp_path / "run" / name for name in (".precious.tmp", "x.tmp", "mine/.a.b.5.tmp")]
    (tmp_path / "run" / "mine").mkdir()
    for path in (*ours, *theirs):
        path.write_text("")
    for fresh in (False, True):
        run = folder(tmp_path / "run")
        run.open(fresh=fresh)
        run.close()
        assert not any(path.exists() for path in ours) and all(path.exists() for path in theirs)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".run.json.7.tmp").write_text("")
    folder(tmp_path / "other").open()  # a process was killed before there was anything else


def test_a_table_of_other_settings_is_not_replaced_without_a_word(tmp_path: Path) -> None:
    finished(tmp_path / "run", config={"layers": "0-3", "memory": 4})
    run = folder(tmp_path / "run", {"layers": "0-3", "memory": 5})
    assert run.open() == ["2 of 2 jobs are done already"] and not run.replaces  # the same jobs
    run.close()
    run = RunFolder(tmp_path / "run", run.manifest | {"config": {"layers": "1"}}, {Part("probe", "c"): {}})
    (told,) = (note for note in run.open() if "replaced" in note)
    assert told.endswith("run: tables and page of an earlier command are replaced; layers were 0-3, are 1")


def test_weights_that_changed_meanwhile_fail_the_job(tmp_path: Path) -> None:
    changed: list[str] = []
    run = folder(tmp_path / "run", changed=lambda: changed)
    run.open()
    run.finish(PARTS[0], {"table": [ROW]}, {}, 1.0)
    changed.append("model-2.safetensors")
    run.finish(PARTS[1], {"table": [ROW]}, {}, 1.0)
    assert run.failures() == [
        ("probe-b", "model-2.safetensors: changed while the command ran; run it again when it is whole")
    ]
    assert run.rows("table") == [ROW] and not (tmp_path / "run" / "results" / "probe-b.json").exists()


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("@sum", "'@sum"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("\t=x", "'\t=x"),
        ("\N{FULLWIDTH EQUALS SIGN}1", "'\N{FULLWIDTH EQUALS SIGN}1"),
        ("a=b", "a=b"),
        ("+ phi tanh: preset corrected", "+ phi tanh: preset corrected"),
        ("+ cmd|' /C calc'!A0", "'+ cmd|' /C calc'!A0"),
        ("+ SUM(A1)", "'+ SUM(A1)"),
        ("-0.5", "-0.5"),
    ],
)
def test_text_that_a_spreadsheet_takes_for_a_formula_is_told_to_be_text(text: str, cell: str, tmp_path: Path) -> None:
    finished(tmp_path / "run", [{"text": text, "value": -0.5, "status": "ok"}])
    with (tmp_path / "run" / "tables" / "table.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"text": cell, "value": "-0.5", "status": "ok"}] * 2


def test_a_folder_that_the_command_chose_is_waited_for(good: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    """What another process writes there is used, and no option is named that nobody gave."""
    pytest.importorskip("fcntl")
    assert run("--model", good, "--quiet").code == 0
    (chosen,) = (tmp_path / "work" / "runs").iterdir()
    held = lock(chosen / ".lock")
    assert held is not None
    refused = run("--model", good, "--out", chosen, "--quiet")
    assert refused.code == 2 and re.match("tdmoe-diag: --out .*: another process writes to it; wait", refused.err)
    threading.Timer(0.3, held.close).start()
    result = run("--model", good)
    assert result.code == 0 and result.err.count("another process writes to it; waiting") == 1
    assert "--out" not in result.err and "6 of 6 jobs are done already" in result.err
    (chosen / "run.json").write_text("[]")
    foreign = run("--model", good)
    assert foreign.code == 2 and "--out" not in foreign.err and "is not one of ours; move it away" in foreign.err
