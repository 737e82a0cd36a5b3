"""`tdmoe-diag compare`: experiments as files, parts that resume and fail apart, tables together, one page."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import zoo
from damage import REMEDY, Result
from test_page import words
from test_superweights import TEXT, write_tokenizer
from tiny import single_thread

from diag.cli import app as cli
from diag.compression import compressing
from diag.compression.calibrating import Calibration
from diag.experiment import presets, toml
from diag.experiment.experiment import Experiment, parts
from diag.jobs.engine import Inline
from diag.probes.drift.run import Drift as DriftPlan
from diag.runs.tables import union
from tdmoe.problems import InputError

ABOUT = presets.About(layers=48, positions=512, begins=True)
EXPERIMENT = """
model = "pico"
ratios = [0.4]
methods = ["svd", "svd_llm", "rtn:bits=3"]
projections = "gate,up"

[calibration]
text = "a.txt"
tokens = 512

[spectra]

[[quality]]
texts = ["b.txt"]
window = 32
windows = 3

[[quality]]
texts = ["c.txt"]
window = 32
windows = 2
methods = ["svd_llm", "rtn:bits=3"]

[drift]
text = "b.txt"
tokens = 96
window = 32
scope = "all"
"""
KEYS = ["calibration", "spectra", "quality", "quality-2", "drift"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a pico Qwen3-MoE, three texts, an experiment, and its finished run in `out`."""
    home = tmp_path_factory.mktemp("compare")
    zoo.save(zoo.build(zoo.FAMILIES["qwen3_moe"], torch.float32), home / "pico", fused=False)
    write_tokenizer(home / "pico")
    for name, text in (("a", TEXT), ("b", TEXT[::-1]), ("c", TEXT[7:] + TEXT[:7])):
        (home / f"{name}.txt").write_text(text * 8)
    (home / "experiment.toml").write_text(EXPERIMENT)
    with pytest.MonkeyPatch.context() as patch, single_thread():
        patch.chdir(home)
        patch.setattr("sys.argv", ["tdmoe-diag", "compare", "--config", "experiment.toml", "--out", "out", "--quiet"])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
    yield home


@pytest.fixture
def compare(tool: Callable[..., Result], home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`tdmoe-diag compare ARGS` there."""
    monkeypatch.chdir(home)
    return lambda *arguments: tool("compare", *arguments)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def states(out: Path) -> dict[str, str]:
    run: dict[str, Any] = json.loads((out / "run.json").read_text())
    return {job["key"].removeprefix("compare-"): job["state"] for job in run["jobs"]}


# files


@pytest.mark.parametrize("name", presets.PRESETS)
def test_a_written_experiment_is_read_as_the_same(name: str) -> None:
    experiment = presets.preset(name, ABOUT)
    text = toml.written(experiment)
    assert toml.filled(Experiment(), tomllib.loads(text), Path("x.toml")) == experiment
    said = tomllib.loads(text)
    assert experiment.parts and all(said[name] for name in experiment.parts)
    assert set(said["spectra"][0]) == {"fit_range", "jackknife"}


def test_odd_text_survives_a_file() -> None:
    experiment = Experiment(model='a "b"\\c\n\x7fé', parts=parts(quality={"texts": ("x'y", "z")}))
    assert toml.filled(Experiment(), tomllib.loads(toml.written(experiment)), Path("x.toml")) == experiment


def test_a_table_changes_the_run_of_a_preset_and_a_list_takes_its_place() -> None:
    base = presets.preset("quick", ABOUT)
    said = tomllib.loads(
        'preset = "quick"\ndrift = []\n[quality]\nwindows = 5\n[[spectra]]\n[[spectra]]\njackknife = 2'
    )
    found = toml.filled(base, said, Path("x.toml"))
    ours, theirs = (vars(each.parts["quality"][0]) for each in (found, base))
    assert ours == theirs | {"windows": 5}
    assert "drift" not in found.parts and [vars(run)["jackknife"] for run in found.parts["spectra"]] == [0, 2]
    assert found.methods == base.methods


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metods = []", "has no entry metods; known are preset, .*model, .*methods.*; methods is meant"),
        ("[quality]\nwindow_size = 4", "has no entry quality.window_size; known are .*texts, windows, .*"),
        ("[[drift]]\n[[drift]]\nx = 1", r"has no entry drift\[1\].x; known are .*text, .*"),
        ("ratios = 0.4", "ratios is 0.4, a list, each of it a number, is needed"),
        ('ratios = [0.4, "a"]', r"ratios\[1\] is 'a', a number is needed"),
        ("seed = 1.0", "seed is 1.0, a whole number is needed"),
        ("seed = true", "seed is True, a whole number is needed"),
        ("model = 3", "model is 3, text is needed"),
        ("quality = 3", "quality is 3, a table is needed"),
        ("quality = [3]", r"quality\[0\] is 3, a table is needed"),
        ("calibration = 'c4'", "calibration is 'c4', a table is needed"),
        ("[injection]\napart = 'no'", "injection.apart is 'no', true or false is needed"),
    ],
)
def test_a_wrong_entry_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^config x.toml: {message}"):
        toml.filled(Experiment(), tomllib.loads(text), Path("x.toml"))


def test_the_paper_preset_follows_its_protocol() -> None:
    """Appendices B.1 and C.1: half of the layers, windows of 4096 or all positions, blank lines, five tasks."""
    paper = presets.preset("paper", presets.About(layers=48, positions=40_960))
    assert paper.schedule == "middle-out:24" and paper.ratios == (0.2, 0.4) and paper.projections == "gate,up"
    wikitext, c4 = (SimpleNamespace(**vars(each)) for each in paper.parts["quality"])
    assert (wikitext.texts, wikitext.join, wikitext.window, wikitext.windows) == (
        ("wikitext2",),
        "blank-lines",
        4096,
        0,
    )
    assert (c4.texts, c4.window, len(c4.tasks)) == (("c4-eval",), 4096, 5)
    drift = {"tokens": 102_400, "window": 1024, "scope": "all", "dtype": "auto"}
    assert paper.parts["drift"] == parts(drift=drift)["drift"]
    assert vars(presets.preset("paper", ABOUT).parts["quality"][0])["window"] == 512


# runs


def test_parts_are_whole_runs_and_tables_are_together(home: Path) -> None:
    out = home / "out"
    assert states(out) == dict.fromkeys(KEYS, "done")
    for name in KEYS[1:]:
        part = json.loads((out / "parts" / name / "run.json").read_text())
        assert part["command"] == name.partition("-")[0] and {job["state"] for job in part["jobs"]} == {"done"}
        assert (out / "parts" / name / "report.html").is_file()
    both = [rows_of(out / "parts" / name / "tables" / "quality.csv") for name in ("quality", "quality-2")]
    assert rows_of(out / "tables" / "quality.csv") == both[0] + both[1]
    assert [row["dataset"] for row in both[0] + both[1]] == ["b.txt"] * 4 + ["c.txt"] * 3
    assert {path.stem for path in (out / "tables").iterdir()} == {"spectra", "quality", "drift", "verdict"}
    run = json.loads((out / "run.json").read_text())
    assert (
        run["command"] == "compare"
        and run["config"]["quality-2.texts"] == ["c.txt"]
        and run["config"]["ratios"] == [0.4]
    )
    page = (out / "report.html").read_text()
    assert page.count("<h1") == 1 and "c.txt" in page and "c.txt" not in (out / "parts/drift/report.html").read_text()
    assert any((out / "figures").glob("*.svg"))


def test_one_calibration_and_one_set_of_factors_serve_all(home: Path) -> None:
    made = [json.loads(path.read_text())["config"] for path in home.glob("runs/*-factors-*/run/run.json")]
    assert sorted(config["method"] for config in made) == ["rtn:bits=3", "svd", "svd_llm"]
    assert len(list(home.glob("runs/*-calibrate-*"))) == 1


def test_the_written_experiment_goes_on_where_it_was_stopped(home: Path, compare: Callable[..., Result]) -> None:
    out = Path(shutil.copytree(home / "out", home / "again"))
    gone = next(out.glob("parts/quality-2/results/*svd-llm*.json"))
    before = {path: path.stat().st_mtime_ns for path in out.glob("parts/*/results/*")}
    tables = {path.name: path.read_bytes() for path in (out / "tables").iterdir()}
    gone.unlink()
    result = compare("--config", out / "experiment.toml", "--out", out)
    assert result.code == 0 and gone.is_file(), result.err
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {path.stem for path in changed} == {gone.stem}
    assert {path.name: path.read_bytes() for path in (out / "tables").iterdir()} == tables
    assert str(out / "report.html") in result.out and str(out / "tables" / "drift.csv") in result.out


def test_a_part_that_fails_leaves_the_others(
    home: Path, compare: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the walk broke")

    monkeypatch.setattr(DriftPlan, "_measure", broken)
    asked = ("--config", "experiment.toml", "--methods", "rtn:bits=3", "--out", "broken", "--quiet")
    result = compare(*asked)
    assert result.code == 1 and "failed: compare-drift: " in result.err and "the walk broke" in result.err
    assert states(home / "broken") == dict.fromkeys(KEYS, "done") | {"drift": "failed"}
    assert {row["status"] for row in rows_of(home / "broken" / "tables" / "drift.csv")} == {"failed"}
    assert len(rows_of(home / "broken" / "tables" / "quality.csv")) == 5
    assert (home / "broken" / "report.html").is_file()
    monkeypatch.undo()
    monkeypatch.chdir(home)
    assert compare(*asked).code == 0 and set(states(home / "broken").values()) == {"done"}


def test_dry_run_says_every_part_and_does_nothing(home: Path, compare: Callable[..., Result]) -> None:
    before = set(home.rglob("*"))
    result = compare("--config", "experiment.toml", "--ratios", "0.3", "--out", "dry", "--dry-run")
    assert result.code == 0 and set(home.rglob("*")) == before
    parts = "parts: spectra, quality, quality-2, drift", "dry/parts/quality-2", "3 windows of 32 tokens"
    jobs = "calibrate", "spectra-L002-up", "quality-svd-llm-0.3-l0-2-c.txt", "quality-rtn-l0-2-b.txt", "held whole"
    assert [word for word in (*parts, *jobs) if word not in result.out] == []


@pytest.mark.parametrize("methods", ["svd,rtn", "svd,svd_llm"])
def test_the_weights_of_methods_alone_need_no_calibration(
    home: Path, compare: Callable[..., Result], methods: str
) -> None:
    text = EXPERIMENT.replace('methods = ["svd_llm", "rtn:bits=3"]', "")
    (home / "methods.toml").write_text(text)
    result = compare("--config", "methods.toml", "--methods", methods, "--out", methods, "--dry-run")
    assert result.code == 0 and ("calibrate" in result.out) == ("svd_llm" in methods)


def test_weights_alone_need_no_calibration(home: Path, compare: Callable[..., Result]) -> None:
    (home / "weights.toml").write_text('model = "pico"\n[spectra]\n')
    result = compare("--config", "weights.toml", "--out", "weights", "--dry-run")
    assert result.code == 0 and "parts: spectra\n" in result.out and "calibrate" not in result.out
    assert "spectra-L002-down" in result.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "mobi"), "--methods mobi: is no method; .*"),
        (("--ratios", "1.2"), "--ratios 1.2: '1.2' is no fraction between 0 and 1; .*"),
        (("--projections", "gate,dawn"), "spectra: --projections gate,dawn: 'dawn' is none of gate, up, down; .*"),
        (("--layers", "1"), "--layers 1: layer 1 is not a Mixture-of-Experts layer of this model; it has 0,2"),
        (("--schedule", "middle-out:9"), "--schedule: 9 layers; middle-out takes 1 to 1 of 2; give fewer"),
        (("--memory", "much"), "spectra: --memory much: not a size; .*"),
        (
            ("--calibration-text", "b.txt"),
            "--config experiment.toml: quality: texts b.txt: is a calibration text; .*",
        ),
        (
            ("--calibration-tokens", 3),
            "calibration: --calibration-tokens 3: a window takes 64 tokens; give at least that",
        ),
        (("--model", "pica"), "--model pica: neither a built-in model .*"),
    ],
)
def test_bad_input_is_found_before_anything_runs(
    home: Path, compare: Callable[..., Result], arguments: tuple[object, ...], message: str
) -> None:
    result = compare("--config", "experiment.toml", "--out", "bad", *arguments)
    assert (result.code, result.out) == (2, "") and not (home / "bad").exists()
    assert_says(result, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "compare: which model\\? give --model, or a --config that says model"),
        ('model = "pico"', "--config bad.toml: compare: nothing runs; give a preset, or a table of spectra, .*"),
        (
            'model = "pico"\npreset = "quack"',
            "--config bad.toml: preset quack: is none of quick, paper, full; give one of these",
        ),
        ('model = "pico"\npreset = 3', "--config bad.toml: preset is 3, text is needed"),
        ("model = pico", "--config bad.toml: is not TOML .*"),
    ],
)
def test_a_file_that_asks_for_nothing(home: Path, compare: Callable[..., Result], text: str, message: str) -> None:
    (home / "bad.toml").write_text(text)
    result = compare("--config", "bad.toml")
    assert (result.code, result.out) == (2, "")
    assert_says(result, message)


def assert_says(result: Result, message: str) -> None:
    assert re.match(f"tdmoe-diag: {message}\n?$", result.err), result.err
    assert re.search(f"{REMEDY.pattern}|evaluate on another", result.err)


def test_tables_of_one_kind_with_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('x,y\n1,"a, ""b"""\n')
    (tmp_path / "b.csv").write_text("y,z\nc,3\n")
    assert union([tmp_path / "a.csv", tmp_path / "b.csv"]) == 'x,y,z\n1,"a, ""b""",\n,c,3\n'


# what parts share


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many stacks were compressed by which method, and how often something was calibrated."""
    found: Counter[str] = Counter()
    compress, collect = compressing.run, Calibration._collect

    def counted(stack: Any, settings: Any, **how: Any) -> Any:
        found[settings.method] += 1
        return compress(stack, settings, **how)

    def collected(*given: Any) -> Any:
        found["calibration"] += 1
        return collect(*given)

    monkeypatch.setattr(compressing, "run", counted)
    monkeypatch.setattr(Calibration, "_collect", collected)
    return found


def test_fresh_makes_everything_anew_and_what_is_shared_once(
    home: Path, compare: Callable[..., Result], made: Counter[str]
) -> None:
    out = Path(shutil.copytree(home / "out", home / "renewed"))
    assert compare("--config", "experiment.toml", "--out", out).code == 0 and not made
    result = compare("--config", "experiment.toml", "--out", out, "--fresh")
    assert result.code == 0, result.err
    assert made == {"calibration": 1} | dict.fromkeys(["svd", "svd_llm", "rtn:bits=3"], 4)  # 2 layers, gate and up
    before, after = (rows_of(path / "tables" / "drift.csv") for path in (home / "out", out))
    assert before == after


def test_fresh_of_a_command_reaches_its_factors(
    home: Path, tool: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, made: Counter[str]
) -> None:
    monkeypatch.chdir(home)
    asked = ("--calibration-text", "a.txt", "--calibration-tokens", 256, "--text", "b.txt", "--window", 16, "--quiet")
    asked += ("--ladder", "quick", "--windows", 8, "--fit-steps", 2, "--mobe-steps", 2, "--out", "attributed")
    assert tool("attribution", "--model", "pico", *asked).code == 0
    first = made.copy()
    assert first["calibration"] == 1 and first.total() > 9
    assert tool("attribution", "--model", "pico", *asked).code == 0 and made == first
    assert tool("attribution", "--model", "pico", *asked, "--fresh").code == 0
    assert made == {name: count if name == "calibration" else 2 * count for name, count in first.items()}


def test_notes_are_in_the_run_and_on_the_page_and_stay(
    home: Path, compare: Callable[..., Result], tool: Callable[..., Result]
) -> None:
    text = EXPERIMENT.replace("tokens = 96", "tokens = 9999").replace("tokens = 512", "tokens = 5120")
    (home / "notes.toml").write_text(text.replace("windows = 3\n", "windows = 99\ntasks = ['piqa']\n"))
    for _ in range(2):
        result = compare("--config", "notes.toml", "--methods", "svd_llm", "--out", "noted", "--quiet")
        assert result.code == 0, result.err
        notes = {path.parent.name: json.loads(path.read_text())["notes"] for path in (home / "noted").rglob("run.json")}
        calibrated = "calibration: --text a.txt: holds 704 tokens in whole windows, fewer than --tokens 5,120"
        windows = "--texts b.txt: holds 22 whole windows, fewer than --windows 99"
        drifted = "--text b.txt: holds 704 tokens in whole windows, fewer than --tokens 9,999"
        (tasks,) = [note for note in notes["noted"] if note.startswith("piqa: zero-shot tasks are not measured")]
        assert notes["noted"] == [tasks, calibrated] and notes["spectra"] == []
        assert notes["quality"] == [tasks, calibrated, windows] and notes["quality-2"] == [calibrated]
        assert notes["drift"] == [calibrated, drifted]
        for page in ("noted/report.html", "noted/parts/quality/report.html"):
            shown = words((home / page).read_text())
            assert all(f"the whole run: {note}" in shown for note in notes["quality"]) and "peak memory" in shown
    (home / "noted" / "report.html").unlink()
    assert tool("report", "noted").code == 0
    assert drifted in words((home / "noted" / "report.html").read_text())


def test_jobs_of_stacks_run_where_the_experiment_says(
    home: Path, compare: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def engine(name: str) -> Inline:
        asked.append(name)
        return Inline()

    monkeypatch.setattr("diag.jobs.session.engine", engine)
    (home / "ray.toml").write_text("engine = 'ray'\n" + EXPERIMENT.partition("[[quality]]")[0])
    assert compare("--config", "ray.toml", "--out", "elsewhere", "--quiet").code == 0
    run = json.loads((home / "elsewhere/parts/spectra/run.json").read_text())
    assert run["engine"] == "ray" and run["peak_memory_bytes"] is None and "ray" in asked
    asked.clear()
    assert compare("--config", "ray.toml", "--engine", "inline", "--out", "elsewhere", "--dry-run").code == 0
    assert set(asked) == {"inline"}
