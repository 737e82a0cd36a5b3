"""The notebooks run from a fresh kernel in an empty folder without a network, and say what their files say."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from notebooks.execute import clean, executed, notebooks

NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")
LARGEST = 300_000  # bytes of a file
MACHINE = re.compile(r"/(?:home|root|tmp|work|opt|usr|Users|private|var)/|[A-Z]:\\|\b0x[0-9a-f]{6,}")
EVERY = pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)


def said(found: NotebookNode) -> list[str]:
    """What the cells printed and showed, as text."""
    outputs = [output for cell in found.cells if cell.cell_type == "code" for output in cell.outputs]
    return [str(o.text if o.output_type == "stream" else o.data.get("text/plain", "")) for o in outputs]


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def test_there_are_some() -> None:
    assert len(notebooks()) == 5


@EVERY
def test_a_notebook_runs_and_says_what_its_file_says(path: Path) -> None:
    kept, found = said(nbformat.read(path, as_version=4)), said(executed(path))
    assert len(found) == len(kept)
    for now, before in zip(found, kept, strict=True):
        assert " ".join(NUMBER.sub("#", now).split()) == " ".join(NUMBER.sub("#", before).split())
        assert numbers(now) == pytest.approx(numbers(before), rel=0.02, abs=0.02)


@EVERY
def test_a_file_holds_its_outputs_and_nothing_of_the_machine(path: Path) -> None:
    found = nbformat.read(path, as_version=4)
    assert path.stat().st_size < LARGEST
    assert path.read_text(encoding="utf-8").strip() == nbformat.writes(clean(found)).strip()
    code = [cell for cell in found.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/png" in o.get("data", {}) for o in outputs)
    assert any("\nassert " in f"\n{cell.source}" for cell in code)
    shown = [*said(found), *(str(o.data.get("text/html", "")) for o in outputs if "data" in o)]
    assert not [text for text in shown if MACHINE.search(text)]


def run(path: Path, source: str) -> NotebookNode:
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    return executed(path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("assert 1 + 1 == 3, 'arithmetic'", "AssertionError: arithmetic"),
        ("import socket\nsocket.create_connection(('192.0.2.1', 80))", "192.0.2.1: notebooks run without a network"),
        (
            "import subprocess, sys\ncode = 'import socket; socket.create_connection((\"example.org\", 80))'\n"
            "done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
            "assert done.returncode == 0, done.stderr",
            "OSError: example.org: notebooks run without a network",
        ),
    ],
)
def test_a_cell_that_raises_is_a_failure(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError) as error:
        run(tmp_path / "wrong.ipynb", source)
    assert message in re.sub(r"\x1b\[[0-9;]*m", "", str(error.value))


def test_the_folder_is_empty_and_what_is_volatile_goes(tmp_path: Path) -> None:
    found = run(tmp_path / "good.ipynb", "import os\nprint(os.listdir())\nprint(2)")
    assert said(found) == ["[]\n2\n"] and found.cells[0].metadata == {}


def test_prints_are_put_together_in_order() -> None:
    pieces = [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")]
    cell = new_code_cell("x", outputs=[new_output("stream", name=name, text=text) for name, text in pieces])
    found = clean(new_notebook(cells=[cell], metadata={"language_info": {"name": "python", "version": "3.11.7"}}))
    assert [(o.name, o.text) for o in found.cells[0].outputs] == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]
    assert found.metadata.language_info == {"name": "python"}
