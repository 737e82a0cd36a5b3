"""Wrong options, models and folders: one message, exit code 2, nothing written; and what must keep working."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import (
    FIRST,
    THIRD,
    Damage,
    Result,
    cut,
    delete,
    refuses,
    text,
)

from diag.runs.files import lock

pytestmark = pytest.mark.usefixtures("one_thread")

OPTION_CASES: list[tuple[tuple[str, str], str]] = [
    (("--layers", "0"), r"--layers 0: layer 0 is not a Mixture-of-Experts layer of this model; it has 1-2"),
    (("--layers", "1-3"), r"--layers 1-3: layer 3 is not .*; it has 1-2"),
    (("--layers", "0-999999"), r"--layers 0-999999: layer 0 is not .*; it has 1-2"),
    (("--layers", "1-99999999999"), r"--layers 1-9{11}: layer 3 is not .*; it has 1-2"),
    (("--layers", "1,x"), r"--layers 1,x: 'x' is neither a layer nor a range; write for instance 0,12,24-30"),
    (("--layers", "2-1"), r"--layers 2-1: '2-1' is neither .*; write for instance"),
    (("--layers", "-1"), r"--layers -1: '-1' is neither .*; write for instance"),
    (("--layers", ""), r"--layers : '' is neither .*; write for instance"),
    (("--layers", "1,"), r"--layers 1,: '' is neither .*; write for instance"),
    (("--layers", "1" * 400), r"--layers 1+\.\.\.1+: '1+\.\.\.1+' is neither .*; write for instance"),
    (("--projections", "gate,upp"), r"--projections gate,upp: 'upp' is none of gate, up, down"),
    (("--projections", ""), r"--projections : '' is none of gate, up, down"),
    (("--memory", "10"), r"--memory 10 bytes: the smallest block of layer 1 gate takes 96 bytes; give at least that"),
    (("--memory", "95B"), r"--memory 95 bytes: the smallest block of layer 1 gate takes 96 bytes; give at least that"),
    (("--memory", "lots"), r"--memory lots: not a size; write for instance 4GB"),
    (("--memory", "0"), r"--memory 0: not a size; write for instance 4GB"),
    (("--memory", "-1GB"), r"--memory -1GB: not a size; write for instance 4GB"),
    (("--memory", "4XB"), r"--memory 4XB: not a size; write for instance 4GB"),
    (("--memory", "inf"), r"--memory inf: not a size; write for instance 4GB"),
    (("--memory", "9" * 400), r"--memory 9+\.\.\.9+: not a size; write for instance 4GB"),
    (("--fit-range", "0.9:0.1"), r"--fit-range 0\.9:0\.1: not a range of fractions .*; write for instance 0\.1:0\.9"),
    (("--fit-range", "0.5:0.5"), r"--fit-range 0\.5:0\.5: not a range of fractions .*; write for instance"),
    (("--fit-range", "0:2"), r"--fit-range 0:2: not a range of fractions .*; write for instance"),
    (("--fit-range", "-1:1"), r"--fit-range -1:1: not a range of fractions .*; write for instance"),
    (("--fit-range", "half"), r"--fit-range half: not a range of fractions .*; write for instance"),
    (("--fit-range", "nan:1"), r"--fit-range nan:1: not a range of fractions .*; write for instance"),
    (("--device", "cuda:99"), r"--device cuda:99: this machine has \d+ CUDA devices?; use --device cpu"),
    (("--device", "gpu"), r"--device gpu: is none of auto, cpu, cuda, cuda:N"),
    (("--device", "cuda:x"), r"--device cuda:x: is none of auto, cpu, cuda, cuda:N"),
    (("--device", "cuda:-1"), r"--device cuda:-1: is none of auto, cpu, cuda, cuda:N"),
    (("--device", "cuda:"), r"--device cuda:: is none of auto, cpu, cuda, cuda:N"),
    (("--device", "CPU"), r"--device CPU: is none of auto, cpu, cuda, cuda:N"),
]


@pytest.mark.parametrize("mode", [(), ("--dry-run",)], ids=["run", "dry-run"])
@pytest.mark.parametrize(
    ("option", "message"), OPTION_CASES, ids=lambda v: " ".join(v)[:40] if type(v) is tuple else ""
)
def test_bad_options_are_refused(
    option: tuple[str, str], message: str, mode: tuple[str, ...], good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    result = run("--model", good, "--out", tmp_path / "out", *option, *mode)
    assert result.code == 2, result
    assert re.search(message, result.err), result.err
    assert result.out == "" and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", "-1"), ("--seed", "x"), ("--jackknife", "-1"), ("--engine", "slurm"), ("--nope", "1")],
)
def test_usage_errors_of_the_parser(
    option: str, value: str, good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    result = run("--model", good, "--out", tmp_path / "out", option, value)
    assert result.code == 2 and option in result.err
    assert not (tmp_path / "out").exists()


MODEL_CASES = [
    (
        "no such model!",
        r"--model no such model!: neither a built-in model \(mini\), nor a folder, nor a known name .*hub id like",
    ),
    (
        "nowhere/to/be/found",
        r"--model nowhere/to/be/found: neither a built-in model .*, nor a folder, nor a known name .*, nor a hub id",
    ),
    (
        "some-org/some-model",
        r"--model some-org/some-model: no such folder here, not in .*cache .* connect, or fetch it .*hf download",
    ),
    ("-org/..", r"--model -org/\.\.: not a (valid hub id|folder here)"),
    ("x" * 5000, r"--model x+\.\.\.x+: not a usable path .*; give a folder or a model name"),
    ("~no-such-user-here", r"--model ~no-such-user-here: "),
    ("", r"--model : neither a built-in model .*, nor a folder, nor a known name .*, nor a hub id"),
    (".", r"work: has no config\.json; give a Hugging Face checkpoint"),
]


@pytest.mark.parametrize(("text_", "message"), MODEL_CASES, ids=lambda v: v[:20])
def test_models_that_cannot_be_found(text_: str, message: str, run: Callable[..., Result], tmp_path: Path) -> None:
    refuses(run(f"--model={text_}", "--out", tmp_path / "out"), message, tmp_path / "out")


def test_a_file_is_not_a_model(model: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("--model", model / FIRST, "--out", tmp_path / "out")
    refuses(result, rf"--model .*{FIRST}: is a file; give the folder of config\.json", tmp_path / "out")


TEXT = r"no\.txt: no text 'no\.txt': it is neither a built-in name .*; the path of a UTF-8 text file"
RATIO = "--ratios {0}: '{0}' is no fraction between 0 and 1; write for instance"
METHODS = ("drift", "injection", "operator", "quality", "superweights", "compare")
ALONE_CASES: list[tuple[tuple[str, ...], str]] = [
    *(
        (("compress", "--to", "to", f"--ratio={v}"), rf"--ratio {v}: give a fraction")
        for v in ("nan", "-0.1", "0", "1")
    ),
    *((("attribution", f"--ratio={value}"), rf"--ratio {value}: give a fraction") for value in ("nan", "1.5")),
    *((("superweights", f"--ratios={value}"), RATIO.format(value)) for value in ("nan", "-0.1", "1")),
    (("injection", "--ratio=1.5"), r"--ratio 1\.5: '1\.5' is no fraction between 0 and 1; write"),
    *(((name, "--methods", "rtn:bits=99"), "--methods rtn: bits is 99; give 2 to 8") for name in METHODS),
    *(((name, "--methods", "rtn:bit=4"), r"--methods rtn:bit=4: has no option 'bit'; it has bits") for name in METHODS),
    (("compress", "--to", "to", "--method", "tdmoe:damping=-1"), r"--method tdmoe: damping is -1\.0; a number of at l"),
    (("compress", "--to", "to", "--errors", ""), r"--errors : '' is none of weight, functional, operator; give any"),
    *(((name, "--text", "no.txt"), f"--text {TEXT}") for name in ("calibrate", "drift", "injection", "attribution")),
    (("superweights", "--eval-text", "no.txt"), f"--eval-text {TEXT}"),
    (("compress", "--to", "to", "--text", "no.txt"), f"--text {TEXT}"),
    (("quality", "--texts", "no.txt"), f"--texts {TEXT}"),
    *(((name, "--calibration-text", "no.txt"), f"--calibration-text {TEXT}") for name in ("quality", "compare")),
    *(((name, "--compressed", "no"), r"--compressed no: no such folder; give what") for name in ("quality", "drift")),
    *(((n, "--statistics", "no"), r"--statistics no: is no run folder .*give one") for n in ("operator", "injection")),
    (("compress", "--to", "to", "--statistics", "no"), r"--statistics no: is no run folder .*; give one"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), ALONE_CASES, ids=lambda v: " ".join(v)[:40] if type(v) is tuple else ""
)
def test_what_is_wrong_of_any_model_is_told_before_one_is_opened(
    arguments: tuple[str, ...], message: str, tool: Callable[..., Result], tmp_path: Path
) -> None:
    refuses(tool(arguments[0], "--model", "./nowhere", *arguments[1:]), message, tmp_path / "out")


def test_a_comparison_waits_for_no_folder_and_makes_no_plan_for_one_that_is_taken(
    tool: Callable[..., Result], tmp_path: Path
) -> None:
    pytest.importorskip("fcntl")
    (out := tmp_path / "out").mkdir()
    held = lock(out / ".lock")
    assert held is not None
    with held:
        result = tool("compare", "--model", "./nowhere", "--out", out)
        assert result.code == 2 and f"--out {out}: another process writes to it; wait" in result.err


# --out


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fresh", [(), ("--fresh",)], ids=["", "fresh"])
def test_a_foreign_folder_is_never_written_to(
    fresh: tuple[str, ...], good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "thesis"
    (out / "results").mkdir(parents=True)
    (out / "results" / "mine.txt").write_text("three years of work")
    before = tree(out)
    result = run("--model", good, "--out", out, *fresh)
    assert result.code == 2
    assert re.search(r"--out .*thesis: the folder is not empty and holds no run; give another folder", result.err)
    assert tree(out) == before


@pytest.mark.parametrize("manifest", ['{"experiment": 1}', "[]", '"a string"'])
@pytest.mark.parametrize("fresh", [(), ("--fresh",)], ids=["", "fresh"])
def test_a_run_json_of_another_tool_is_not_ours(
    manifest: str, fresh: tuple[str, ...], good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    out = tmp_path / "thesis"
    (out / "results").mkdir(parents=True)
    (out / "results" / "mine.txt").write_text("three years of work")
    (out / "run.json").write_text(manifest)
    before = tree(out)
    result = run("--model", good, "--out", out, *fresh)
    assert result.code == 2 and re.search(r"--out .*thesis: .*run.*; give another folder", result.err), result
    assert tree(out) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", r"--out .*file: is a file; give another folder"),
        ("file/below", r"--out .*file/below: .*(cannot be written|is a file)"),
        ("x" * 300, r"--out .*x+: cannot be written \(.*\)"),
    ],
    ids=["file", "below a file", "long"],
)
def test_out_that_cannot_be_a_folder(
    name: str, message: str, good: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    result = run("--model", good, "--out", tmp_path / name)
    assert result.code == 2 and re.search(message, result.err), result
    assert (tmp_path / "file").read_text() == "mine"


# What must work


def test_shards_that_are_symbolic_links_work(model: Path, run: Callable[..., Result], tmp_path: Path) -> None:
    """The hub cache: snapshots/REVISION/NAME -> ../../blobs/HASH, config and index too."""
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "abc", tmp_path / "cache" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for i, path in enumerate(sorted(model.iterdir())):
        shutil.copy(path, blobs / f"{i:x}")
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", f"{i:x}"))
    result = run("--model", snapshot, "--dry-run")
    assert result.code == 0 and "6 jobs" in result.out


@pytest.mark.parametrize("damage", [cut(THIRD, 10), delete(THIRD), text(THIRD, b"")], ids=["cut", "absent", "empty"])
def test_shards_of_other_layers_are_not_looked_at(
    damage: Damage, model: Path, run: Callable[..., Result], tmp_path: Path
) -> None:
    """Only the shards that the asked layers need have to be there."""
    damage(model)
    result = run("--model", model, "--layers", "1", "--dry-run")
    assert result.code == 0 and "3 jobs, " in result.out
    assert "\n1 job, " in run("--model", model, "--layers", "1", "--projections", "up", "--dry-run").out
