"""A run folder through crashes, changes and repetition, on the built-in trained model and the real command."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import command as run

from diag.runs.files import lock

LAYERS = "0,2"
JOBS = [f"spectra-L00{layer}-{projection}" for layer in (0, 2) for projection in ("gate", "up", "down")]

# Runs the command, and kills the process hard at the n-th call of a function, before or after it does its work.
KILLER = """
import os, signal, sys
import diag.runs.folder
owner, name = {owner}, {name!r}
original, calls = getattr(owner, name), []
def deadly(*args, **kwargs):
    calls.append(1)
    if len(calls) == {nth} and {before}: os.kill(os.getpid(), signal.SIGKILL)
    value = original(*args, **kwargs)
    if len(calls) == {nth}: os.kill(os.getpid(), signal.SIGKILL)
    return value
setattr(owner, name, deadly)
from diag.cli.app import main
sys.argv = ["tdmoe-diag", *sys.argv[1:]]
main()
"""


def command(out: Path, *extra: str) -> list[str]:
    return ["spectra", "--model", "mini", "--layers", LAYERS, "--out", str(out), "--quiet", *extra]


def table(out: Path) -> bytes:
    return (out / "tables" / "spectra.csv").read_bytes()


def stamps(out: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (out / "results").glob("*")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    result = run(*command(out))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(out / "report.html")
    return out


def test_a_run_leaves_what_the_design_promises(finished: Path) -> None:
    manifest = json.loads((finished / "run.json").read_text())
    assert manifest["command"] == "spectra"
    assert manifest["model"] == "mini"
    assert [job["key"] for job in manifest["jobs"]] == JOBS
    assert {job["state"] for job in manifest["jobs"]} == {"done"}
    result = json.loads((finished / "results" / f"{JOBS[0]}.json").read_text())
    assert result["versions"]["torch"] == manifest["versions"]["torch"]
    rows = list(csv.DictReader((finished / "tables" / "spectra.csv").open()))
    assert [(r["layer"], r["projection"], r["mode"]) for r in rows[:3]] == [
        ("0", "gate", mode) for mode in ("expert", "output", "input")
    ]
    assert len(rows) == 3 * len(JOBS)
    assert sorted(p.suffix for p in (finished / "results").iterdir()) == [".json"] * 6 + [".safetensors"] * 6
    assert (finished / "report.html").stat().st_size > 10_000
    assert {p.name for p in (finished / "figures").iterdir()} == {f"spectra-{n}.svg" for n in ("depth", "L000", "L002")}


def test_the_trained_model_is_off_the_gaussian_null(finished: Path) -> None:
    for row in csv.DictReader((finished / "tables" / "spectra.csv").open()):
        assert float(row["alpha"]) > 1.4 * float(row["alpha_null"])


def test_running_again_measures_nothing_again(finished: Path) -> None:
    before, content = stamps(finished), table(finished)
    page = (finished / "report.html").read_text()
    assert run(*command(finished)).returncode == 0
    assert stamps(finished) == before
    assert table(finished) == content
    assert len((finished / "report.html").read_text()) == len(page)


def test_two_runs_give_identical_tables(finished: Path, tmp_path: Path) -> None:
    assert run(*command(tmp_path / "other")).returncode == 0
    assert table(tmp_path / "other") == table(finished)


def test_so_do_two_of_two_threads(tmp_path: Path) -> None:
    for name in "ab":
        arguments = [sys.executable, "-m", "diag.cli.app", *command(tmp_path / name)]
        subprocess.run(arguments, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
        assert json.loads((tmp_path / name / "run.json").read_text())["threads"] == 2
    assert table(tmp_path / "a") == table(tmp_path / "b")


@pytest.mark.parametrize(
    ("owner", "name", "nth", "before", "survivors"),
    [
        ("diag.runs.folder.RunFolder", "finish", 3, False, 3),
        ("diag.runs.folder.RunFolder", "finish", 1, True, 0),
        ("diag.runs.results", "write_bytes", 2, False, 1),  # after the second job's arrays, before its JSON
        ("__import__('pathlib').Path", "replace", 6, True, 1),  # between writing a file and renaming it
        ("diag.runs.folder.RunFolder", "write_table", 1, True, 6),
        ("__import__('pathlib').Path", "replace", 1, True, 0),  # before run.json is there at all
        ("diag.runs.folder.RunFolder", "_save_manifest", 1, False, 0),
        ("diag.runs.folder", "lock", 1, False, 0),
    ],
)
def test_killed_anywhere_it_goes_on_without_repeating(
    finished: Path, tmp_path: Path, owner: str, name: str, nth: int, before: bool, survivors: int
) -> None:
    out = tmp_path / "killed"
    died = run(*command(out), code=KILLER.format(owner=owner, name=name, nth=nth, before=before))
    assert died.returncode == -signal.SIGKILL
    kept = {name: stamp for name, stamp in stamps(out).items() if name.endswith(".json")}
    assert not (out / "report.html").exists()
    assert len(kept) == survivors
    assert run(*command(out)).returncode == 0
    assert {name: stamps(out)[name] for name in kept} == kept
    assert table(out) == table(finished)


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "shared"
    out.mkdir()
    held = lock(out / ".lock")
    try:
        result = run(*command(out))
        assert result.returncode == 2
        assert "another process writes to it" in result.stderr
    finally:
        assert held is not None
        held.close()
    assert run(*command(out)).returncode == 0


def test_a_disk_that_fills_up_ends_the_run_and_keeps_what_is_done(finished: Path, tmp_path: Path) -> None:
    code = KILLER.replace("os.kill(os.getpid(), signal.SIGKILL)", "raise OSError(28, 'No space left on device', 'x')")
    out = tmp_path / "full"
    result = run(*command(out), code=code.format(owner="diag.runs.results", name="write_bytes", nth=3, before=True))
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    assert "the same command goes on from there" in result.stderr
    assert "Traceback" not in result.stderr
    assert len([name for name in stamps(out) if name.endswith(".json")]) == 2
    assert run(*command(out)).returncode == 0
    assert table(out) == table(finished)


def test_another_choice_of_layers_in_one_folder_leaves_no_stale_output(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    (out / "figures" / "mine.png").write_bytes(b"mine")
    before = stamps(out)
    assert run(*command(out)[:3], "--layers", "0", "--out", str(out), "--quiet").returncode == 0
    assert {p.name for p in (out / "figures").iterdir()} == {"spectra-depth.svg", "spectra-L000.svg", "mine.png"}
    assert {row["layer"] for row in csv.DictReader((out / "tables" / "spectra.csv").open())} == {"0"}
    assert stamps(out) == before  # layer 0 was not measured again, layer 2 is kept for later


@pytest.mark.parametrize("sink", ["closed", "both closed", "full"])
def test_output_that_nobody_takes_loses_nothing(finished: Path, tmp_path: Path, sink: str) -> None:
    out = tmp_path / "out"
    arguments = [sys.executable, "-m", "diag.cli.app", *command(out)]
    if sink == "full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    if sink == "both closed":
        arguments.remove("--quiet")  # progress and notes have nowhere to go
    if sink != "full":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    for _ in range(2):  # a first run, and one that finds everything done
        err = writer if sink == "both closed" else subprocess.PIPE
        result = subprocess.run(arguments, stdout=writer, stderr=err, text=True)
        assert result.returncode == 0, result.stderr
        expected = "tdmoe-diag: standard output: No space left on device; the run itself is saved\n"
        assert result.stderr == {"closed": "", "both closed": None, "full": expected}[sink]
        assert table(out) == table(finished)
        assert (out / "report.html").is_file()
        assert len(list((out / "figures").iterdir())) == 3
    os.close(writer)


def test_a_run_says_what_was_there_already(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    loud = [a for a in command(out) if a != "--quiet"]
    assert "6 of 6 jobs are done already" in run(*loud).stderr
    loud[loud.index(LAYERS)] = "0,1"
    told = run(*loud).stderr
    assert "3 of 6 jobs are done already" in told
    assert "3 results of other jobs are kept" in told


def test_less_memory_goes_on_with_what_is_done(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    before = stamps(out)
    assert run(*command(out, "--memory", "200kB")).returncode == 0
    assert stamps(out) == before


@pytest.mark.parametrize(("sent", "code_"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_it_says_how_to_go_on(tmp_path: Path, sent: str, code_: int) -> None:
    handler = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background shell may have it ignored
    code = KILLER.replace("signal.SIGKILL", f"signal.{sent}").replace("diag.cli.app", "diag.start")
    code = code.replace("import diag.runs.folder", f"import diag.runs.folder\n{handler}")
    code = code.format(owner="diag.runs.folder.RunFolder", name="finish", nth=2, before=False)
    result = run(*command(tmp_path / "x"), code=code)
    assert result.returncode == code_
    assert result.stderr == "interrupted; finished jobs are saved, the same command goes on where this one stopped\n"
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("damage", ["truncate", "empty", "settings", "no arrays", "broken arrays"])
def test_a_result_that_does_not_match_is_measured_again(finished: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    victim = out / "results" / f"{JOBS[1]}.json"
    arrays = victim.with_suffix(".safetensors")
    if damage == "truncate":
        victim.write_text(victim.read_text()[:100])
    elif damage == "empty":
        victim.write_text("")
    elif damage == "settings":
        victim.write_text(victim.read_text().replace('"settings": "', '"settings": "0'))
    elif damage == "no arrays":
        arrays.unlink()
    else:
        arrays.write_bytes(arrays.read_bytes()[:50])
    before = stamps(out)
    result = run(*[a for a in command(out) if a != "--quiet"])
    assert result.returncode == 0
    assert f"{JOBS[1]}: measured again" in result.stderr
    changed = {name for name, stamp in stamps(out).items() if before.get(name) != stamp}
    assert changed == {victim.name, arrays.name}
    assert table(out) == table(finished)


def test_changed_settings_are_measured_again_in_the_same_folder(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    assert run(*command(out, "--fit-range", "0.1:0.9")).returncode == 0
    rows = list(csv.DictReader((out / "tables" / "spectra.csv").open()))
    assert {r["fit_first"] for r in rows if r["mode"] == "expert"} == {"4"}
    assert table(out) != table(finished)


def test_default_folder_is_found_again_and_depends_on_settings(tmp_path: Path) -> None:
    arguments = ["spectra", "--model", "mini", "--layers", "1", "--projections", "up", "--quiet"]
    for extra in ([], [], ["--fit-range", "0.1:0.9"]):
        assert run(*arguments, *extra, cwd=tmp_path).returncode == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert all(p.name.startswith("mini-spectra-") for p in (tmp_path / "runs").iterdir())


def test_fresh_discards_results_but_never_a_foreign_folder(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    (out / "notes.txt").write_text("mine")
    before = stamps(out)
    assert run(*command(out, "--fresh")).returncode == 0
    assert all(stamps(out)[name] > stamp for name, stamp in before.items())
    assert (out / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    result = run(*command(foreign, "--fresh"))
    assert result.returncode == 2
    assert "not empty and holds no run" in result.stderr
    assert (foreign / "thesis.tex").read_text() == "years of work"


def test_a_folder_with_another_models_run_is_refused(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    manifest = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(manifest | {"fingerprint": "0" * 16, "model": "other"}))
    result = run(*command(out))
    assert result.returncode == 2
    assert "holds a run of 'spectra' on other" in result.stderr
    assert "--fresh" in result.stderr
    assert table(out) == table(finished)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    result = run(*command(tmp_path / "x"))
    assert result.returncode == 2
    assert "cannot be written" in result.stderr


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = run("spectra", "--model", "mini", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0
    assert "12 jobs" in result.stdout
    assert "32 x 80 x 192" in result.stdout
    assert "32 x 192 x 80" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="a shell is needed")
@pytest.mark.parametrize(
    "line",
    [
        "set -o pipefail; {} spectra --model mini --dry-run | true",
        "{} models >&-",
        "{} spectra --model mini --layers 0 --projections up --out run --quiet 0<&- 1>&- 2>&-",
    ],
)
def test_streams_that_nobody_reads_or_holds_are_no_error(tmp_path: Path, line: str) -> None:
    command_line = line.format(f"{sys.executable} -m diag.start")
    result = subprocess.run(["bash", "-c", command_line], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    if "--out" in line:
        assert (tmp_path / "run" / "report.html").is_file() and (tmp_path / "run" / ".lock").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_fails_what_only_prints(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "diag.start", "models"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr == "tdmoe-diag: standard output: No space left on device\n"


def test_an_interrupted_import_is_an_interruption(tmp_path: Path) -> None:
    """Whatever a library makes of the signal; `typer` stands for any."""
    (tmp_path / "typer.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    import time; time.sleep(9)\n"
        "except KeyboardInterrupt:\n    raise ImportError('C extension failed')\n"
    )
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += f"sys.path.insert(0, {str(tmp_path)!r})\nfrom diag.start import main\nmain()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "tdmoe-diag: interrupted\n")
