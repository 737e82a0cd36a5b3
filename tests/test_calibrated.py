"""What compressed models were calibrated on: said in the tables, and not done where no method needs it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from damage import Result
from test_superweights import SMALL, TEXT, write_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TOLD = ("--calibration-text", "b.txt", "--calibration-tokens", 200)
RUN = ("--methods", "svd_llm,rtn", "--layers", "2", "--projections", "down", "--window", 16)
COMMANDS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "quality": ("quality", (*TOLD, *RUN, "--texts", "a.txt", "--windows", 2)),
    "drift": ("drift", (*TOLD, *RUN, "--text", "a.txt", "--tokens", 32, "--scope", "all")),
    "superweights": (
        "recovery",
        (*SMALL, "--methods", "svd_llm,rtn", "--text", "b.txt", "--eval-text", "a.txt", "--tokens", 200),
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = zoo.save(
        zoo.build(zoo.FAMILIES["qwen3_moe"], torch.float32), tmp_path_factory.mktemp("m") / "m", fused=False
    )
    write_tokenizer(folder)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_row_says_text_and_tokens_where_its_method_needs_them(
    tool: Callable[..., Result], model: Path, command: str
) -> None:
    Path("a.txt").write_text(TEXT * 6)
    Path("b.txt").write_text(TEXT[::-1] * 6)
    table, asked = COMMANDS[command]
    result = tool(command, "--model", model, *asked, "--device", "cpu", "--out", "out", "--quiet")
    assert result.code == 0, result.err
    (calibrated,) = Path("runs").glob("*-calibrate-*/tables/calibration.csv")
    tokens = {row["tokens"] for row in rows_of(calibrated)}
    rows = rows_of(Path("out") / "tables" / f"{table}.csv")
    assert [column for column in rows[0] if column not in ("bits_saved_of", "variant")][-1] == "calibration"
    said = {
        (row["method"], row["calibration"]) for row in rows if row["method"].partition(":")[0] in ("svd_llm", "rtn")
    }
    assert said == {("svd_llm", f"b.txt, {tokens.pop()} tokens"), ("rtn", "")}
    assert not any(row["calibration"] for row in rows if row["method"] == "dense")


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_calibrated_where_no_method_needs_it(tool: Callable[..., Result], model: Path, command: str) -> None:
    Path("a.txt").write_text(TEXT * 6)
    Path("b.txt").write_text(TEXT[::-1] * 6)
    asked = [option if option != "svd_llm,rtn" else "svd,rtn" for option in COMMANDS[command][1]]
    result = tool(command, "--model", model, *asked, "--device", "cpu", "--out", "out", "--quiet")
    assert result.code == 0, result.err
    assert list(Path("runs").glob("*-factors-*")) and not list(Path("runs").glob("*-calibrate-*"))


def test_a_checkpoint_says_what_it_was_calibrated_on(tool: Callable[..., Result], model: Path) -> None:
    Path("a.txt").write_text(TEXT * 6)
    Path("b.txt").write_text(TEXT[::-1] * 6)
    how = ("--layers", "2", "--projections", "down", "--text", "b.txt", "--tokens", 200, "--quiet", "--device", "cpu")
    for method in ("svd_llm", "rtn"):
        assert tool("compress", "--model", model, "--method", method, *how, "--to", method).code == 0
    shared = ("--compressed", "svd_llm,rtn", "--window", 16, "--device", "cpu", "--quiet")
    for command, asked in (
        ("quality", ("--texts", "a.txt", "--windows", 2)),
        ("drift", ("--text", "a.txt", "--tokens", 32)),
    ):
        assert tool(command, "--model", model, *shared, *asked, "--out", command).code == 0
        said = {row["checkpoint"]: row["calibration"] for row in rows_of(Path(command) / "tables" / f"{command}.csv")}
        assert said["svd_llm"].startswith("b.txt, ") and said["svd_llm"].endswith(" tokens")
        assert (said["rtn"], said.get("", "")) == ("", "")


@pytest.mark.parametrize(("name", "dtype"), [("pico", "float32"), ("mini", "bfloat16")])
def test_the_protocol_says_what_auto_weights_are(
    tool: Callable[..., Result], model: Path, name: str, dtype: str
) -> None:
    Path("a.txt").write_text(TEXT * 6)
    asked = ("--texts", "a.txt", "--windows", 2, "--window", 16, "--device", "cpu", "--dry-run")
    result = tool("quality", "--model", model if name == "pico" else name, *asked)
    assert result.code == 0, result.err
    assert f"15 of each scored, no BOS, {dtype} weights" in " ".join(result.out.split())
