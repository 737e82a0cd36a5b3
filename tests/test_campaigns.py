"""A slice of every campaign, and campaigns on faults planted in the product, which they have to find."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import command, forks

pytestmark = pytest.mark.skipif(not forks, reason="campaigns fork their cases")

START = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from campaigns.__main__ import main
"""

# Cases with the faults that they are to find again where the product has one; enough of each to draw every command
SLICES = {"kills": "0-3", "checkpoints": "0-23", "running": "0-7", "folders": "0-7", "hubs": "0-5"}

PLANTED = {
    # a save that is not atomic: a part of it stands in its place when the process dies
    "kills": (
        """
import tdmoe.atomic
def write_pieces(path, pieces):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
tdmoe.atomic.write_pieces = write_pieces
""",
        "dead end|measured twice|result lost|wrong number|other weights",
    ),
    # a reader that fills up what a cut file lacks
    "checkpoints": (
        """
import tdmoe.files
""",
        "silent wrong number",
    ),
}


def campaign(tmp_path: Path, *arguments: str, planted: str = "") -> tuple[int, str, list[dict[str, object]]]:
    failures = tmp_path / "failures.jsonl"
    result = command(
        *(*arguments, "--jobs", "1", "--failures", str(failures)),
        code=f"{START}{planted}\nsys.exit(main(sys.argv[1:]))",
        cwd=tmp_path,
    )
    found = [json.loads(line) for line in failures.read_text().splitlines()] if failures.exists() else []
    return result.returncode, result.stdout + result.stderr, found


@pytest.mark.parametrize("name", SLICES)
def test_nothing_is_found_in_a_slice(name: str, tmp_path: Path) -> None:
    code, said, found = campaign(tmp_path, "--only", name, "--case", SLICES[name])
    assert code == 0, said
    assert not found
