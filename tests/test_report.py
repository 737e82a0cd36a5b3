"""`tdmoe-diag report`: pages of run folders as they lie on disk, alone, together, unfinished, damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import Result, signed
from test_drift_page import a_run
from test_figures import synthetic_run
from test_page import Outline, words
from test_quality_page import ratios, run_of, schedule

from diag.runs.finished import load
from diag.runs.folder import Part, RunFolder
from diag.runs.manifest import make_manifest

Run = dict[str, Any]
Tool = Callable[..., Result]


def written(path: Path, run: Run, failed: str | None = None, pending: bool = False, **changes: Any) -> RunFolder[Part]:
    """The run as a folder on disk, by the code that commands use: its rows are of one job, others left none."""
    known = {key: run[key] for key in ("command", "command_line", "model", "fingerprint", "config", "seed", "device")}
    jobs = [Part(run["command"], name) for name in ("rows", *["bad"] * bool(failed), *["later"] * pending)]
    folder: RunFolder[Part] = RunFolder(path, make_manifest(**known | changes), {job: {} for job in jobs})
    folder.open()
    arrays = {key: array for found in run["arrays"].values() for key, array in found.items()}
    folder.finish(jobs[0], run["tables"], arrays, 1.0)
    if failed:
        folder.fail(jobs[1], failed, "")
    for table, rows in run["tables"].items():
        folder.write_table(table, list(dict.fromkeys(column for row in rows for column in row)))
    folder.close()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where `tool` runs."""
    return tmp_path / "work"


def targets(page: str) -> list[str]:
    return [str(attributes["id"]) for _, attributes in Outline(page).tags if "id" in attributes]


def titles(page: str) -> list[str]:
    return [" ".join(title.split()) for title in re.findall(r"<h2[^>]*>(?:<bdi>)?([^<]*)", page)]


def test_of_one_run_it_writes_the_page_that_the_command_wrote(tool: Tool, good: Path, home: Path) -> None:
    assert tool("spectra", "--model", good, "--out", "run", "--quiet").code == 0
    page = home / "run" / "report.html"
    before = page.read_bytes()
    page.unlink()
    files = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}
    result = tool("report", "run")
    assert (result.code, result.out, result.err) == (0, f"{Path('run') / 'report.html'}\n", "")
    assert page.read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file() and path != page} == files
    assert tool("report", "run", home / "run", "--out", "new/page.html").out == f"{Path('new') / 'page.html'}\n"
    assert (home / "new" / "page.html").read_bytes() == before


def test_what_is_read_back_is_what_the_command_had(tmp_path: Path) -> None:
    run = synthetic_run((0,), ("gate",))
    folder = written(tmp_path / "run", run, "3 values are not finite", pending=True)
    had = folder.data(("spectra",))
    (found,) = load([tmp_path / "run"]).runs
    arrays, expected = found.pop("arrays"), had.pop("arrays")
    assert found == had and found["tables"]["spectra"] == run["tables"]["spectra"]
    assert [job["state"] for job in found["jobs"]] == ["done", "failed", "pending"]
    assert arrays.keys() == expected.keys() and len(arrays["spectra-rows"]) == 6
    for name, values in expected["spectra-rows"].items():
        assert np.array_equal(arrays["spectra-rows"][name], values)


def test_several_runs_of_several_models_and_ratios_share_a_page(tool: Tool, home: Path) -> None:
    written(home / "q", run_of(ratios()), failed="out of memory in /home/ann/models/x")
    written(home / "q2", run_of(schedule(), config={"texts": ["c4"]}), command_line="tdmoe-diag quality --texts c4")
    written(home / "s", synthetic_run())
    written(home / "d", a_run(5.0, model="<i>other</i>"), seed=7, device="cuda")
    result = tool("report", "q", "s", "d", "q2")
    assert (result.code, result.out) == (0, "report.html\n")
    page = (home / "report.html").read_text(encoding="utf-8")
    text, found = words(page), targets(page)
    assert len(found) == len(set(found))
    links = {str(a["href"])[1:] for a in Outline(page).all("a") if str(a["href"]).startswith("#")}
    assert links <= set(found)
    assert titles(page)[0] == "Incomplete: 1 of 5 jobs did not finish"
    assert titles(page)[-3:] == ["pico-moe", "&lt;i&gt;other&lt;/i&gt;", "How it was made"]
    order = [name for name in found if name.endswith("-run")]
    assert order == ["pico-moe-spectra-run", "pico-moe-quality-run", "pico-moe-quality-2-run", "i-other-i-drift-run"]
    assert "zero-shot accuracy (texts wikitext2)" in text and "zero-shot accuracy (texts c4)" in text
    assert "quality, texts wikitext2: quality-bad failed: out of memory in …/x" in text
    for said in ("tdmoe-diag quality --texts c4", "0123abcd", "cuda", "1 of 2 jobs done"):
        assert said in text
    made = page[page.index('id="making"') :]
    assert all(command in made for command in ("tdmoe-diag spectra --model pico-moe", "tdmoe-diag drift"))
    assert tool("report", "q", "s", "d", "q2", "--out", "again.html").code == 0
    assert (home / "again.html").read_text(encoding="utf-8") == page


def comparison(path: Path, *jobs: tuple[str, str, str | None]) -> None:
    """The run.json of a compare folder."""
    listed = [{"key": f"compare-{name}", "state": state, "message": message} for name, state, message in jobs]
    manifest = make_manifest(**dict.fromkeys(("command_line", "model", "device", "fingerprint"), ""))
    manifest |= {"command": "compare", "config": {}, "seed": 0, "jobs": listed}
    path.mkdir(exist_ok=True)
    (path / "run.json").write_text(json.dumps(manifest))


def test_a_comparison_stands_for_its_parts_and_names_those_that_left_nothing(tool: Tool, home: Path) -> None:
    for name, run in (("quality", run_of(ratios())), ("quality-2", run_of(schedule())), ("spectra", synthetic_run())):
        written(home / "all" / "parts" / name, run)
    written(home / "all" / "parts" / "old", a_run(5.0))  # of another experiment in the same folder
    done = [(name, "done", None) for name in ("calibration", "spectra", "quality", "quality-2")]
    comparison(home / "all", *done)
    parts = [home / "all" / "parts" / name for name in ("spectra", "quality", "quality-2")]
    assert tool("report", "all").out == f"{Path('all') / 'report.html'}\n"
    assert tool("report", *parts, "--out", "parts.html").code == 0
    page = (home / "all" / "report.html").read_text(encoding="utf-8")
    assert page == (home / "parts.html").read_text(encoding="utf-8")
    assert "Drift of the residual stream" not in page and "Incomplete" not in page
    comparison(home / "all", *done, ("drift", "failed", "<b>no memory</b>"))
    assert tool("report", "all").code == 0
    text = words((home / "all" / "report.html").read_text(encoding="utf-8"))
    assert "Incomplete: 1 of 4 jobs did not finish" in text and "compare-drift failed: <b>no memory</b>" in text


def test_finished_parts_that_have_gone_are_named(tool: Tool, home: Path) -> None:
    for name, run in (("quality", run_of(ratios())), ("spectra", synthetic_run()), ("drift", a_run(5.0))):
        written(home / "all" / "parts" / name, run)
    jobs = [(name, "done", None) for name in ("calibration", "spectra", "quality", "drift")]
    comparison(home / "all", *jobs, ("operator", "failed", "no memory"))
    assert tool("report", "all").code == 0, "a failed one may have left nothing, calibration lies elsewhere"
    shutil.rmtree(home / "all" / "parts" / "drift")
    (home / "all" / "parts" / "quality" / "run.json").unlink()
    (home / "all" / "report.html").unlink()
    result = tool("report", "all")
    said = result.err.splitlines()
    assert (result.code, result.out, len(said)) == (2, "", 2)
    for line, name in zip(said, ("quality", "drift"), strict=True):
        assert f"{Path('all') / 'parts' / name}: a finished part of this comparison, holds no run.json; run the" in line
    shutil.rmtree(home / "all" / "parts")
    assert len(tool("report", "all").err.splitlines()) == 3


def edit(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(manifest | changes))

    return change


def result(**changes: Any) -> Callable[[Path], None]:
    """The result of the only job, with the SHA-256 that belongs to what it then says."""

    def change(folder: Path) -> None:
        file = folder / "results" / "spectra-rows.json"
        file.write_text(json.dumps(signed(json.loads(file.read_text()) | changes)))

    return change


def rewritten(name: str, pattern: bytes, by: bytes) -> Callable[[Path], None]:
    """The first match of a pattern."""

    def change(folder: Path) -> None:
        before = (folder / name).read_bytes()
        after = re.sub(pattern, by, before, count=1)
        assert after != before
        (folder / name).write_bytes(after)

    return change


def pipe(name: str) -> Callable[[Path], None]:
    """In place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "run: does not exist; give the folder of a finished run"),
        (without("run.json"), "run: holds no run.json; give the folder"),
        (cut("run.json"), "run.json: is not one of ours or is damaged"),
        (edit(schema="two"), "run.json: is not one of ours or is damaged"),
        (edit(jobs=[{"state": "done"}]), r"run.json: is not one of ours or is damaged \(no key\)"),
        (edit(schema=99), r"was written by a newer version of this tool \(layout 99, this one reads \d\); update"),
        (edit(schema=1), r"was written by an older version of this tool \(layout 1, .*run its command again"),
        (edit(command="calibrate"), "run: is a run of 'calibrate', which has no page; its statistics are for"),
        (edit(command="compress"), "run: is a run of 'compress', which has no page; its table is"),
        (edit(command="mine"), "a run of 'mine' has no page; there is one for: .*spectra"),
        (edit(command="compare"), "run: this comparison has measured nothing yet"),
        (without("results/spectra-rows.json"), "spectra-rows.json: a finished job's result cannot be read"),
        (cut("results/spectra-rows.json"), "spectra-rows.json: a finished job's result cannot be read"),
        (without("results/spectra-rows.safetensors"), "spectra-rows.safetensors: a finished job's result cannot be"),
        (cut("results/spectra-rows.safetensors"), "spectra-rows.safetensors: a finished job's result cannot be"),
        (edit(jobs=[{"key": "../run", "state": "done"}]), r"its name is none of a job\)"),
        (edit(config=[1]), r"run.json: is not one of ours .*\(config is '\[1\]', an object is needed\); give"),
        (edit(versions=None), r"\(versions is 'None', an object is needed\)"),
        (edit(jobs={"key": 1}), r"\(jobs is .*, a list is needed\)"),
        (edit(jobs=["rows"]), r"\(a job is 'rows', an object is needed\)"),
        (edit(notes=[3]), r"\(a note is '3', a text is needed\)"),
        (result(tables={"spectra": [3]}), r"rows.json: .*\(table spectra is no list of rows\)"),
        (rewritten("results/spectra-rows.json", rb'"alpha": 0', b'"alpha": 1'), r"rows.json: .*its SHA-256 does not"),
        (rewritten("results/spectra-rows.json", rb',\s+"sha256": "\w+"', b""), r"rows.json: .*\(it has no SHA-256\)"),
        (rewritten("results/spectra-rows.safetensors", rb".$", b"!"), r"rows.safetensors: .*SHA-256 of its arrays"),
        (pipe("run.json"), r"run.json: is not one of ours or is damaged \(is not a regular file\)"),
        (pipe("results/spectra-rows.json"), r"rows.json: .*\(is not a regular file\); run the command again"),
        (pipe("results/spectra-rows.safetensors"), r"rows.safetensors: .*\(is not a regular file\)"),
        (result(tables={"spectra": [{"layer": 0}]}), r"run: cannot be shown \(KeyError: .*run its command again"),
    ],
)  # fmt: skip
def test_a_folder_that_is_none_says_why(tool: Tool, home: Path, damage: Callable[[Path], object], message: str) -> None:
    written(home / "run", synthetic_run((0,), ("gate",)))
    damage(home / "run")
    result = tool("report", "run")
    assert result.code == 2 and re.search(message, result.err), result.err
    assert result.out == "" and not list(home.rglob("report.html"))


def test_a_page_that_cannot_be_written_says_why(tool: Tool, home: Path) -> None:
    written(home / "run", synthetic_run((0,), ("gate",)))
    (home / "file").write_text("")
    for out, said in (("run", "is a folder; give the file of the page, as run/report.html"),
                      ("file/page.html", "cannot be written")):  # fmt: skip
        result = tool("report", "run", "--out", out)
        assert (result.code, result.out) == (2, "") and f"--out {out}: {said}" in result.err
    assert tool("report").code == 2


def test_a_page_is_html_and_a_half_written_one_is_removed(tool: Tool, home: Path) -> None:
    written(home / "run", synthetic_run((0,), ("gate",)))
    for out in ("x.pdf", "x", "x.HTML.gz"):
        result = tool("report", "run", "--out", out)
        assert result.code == 2 and f"--out {out}: the page is HTML; give a file that ends in .html" in result.err
    (home / ".x.HTML.31.tmp").touch()
    (home / ".precious.tmp").touch()
    assert tool("report", "run", "--out", "x.HTML").code == 0
    assert {path.name for path in home.iterdir()} == {"run", "x.HTML", ".precious.tmp"}


def test_runs_that_commands_make_for_themselves_are_left_out(tool: Tool, home: Path) -> None:
    """As `report runs/*` names them; alone they are refused."""
    written(home / "s", synthetic_run((0,), ("gate",)))
    for name, command in (("c", "calibrate"), ("f/run", "compress"), ("n", "sensitivity")):
        written(home / name, synthetic_run((0,), ("gate",)))
        edit(command=command)(home / name)
    (home / "f" / "factors").mkdir()
    result = tool("report", "c", "f", "n", "s")
    assert (result.code, result.out, result.err) == (0, "report.html\n", "left out, they have no page: c, f, n\n")
    assert tool("report", "s", "--out", "s.html").code == 0
    assert (home / "report.html").read_text(encoding="utf-8") == (home / "s.html").read_text(encoding="utf-8")
    alone = tool("report", "c", "f")
    assert alone.code == 2 and len(alone.err.splitlines()) == 2 and "f: holds factors that a command" in alone.err


def test_every_folder_is_checked_and_each_says_what_is_wrong(tool: Tool, home: Path) -> None:
    for name in ("a", "b", "c"):
        written(home / name, synthetic_run((0,), ("gate",)))
    (home / "a" / "run.json").write_text("[")
    without("results/spectra-rows.json")(home / "c")
    result = tool("report", "a", "b", "c", "d")
    said = result.err.splitlines()
    assert (result.code, result.out, len(said)) == (2, "", 3)
    for line, name in zip(said, ("a/run.json: is not", "c/results/spectra-rows.json: a", "d: does not"), strict=True):
        assert name in line and re.search(r"; (give|run)", line)


def mangled(content: bytes, generator: np.random.Generator) -> bytes:
    """Cut, emptied, replaced by noise, or with some bytes changed."""
    kind = int(generator.integers(4))
    if kind == 0:
        return content[: int(generator.integers(len(content)))]
    if kind == 1:
        return generator.bytes(int(generator.integers(200)))
    changed = bytearray(content)
    for place in generator.integers(len(content), size=1 if kind == 2 else 30):
        changed[place] = int(generator.integers(256))
    return bytes(changed)


def test_whatever_is_damaged_no_traceback(tool: Tool, home: Path, tmp_path: Path) -> None:
    """`tool` lets no exception through but that of its exit."""
    written(tmp_path / "whole", synthetic_run((0,), ("gate",)), failed="too large")
    files = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*") if p.is_file())
    generator, codes = np.random.default_rng(5), []
    for name in files:
        for number in range(1 if name.suffix in (".csv", ".txt") or name.name == ".lock" else 9):
            shutil.rmtree(home / "run", ignore_errors=True)
            shutil.copytree(tmp_path / "whole", home / "run")
            if number == 0:
                (home / "run" / name).unlink()
            else:
                (home / "run" / name).write_bytes(mangled((tmp_path / "whole" / name).read_bytes(), generator))
            result = tool("report", "run")
            codes.append(result.code)
            assert result.code in (0, 2) and bool(result.err) == (result.code == 2), result.err
            assert result.code == 0 or re.search(r"\brun\b.*\b(give|run its|run the|update)\b", result.err)
    assert codes.count(2) > 15


def test_values_of_another_kind_in_run_json(tool: Tool, home: Path) -> None:
    written(home / "run", synthetic_run((0,), ("gate",)))
    file = home / "run" / "run.json"
    manifest = json.loads(file.read_text())
    for key in manifest:
        for value in (None, [[]], -1):
            file.write_text(json.dumps(manifest | {key: value}))
            result = tool("report", "run")
            assert result.code in (0, 2), (key, value)
            assert result.code == 0 or "run" in result.err
