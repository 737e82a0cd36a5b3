"""The command `injection` on `mini`: what it measures against a loss computed by hand, resuming, and wrong input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import Result, refuses
from tiny import single_thread

from diag.inputs.texts import load_text
from diag.models.model import resolve
from diag.pages import figures_for, render

FEW = ("--tokens", 128, "--window", 64, "--layers", "1,2", "--projections", "up,down", "--device", "cpu", "--quiet")
ASKED = ("--families", "rank_one,flat,along", "--seeds", 2, "--sizes", "0.5", "--methods", "rtn:bits=2", *FEW)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def rows_of(out: Path, table: str = "injection") -> list[dict[str, str]]:
    return list(csv.DictReader((out / "tables" / f"{table}.csv").open()))


@pytest.fixture(scope="module")
def printed(statistics: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run, and what it printed."""
    out = tmp_path_factory.mktemp("injection") / "out"
    asked = ("injection", "--model", "mini", "--statistics", statistics, "--out", out, *ASKED)
    done = subprocess.run(
        [sys.executable, "-m", "diag.cli.app", *map(str, asked)], check=True, capture_output=True, text=True
    )
    return out, done.stdout


@pytest.fixture
def out(printed: tuple[Path, str]) -> Path:
    return printed[0]


def test_rows_page_and_resume(printed: tuple[Path, str], tool: Callable[..., Result], statistics: Path) -> None:
    out, said = printed
    assert "functional error" in said and str(out / "report.html") in said
    assert "of compressed models attribution measures it" in " ".join(said.split())
    rows = rows_of(out)
    drawn = [row for row in rows if row["seed"]]
    assert len(drawn) == 2 * 3 * 2 * 2 and len(rows) == len(drawn) + 2 * 2
    for row in rows:
        held = {"frobenius": "weight_error", "operator": "operator_error"}[row["design"]]
        assert float(row[held]) == pytest.approx(float(row["size"]), rel=1e-9)
        assert row["status"] == "ok" and float(row["functional_error_expert"]) > 0
        assert (row["scope"], row["layer"]) in {("all", ""), ("one", "2")} and row["projection"] == "up,down"
        assert (row["loss_change_odd"] == "") == (row["seed"] == "") and row["tokens"] == "128"
    assert len({row["loss_change"] for row in rows}) == len(rows)
    chosen = [row for row in drawn if row["layer"] and row["design"] == "frobenius"]
    errors = {(row["family"], row["seed"]): float(row["functional_error"]) for row in chosen}
    assert errors["along", "0"] > 1.1 * errors["flat", "0"]
    contrasts = rows_of(out, "injection_contrasts")
    assert {row["statistic"] for row in contrasts} == {
        *("spearman", "exponent", "r2_difference", "within", "joint", "ratio", "excess"),
    }
    assert all(row["value"] or row["status"] != "ok" for row in contrasts)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert (
        "Variance of the log of the added loss that a power of one error explains, up, down of all layers" in page
        and (out / "figures" / "injection-pairs.svg").is_file()
    )

    before = {path.name: path.read_bytes() for path in (out / "tables").iterdir()}
    kept = {path: path.stat().st_mtime_ns for path in (out / "results").glob("*flat*")}
    gone = next((out / "results").glob("injection-all*rank-one-1.json"))
    gone.unlink()
    result = tool("injection", "--model", "mini", "--statistics", statistics, "--out", out, *ASKED)
    assert result.code == 0 and gone.is_file()
    assert {path.name: path.read_bytes() for path in (out / "tables").iterdir()} == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_methods_response_is_the_loss_of_its_rescaled_residual(out: Path) -> None:
    """rtn with 2 bits in groups of 128, by hand, in a model loaded by transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = resolve("mini").folder
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids_WT = torch.tensor(tokenizer(load_text("c4-eval"))["input_ids"][:128]).view(2, 64)

    def loss() -> torch.Tensor:
        with torch.no_grad():
            logits = model(ids_WT).logits
        losses = [torch.nn.functional.cross_entropy(x[:-1], y[1:]) for x, y in zip(logits, ids_WT, strict=True)]
        return torch.stack(losses).double()

    before = loss()
    experts = model.model.layers[2].mlp.experts
    for W_EOI in (experts.gate_up_proj.data[:, 80:], experts.down_proj.data):  # up, down
        padded = torch.nn.functional.pad(W_EOI, (0, -W_EOI.shape[2] % 128)).unflatten(2, (-1, 128))
        scale = padded.abs().amax(3, keepdim=True).bfloat16().float()
        rounded = (padded / scale).round().clamp(-1, 1) * scale
        E = rounded.flatten(2)[..., : W_EOI.shape[2]] - W_EOI
        W_EOI += 0.5 * W_EOI.norm(dim=(1, 2), keepdim=True) / E.norm(dim=(1, 2), keepdim=True) * E
    change = loss() - before
    asked = {"design": "frobenius", "scope": "one", "size": "0.5", "seed": ""}
    [row] = [row for row in rows_of(out) if all(row[key] == value for key, value in asked.items())]
    assert float(row["loss_change"]) == pytest.approx(float(change.mean()), abs=2e-5)
    assert float(row["loss_change_stderr"]) == pytest.approx(float(change.std() / 2**0.5), abs=2e-5)
    assert float(row["loss_dense"]) == pytest.approx(float(before.mean()), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sizes", "0"), "--sizes 0: '0' is no positive number"),
        (("--sizes", "0.1,x"), "--sizes 0.1,x: 'x' is no positive number"),
        (("--families", "flat,round"), "--families flat,round: 'round' is none of isotropic, flat"),
        (("--designs", "nuclear"), "--designs nuclear: 'nuclear' is none of frobenius, operator, functional"),
        (("--scopes", "all", "--alone", "1"), "--alone 1: says which layers scope one takes"),
        (("--alone", "7"), "layer 7 is not a Mixture-of-Experts layer"),
        (("--methods", "tdmoe:gate_up=joint"), "each is measured by itself; give it without gate_up"),
        (("--ratio", "1.5"), "--ratio 1.5: '1.5' is no fraction"),
        (("--text", "c4-calibration"), "--text c4-calibration: is what the statistics are from"),
        (("--tokens", "8"), "--tokens 8: a window takes 256 tokens"),
        (("--statistics", "nowhere"), "--statistics nowhere: is no run folder"),
        (("--statistics", "nowhere", "--per-expert", "none"), "--statistics nowhere: were collected already"),
    ],
)
def test_wrong_input_is_refused_before_any_work(
    tool: Callable[..., Result], tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    refuses(tool("injection", "--model", "mini", "--out", out, *options), message, out)


def test_a_plan_runs_nothing(tool: Callable[..., Result]) -> None:
    result = tool("injection", "--model", "mini", "--dry-run", "--apart", "--alone", "0,3")
    assert result.code == 0 and "12 sites, 18 residuals, 2 designs, 2 sizes: 864 runs" in result.out
    assert not any(Path.cwd().iterdir())


def test_a_damaged_run_says_so_on_the_page_and_hostile_names_stay_text(out: Path) -> None:
    manifest = json.loads((out / "run.json").read_text(encoding="utf-8"))
    tables: dict[str, list[Any]] = {"injection": [], "injection_contrasts": []}
    for job in manifest["jobs"]:
        result = json.loads((out / "results" / f"{job['key']}.json").read_text(encoding="utf-8"))
        for table, rows in result["tables"].items():
            tables[table] += rows
    run = {**manifest, "model": "<b>x</b>", "tables": tables, "arrays": {}}
    for row in tables["injection"] + tables["injection_contrasts"]:
        for key in ("family", "families"):
            if str(row.get(key)).startswith("rtn"):
                row[key] = "<script>rtn"
    page = render([run], [figures_for(run)])
    assert page == render([run], [figures_for(run)]) and page.count("<script") == 1 and "<b>" not in page
    tables["injection_contrasts"].clear()
    assert "nothing of this run has a result yet" in render([run], [figures_for(run)])
    tables["injection"].clear()
    assert figures_for(run) == [] and "nothing of this run has a result yet" in render([run], [[]])
