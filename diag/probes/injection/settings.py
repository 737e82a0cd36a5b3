"""Settings of `injection`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from diag.declare.forms import SIZES, SPECS
from diag.declare.model_settings import Calibrated
from diag.declare.setting import Settings as Base
from diag.declare.setting import setting
from diag.declare.target import OF_MODELS


@dataclass(frozen=True, kw_only=True)
class Settings(Calibrated, Base):
    """Errors that predict the damage: residuals of prescribed norms put into the model, and what the loss does."""

    TARGET = OF_MODELS
    ORDER = 80
    designs: str = setting("frobenius,operator", "norm held equal: any of frobenius,operator,functional")
    families: str = setting("isotropic,flat,rank_one,along,against", "any of isotropic,flat,rank_one,along,against")
    methods: tuple[str, ...] = setting(
        ("tdmoe", "svd_llm", "rtn"), "specs whose residuals are injected too, rescaled; empty for none", form=SPECS
    )
    ratio: float = setting(0.4, "fraction of the parameters that methods remove")
    sizes: tuple[float, ...] = setting((0.1, 0.3), "sizes of residuals over weights, in the design's norm", form=SIZES)
    seeds: int = setting(3, "draws of every family", least=1)
    scopes: str = setting("all,one", "all layers together, one layer, or both")
    alone: str | None = setting(None, "layers that scope one takes, one by one (default: the middle one)")
    apart: bool = setting(False, "inject every projection by itself too")
    text: str = setting("c4-eval", "held-out text: a built-in one or a UTF-8 file")
    tokens: int = setting(2048, "tokens of the text, in whole windows", least=1)
    window: int = setting(256, "tokens the model sees at once")
    statistics: Path | None = setting(None, "run folder of calibrate (default: calibrates by itself)", shared=True)
    per_expert: str = setting(
        "all", "a matrix for every expert's own inputs: of down, or of all three", choices=("none", "down", "all"),
        shared=True,
    )  # fmt: skip

    def within(self, said: dict[str, Any]) -> Self:
        """Calibrated together with the other parts."""
        return super().within(said | {"statistics": None})
