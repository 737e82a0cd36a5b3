"""Factors put into a loaded model, layer by layer, against the compressed checkpoint that `compress` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import Result

import tdmoe.hub  # noqa: F401
from diag.compression.calibrating import Settings
from diag.compression.execution import make_factors
from diag.compression.factors import Factors, Recipe, Source, recipes
from diag.declare.forms import RATIOS, specs
from diag.lockstep.walk import Walk
from diag.models.open_model import OpenModel
from tdmoe.problems import InputError

CALIBRATION = Settings("c4-calibration", 2048, 512)
CASES = ("tdmoe:gate_up=joint", "rtn:bits=3", "d2_moe", "mobe:steps=3", "svd_llm:moments=expert")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tdmoe", ["tdmoe"]),
        ("tdmoe:whitening=none,allocation=published,mobe", ["tdmoe:whitening=none,allocation=published", "mobe"]),
        ("rtn:bits=4,group=128, rtn:bits=3 ,svd", ["rtn:bits=4,group=128", "rtn:bits=3", "svd"]),
    ],
)
def test_lists_of_specs(text: str, expected: list[str]) -> None:
    assert list(specs(text)) == expected


def test_every_method_at_every_ratio_and_those_of_fixed_storage_once() -> None:
    found = recipes(("svd", "rtn:bits=3", "tdmoe"), (0.2, 0.4))
    expected = [("svd", 0.2), ("svd", 0.4), ("rtn:bits=3", None), ("tdmoe", 0.2), ("tdmoe", 0.4)]
    assert [(recipe.method, recipe.ratio) for recipe in found] == expected


@pytest.mark.parametrize(
    ("methods", "ratios", "message"),
    [
        ("tdmo", "0.2", "method tdmo: is no method"),
        ("tdmoe", "0.2,1.5", "ratios 0.2,1.5: '1.5' is no fraction between 0 and 1"),
        ("tdmoe", "", "ratios : '' is no fraction"),
        ("tdmoe:nonsense=1", "0.2", "nonsense"),
    ],
)
def test_wrong_lists(methods: str, ratios: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        recipes(specs(methods), RATIOS.read("ratios", ratios))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Factors], Any]:
    """Of layers 1 and 3, and the loaded model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("made"))
        with OpenModel("mini", "cpu") as opened:
            source = Source(opened, "mini", [1, 3], "gate,up", CALIBRATION)
            asked = [Recipe(r.method, r.ratio) for r in recipes(list(CASES), (0.4,))]
            found = make_factors(asked, source, quiet=True)
            again = make_factors(asked, source, quiet=True)
            assert [f.rows for f in again] == [f.rows for f in found]  # seconds too: nothing was made twice
            model = opened.load("float32")
            for factors in found:
                object.__setattr__(factors, "folder", factors.folder.absolute())
            return {factors.recipe.method: factors for factors in found}, model


@pytest.mark.parametrize("method", CASES)
def test_a_model_with_factors_put_in_is_the_compressed_checkpoint(
    made: tuple[dict[str, Factors], Any], tool: Callable[..., Result], tmp_path: Path, method: str
) -> None:
    from transformers import AutoModelForCausalLM

    found, model = made
    factors = found[method]
    walk = Walk(model)
    ids_BT = torch.randint(3, 4000, (2, 40), generator=torch.Generator().manual_seed(1))
    before = model(ids_BT, use_cache=False).logits
    for layers in ("1,3", "3") if method == CASES[0] else ("1,3",):
        ratio = () if factors.recipe.ratio is None else ("--ratio", factors.recipe.ratio)
        result = tool(
            *("compress", "--model", "mini", "--method", method, *ratio, "--to", tmp_path / f"to-{layers}", "--quiet"),
            *("--layers", layers, "--projections", "gate,up", "--tokens", 2048, "--window", 512, "--device", "cpu"),
        )
        assert result.code == 0, result.err
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / f"to-{layers}", dtype=torch.float32)
        expected = loaded(ids_BT, use_cache=False).logits
        chosen = [int(layer) for layer in layers.split(",")]
        modules = {layer: factors.module(walk.experts[layer], layer) for layer in chosen}
        with walk.replaced(modules):
            torch.testing.assert_close(model(ids_BT, use_cache=False).logits, expected, rtol=0, atol=1e-4)
        assert not torch.allclose(before, expected, atol=1e-2)
        saved = json.loads((tmp_path / f"to-{layers}" / "tdmoe.json").read_text())["bits_saved"]
        assert factors.bits_saved(chosen) == pytest.approx(saved, abs=1e-12)
    assert torch.equal(model(ids_BT, use_cache=False).logits, before)


def test_layers_without_factors_are_named(made: tuple[dict[str, Factors], Any]) -> None:
    with pytest.raises(InputError, match="layer 2: has no factors of d2_moe at 0.4; they were made for 1,3"):
        made[0]["d2_moe"].bits_saved([1, 2])
