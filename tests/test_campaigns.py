"""A slice of every campaign, and the campaigns on faults that are planted in the product: they have to be found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import command, forks

pytestmark = pytest.mark.skipif(not forks, reason="campaigns fork their cases")

START = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from campaigns.__main__ import CAMPAIGNS
from campaigns.frame import run
"""
ANSWER = """
import json
cases = json.loads(sys.argv[1])
judged = run(CAMPAIGNS, seed=0, seconds=1000, jobs=1, cases=cases)
print(json.dumps([[each.campaign, each.case, each.faults] for each in judged]))
"""


class Slice(NamedTuple):
    """`cases` are right in the product as it is; `found` of them are not once the `planted` fault is in it."""

    cases: str
    planted: str
    found: str
    kind: str


SLICES = {
    "kills": Slice(
        "0,259",
        """
import tdmoe.checkpoint.atomic
def write_pieces(path, pieces):  # a file that stands in its place before it is whole
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
tdmoe.checkpoint.atomic.write_pieces = write_pieces
""",
        "259",
        "dead end",
    ),
    "checkpoints": Slice(
        "0,1,2,3,4,5,144",
        """
import contextlib, tdmoe.checkpoint.safetensors_header
from tdmoe.checkpoint.files import LocalFiles
read = LocalFiles.read
def lenient(self, file, offset, buffer):  # what a cut file lacks is zero
    with contextlib.suppress(EOFError):
        read(self, file, offset, buffer)
LocalFiles.read = lenient
tdmoe.checkpoint.safetensors_header._check_layout = lambda *_: None
""",
        "144",
        "silent wrong number",
    ),
    "running": Slice(
        "3,4,30",
        """
import diag.inputs.windows
tokenised = diag.inputs.windows.tokenised  # letters that the tokenizer does not know are left out, without a word
diag.inputs.windows.tokenised = lambda *given, **named: [token for token in tokenised(*given, **named) if token]
""",
        "30",
        "silent wrong number",
    ),
    "folders": Slice(
        "0,4,13",
        """
import json, diag.runs.results
# as it lies there
diag.runs.results.read = lambda run, key, columns=None: json.loads(diag.runs.results.path(run, key).read_text())
""",
        "0",
        "silent wrong number",
    ),
    "hubs": Slice(
        "0,77",
        "\nimport diag.models.remote as remote\nremote._check = lambda *_: None  # whatever came is what was asked for",
        "77",
        "silent wrong number",
    ),
}


def faults(folder: Path, cases: dict[str, str], planted: str = "") -> dict[str, dict[int, list[str]]]:
    """{campaign: {case: its faults, each with what was said}}; all in one process, which imports everything once."""
    wanted = {name: [int(case) for case in of_it.split(",")] for name, of_it in cases.items()}
    ended = command(json.dumps(wanted), code=START + planted + ANSWER, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, dict[int, list[str]]] = {}
    for name, case, wrong in json.loads(ended.stdout.splitlines()[-1]):
        found.setdefault(name, {})[case] = [": ".join(fault) for fault in wrong]
    assert {name: list(of_it) for name, of_it in found.items()} == wanted
    return found


def test_a_slice_of_each_finds_nothing(tmp_path: Path) -> None:
    found = faults(tmp_path, {name: of_it.cases for name, of_it in SLICES.items()})
    assert not {(name, case, said) for name, of_it in found.items() for case, wrong in of_it.items() for said in wrong}


def test_planted_faults_are_found(tmp_path: Path) -> None:
    planted = "".join(of_it.planted for of_it in SLICES.values())
    found = faults(tmp_path, {name: of_it.found for name, of_it in SLICES.items()}, planted)
    for name, of_it in SLICES.items():
        for case, wrong in found[name].items():
            assert any(said.startswith(of_it.kind) for said in wrong), f"{name} {case}: {wrong}"
