"""The frozen command line: what it accepts, what it imports, what it prints."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import planted, write_stack
from processes import command

from diag.cli.app import main
from diag.declare import parse
from diag.probes.spectra import measure as spectra
from tdmoe.problems import InputError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "diag.cli.app", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [["--help"], ["spectra", "--help"], ["--version"]])
def test_help_imports_neither_torch_nor_numpy(arguments: list[str]) -> None:
    code = (
        "import sys, json, atexit\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n"
        f"sys.argv = ['tdmoe-diag', *{arguments!r}]\n"
        "from diag.cli.app import main\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0
    loaded = set(json.loads(result.stderr))
    assert not loaded & {"torch", "numpy", "transformers", "matplotlib", "pandas", "scipy", "powerlaw"}


@pytest.mark.parametrize("arguments", [["spectra"], ["compress", "--method", "rtn:bits=4", "--tokens=0", "--to=to"]])
def test_what_needs_only_weights_imports_no_transformers(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "import sys\nfrom diag.cli.app import main\n"
        f"sys.argv = ['tdmoe-diag', *{[*arguments, '--model', 'mini', '--layers', '0', '--out', 'o']!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print('transformers' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "False", result.stderr


def test_the_frozen_options_are_there() -> None:
    text = run("spectra", "--help").stdout
    for option in ("model", "layers", "projections", "device", "memory", "out", "seed", "engine", "dry-run", "fresh"):
        assert f"--{option}" in text


def test_stdout_holds_the_table_and_the_paths_only(tmp_path: Path) -> None:
    result = run("spectra", "--model", "mini", "--layers", "1", "--out", str(tmp_path / "out"), "--quiet")
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[-2:] == [str(tmp_path / "out" / "tables" / "spectra.csv"), str(tmp_path / "out" / "report.html")]
    assert sum(line.split()[1:4:2] == ["1", "gate"] for line in lines) == 1


def test_the_papers_values_stand_beside_ours_for_its_model_and_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shape, published = (8, 12, 20), (0.160, 0.075, 0.402)
    monkeypatch.setattr(spectra, "PAPER", {("Model", shape): {(0, "gate"): published}})
    folder = write_stack(tmp_path / "Model", planted(shape, "input", np.arange(1, 21.0) ** -0.4))
    out = tmp_path / "out"
    arguments = ["spectra", "--model", str(folder), "--projections", "gate,down", "--out", str(out), "--quiet"]
    monkeypatch.setattr("sys.argv", ["tdmoe-diag", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    gate, down = (next(line for line in lines if f"│ {p} " in line).split("│")[3:-1] for p in ("gate", "down"))
    assert [float(cell) for cell in gate[1::2]] == list(published)
    assert gate[4].split()[0] == "0.400"
    assert not any("0.402" in cell for cell in down)  # the transpose is of another shape
    assert "0.402" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "experts", "fitted"),
    [("zeros", 6, []), ("equal", 6, ["output", "input"]), ("single", 1, ["output", "input"])],
)
def test_stacks_without_a_spectrum_to_fit_still_end_in_a_table_and_a_page(
    tmp_path: Path, name: str, experts: int, fitted: list[str]
) -> None:
    """All experts zero, all equal as after upcycling, or only one: nothing to fit, and nothing made up."""
    W_OI = torch.randn(10, 14, generator=torch.Generator().manual_seed(0))
    folder = write_stack(tmp_path / name, (0.0 if name == "zeros" else 1.0) * W_OI.expand(experts, 10, 14))
    out = tmp_path / "out"
    result = command("spectra", "--model", str(folder), "--projections", "gate", "--out", str(out), "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    rows = list(csv.DictReader((out / "tables" / "spectra.csv").open()))
    assert [row["mode"] for row in rows if row["alpha"]] == fitted
    assert {row["status"] for row in rows if not row["alpha"]} == {"insufficient_points"}
    assert "insufficient points" in result.stdout
    assert "insufficient points" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, [1, 2, 3, 5]), ("2", [2]), ("5,1", [1, 5]), ("1-3", [1, 2, 3]), (" 1 - 2 , 2,5 ", [1, 2, 5])],
)
def test_layers(text: str | None, expected: list[int]) -> None:
    assert parse.layers(text, [1, 2, 3, 5]) == expected


@pytest.mark.parametrize("text", ["", ",", "x", "3-1", "-1", "1,,2", "4", "1-5", "1.5", "9999999"])
def test_layers_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"layers"):
        parse.layers(text, [1, 2, 3, 5])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GB", 4 * 10**9), ("4gib", 4 * 2**30), ("1.5 MB", 1_500_000), ("123", 123), ("7b", 7), ("2TiB", 2**41)],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse.size("--memory", text) == expected


@pytest.mark.parametrize("text", ["", "GB", "0", "-4GB", "4XB", "4 G B", "1e9", "nan"])
def test_sizes_refused(text: str) -> None:
    with pytest.raises(InputError, match="memory"):
        parse.size("--memory", text)


@pytest.mark.parametrize(("text", "expected"), [("0:1", (0, 1)), ("0.1:0.9", (0.1, 0.9)), (" .5 : 1.0 ", (0.5, 1))])
def test_ranges(text: str, expected: tuple[float, float]) -> None:
    assert parse.fraction_range("--fit-range", text) == expected


@pytest.mark.parametrize("text", ["", "0.9:0.1", "0.5:0.5", "0:1.1", "-0.1:1", "1", "a:b", "0:1:2"])
def test_ranges_refused(text: str) -> None:
    with pytest.raises(InputError, match="fit-range"):
        parse.fraction_range("--fit-range", text)


def test_spans_are_the_inverse_of_layers() -> None:
    numbers = [0, 1, 2, 5, 7, 8]
    assert parse.spans(numbers) == "0-2,5,7-8"
    assert parse.layers(parse.spans(numbers), range(10)) == numbers
