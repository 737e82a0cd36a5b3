"""--model: built-in name, folder, hub id in the local cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planted import write_stack

from diag.models.catalog import HUB_IDS
from diag.models.model import resolve
from tdmoe.problems import InputError
from tdmoe.stacks.families import FAMILIES


def hub_cache(root: Path, hub_id: str, commit: str = "0123456789abcdef0123456789abcdef01234567") -> Path:
    """A cache as huggingface_hub lays it out: refs/main, and a snapshot of symlinks into blobs."""
    repo = root / f"models--{hub_id.replace('/', '--')}"
    snapshot = write_stack(repo / "snapshots" / commit, torch.randn(4, 6, 8), torch.bfloat16)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "blobs").mkdir()
    for i, file in enumerate(sorted(snapshot.iterdir())):
        blob = repo / "blobs" / f"{i:064x}"
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def test_the_built_in_model_is_a_folder_of_the_package() -> None:
    model = resolve("mini")
    assert model.name == "mini"
    assert (model.folder / "config.json").is_file()


def test_a_folder_is_shown_by_its_last_component(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "My-MoE", torch.randn(4, 6, 8))
    assert resolve(str(folder)).name == "My-MoE"


def test_a_cached_hub_id_runs_through_symlinks(tmp_path: Path) -> None:
    hub_cache(tmp_path / "hub", "acme/Tiny-MoE")
    result = subprocess.run(
        [sys.executable, "-m", "diag.cli.app", "spectra", "--model", "acme/Tiny-MoE", "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr
    assert "Tiny-MoE" in result.stdout
    assert (tmp_path / "out" / "tables" / "spectra.csv").read_text().count("\n") == 10


def test_a_snapshot_of_the_cache_is_its_model(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path / "hub", "acme/Tiny-MoE")
    for folder in (snapshot, snapshot.parent.parent):
        model = resolve(str(folder))
        assert (model.name, model.files().commit, model.folder) == ("Tiny-MoE", snapshot.name, snapshot.resolve())
    (snapshot.parent.parent / "refs" / "main").unlink()
    assert resolve(str(snapshot.parent.parent)).folder == snapshot.resolve()
    (snapshot.parent / ("b" * 40)).mkdir()
    with pytest.raises(InputError, match=r"which of its snapshots \(0123.*, b+\)\? give snapshots/COMMIT"):
        resolve(str(snapshot.parent.parent))


def test_a_hub_id_that_is_not_cached_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="not in the local Hugging Face cache .*fetch it where there is a network: hf"):
        resolve("acme/absent-model").files()


def test_a_folder_wins_over_a_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("Qwen3-30B-A3B").repo == "Qwen/Qwen3-30B-A3B"
    write_stack(tmp_path / "Qwen3-30B-A3B", torch.randn(4, 6, 8))
    assert resolve("Qwen3-30B-A3B").folder is not None


@pytest.mark.parametrize(("name", "hub_id"), HUB_IDS.items())
def test_bare_names_are_hub_ids_without_their_owner(name: str, hub_id: str) -> None:
    model = resolve(name)
    assert model.name == name == hub_id.split("/")[1] and model.repo == hub_id


def test_anything_else_lists_what_would_do() -> None:
    with pytest.raises(
        InputError, match="neither a built-in model .mini., nor a folder, nor a known name .*nor a hub id"
    ):
        resolve("no such thing")


MODEL_TYPES = {  # as in their config.json
    **dict.fromkeys(("Qwen3-30B-A3B", "Qwen3-30B-A3B-Base", "Qwen3-30B-A3B-Instruct-2507"), "qwen3_moe"),
    **dict.fromkeys(("Qwen3-235B-A22B", "Qwen3-Coder-30B-A3B-Instruct"), "qwen3_moe"),
    **{"Qwen3-Next-80B-A3B-Instruct": "qwen3_next", "Qwen3-VL-30B-A3B-Instruct": "qwen3_vl_moe"},
    **dict.fromkeys(("Qwen1.5-MoE-A2.7B", "Qwen2-57B-A14B"), "qwen2_moe"),
    **dict.fromkeys(("Mixtral-8x7B-v0.1", "Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x22B-v0.1"), "mixtral"),
    **dict.fromkeys(("gpt-oss-20b", "gpt-oss-120b"), "gpt_oss"),
    **dict.fromkeys(("OLMoE-1B-7B-0924", "OLMoE-1B-7B-0125"), "olmoe"),
    **{"deepseek-moe-16b-base": "deepseek", "DeepSeek-V2-Lite": "deepseek_v2", "DeepSeek-V2": "deepseek_v2"},
    **dict.fromkeys(("DeepSeek-V3", "DeepSeek-V3-0324", "DeepSeek-R1", "Moonlight-16B-A3B"), "deepseek_v3"),
    **{"Kimi-K2-Instruct": "kimi_k2", "GLM-4.5-Air": "glm4_moe", "GLM-4.5": "glm4_moe"},
    **{"Phi-3.5-MoE-instruct": "phimoe", "granite-3.1-3b-a800m-base": "granitemoe"},
    **{"Llama-4-Scout-17B-16E": "llama4", "Ling-lite": "bailing_moe", "ERNIE-4.5-21B-A3B-PT": "ernie4_5_moe"},
    **{"dots.llm1.base": "dots1", "Hunyuan-A13B-Instruct": "hunyuan_v1_moe", "MiniMax-M2": "minimax_m2"},
}


def test_every_known_name_is_of_a_family_that_is_read() -> None:
    supported = {t for family in FAMILIES for t in family.model_types}
    assert MODEL_TYPES.keys() == HUB_IDS.keys()
    assert set(MODEL_TYPES.values()) <= supported
