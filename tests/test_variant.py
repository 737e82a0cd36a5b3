"""Ids of variants, and passes over windows that are stopped and go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from diag.lockstep import runner
from diag.lockstep.runner import Resumed
from diag.lockstep.variant import Recipe, Variant
from diag.runs.folder import Part

SPEC = Variant("tdmoe:whitening=none", 0.4, (1, 2, 5), "gate,up", "seen", 3, "1-5")
OTHERS = {
    **{"method": "tdmoe", "ratio": 0.41, "layers": (1, 2), "projections": "up", "calibration": "", "seed": 4},
    **{"source": "", "checkpoint": "tdmoe"},
}


def test_every_field_tells_variants_apart_and_the_id_is_stable() -> None:
    assert OTHERS.keys() == {field.name for field in fields(Variant)}
    ids = {replace(SPEC, **{name: value}).id for name, value in OTHERS.items()}
    assert len(ids | {SPEC.id}) == len(OTHERS) + 1
    assert SPEC.id == replace(SPEC).id and SPEC.id.startswith("tdmoe-0.4-") and len(SPEC.id) == len("tdmoe-0.4-") + 8
    assert Variant().id == "dense" and Variant("svd", None, (0,), "up").id.startswith("svd-")
    assert SPEC.labels == {"method": "tdmoe:whitening=none", "ratio": 0.4, "compressed_layers": "1-2,5"}


def test_factors_are_made_of_recipes_alone() -> None:
    assert SPEC.recipe == Recipe("tdmoe:whitening=none", 0.4)
    for without in (Variant(), Variant("cast:dtype=bfloat16"), replace(SPEC, checkpoint="folder")):
        assert without.recipe is None


@pytest.mark.parametrize("name", ["é", "A b/c.TXT", "x" * 300, "..", "tdmoe:core=1,phi=silu"])
def test_names_of_parts_are_those_of_files(name: str) -> None:
    parts = {Part("drift", replace(SPEC, checkpoint=name).part_name(word)).key for word in ("one", "all", "", "é")}
    assert len(parts) == 4


class Mean:
    """A sum of tokens that notes what it was given."""

    def __init__(self) -> None:
        self.total, self.seen = np.zeros(1), list[int]()

    def add(self, chunk_WT: Tensor, first: int) -> None:
        self.seen.append(first)
        if len(self.seen) == 3:
            raise KeyboardInterrupt
        self.total += float(chunk_WT.sum())

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return {"total": self.total}

    def restore(self, arrays: Mapping[str, NDArray[Any]], windows: int) -> None:
        self.total, self.seen = arrays["total"], [-windows] * 3


@pytest.mark.parametrize(
    ("identity", "fresh", "resumes"), [("same", False, True), ("other", False, False), ("same", True, False)]
)
def test_a_pass_goes_on_where_its_saved_sums_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: str, fresh: bool, resumes: bool
) -> None:
    windows_WT, told = torch.arange(77).view(11, 7), list[int]()
    monkeypatch.setattr(runner, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(runner, "SAVE_SPACING", 0.0)
    first = Mean()
    with pytest.raises(KeyboardInterrupt):
        Resumed(tmp_path, "same").run(windows_WT, first, first.add, chunk=2, on_resume=told.append)
    second = Mean()
    second.seen += [0] * 3
    Resumed(tmp_path, identity, fresh).run(windows_WT, second, second.add, chunk=2, on_resume=told.append)
    assert told == [0, 4 if resumes else 0]
    assert second.total == 77 * 76 / 2 and second.seen[3:] == ([4, 6, 8, 10] if resumes else [0, 2, 4, 6, 8, 10])
