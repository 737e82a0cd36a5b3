"""Settings of `attribution`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from diag.declare.model_settings import Calibrated
from diag.declare.setting import Settings as Base
from diag.declare.setting import setting
from diag.declare.target import DTYPES, OF_MODELS


@dataclass(frozen=True, kw_only=True)
class Settings(Calibrated, Base):
    """Share of TD-MoE's gap to MoBE that each change to TD-MoE closes, at matched stored bits."""

    TARGET = OF_MODELS
    ORDER = 70
    ratio: float | None = setting(None, "fraction of the experts' parameters to remove", inherited=True, alone=0.4)
    ladder: str = setting("full", "steps: full, or quick (the cheap ones)")
    shapley: str | None = setting(None, "all, none, or how many orders to draw (default: all with the full ladder)")
    mobe_steps: int = setting(3000, "steps of the published training of MoBE")
    fit_steps: int | None = setting(None, "steps of MoBE's own fit (default: what its spec says, 600)", least=0)
    text: str = setting("wikitext2", "held-out text: a built-in one or a UTF-8 file")
    windows: int = setting(64, "first windows of the text; 0 for the whole", least=0)
    window: int | None = setting(None, "tokens the model sees at once (default: 2048, or its positions)")
    dtype: str = setting("float32", "dtype that the models run in (auto: their own)", choices=DTYPES)

    def specs(self, projections: str) -> list[str]:
        """The neediest of its steps."""
        from diag.probes.attribution.switches import method, switches

        return [method(switches(projections.split(","), 1), 1)]

    def within(self, said: dict[str, Any]) -> Self:
        """The settings of a part, at the largest ratio of the experiment."""
        return super().within(said | {"ratio": max(said["ratios"])})
