"""Settings of `experts`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from diag.declare.defaults import MEMORY_BYTES
from diag.declare.forms import RATIOS
from diag.declare.probe import StackSettings
from diag.declare.setting import derived, setting
from diag.declare.target import OF_STACKS


@dataclass(frozen=True)
class Settings(StackSettings):
    """Expert mode: preserve against compress at equal storage, published and exact ranks; similarity of experts."""

    TARGET = (*OF_STACKS, "remote")
    ORDER = 40
    ratios: tuple[float, ...] = setting(
        None, "fractions of the parameters to remove", form=RATIOS, inherited=True, alone=(0.2, 0.4)
    )
    statistics: Path | None = setting(
        None, "run folder of calibrate: adds errors and CKA on its inputs", identity=False, shared=True
    )
    whitening: Literal["none", "input"] = setting(
        None, "metric of the decomposition (default: input where there are statistics)", choices=("none", "input")
    )
    jackknife: int = setting(8, "groups of experts to leave out in turn, for intervals; 0 for none", least=0)
    directions: float = setting(0.1, "share of an expert's directions that counts as leading")
    draws: int = setting(8, "draws of independent experts, as a baseline", least=1)
    moments: str | None = derived(None)  # digest of what the statistics hold
    memory: int = derived(MEMORY_BYTES, identity=False)

    def settled(self, memory: int) -> Self:
        """The metric is that of the inputs where they are known; statistics by what they hold."""
        from diag.compression.calibrated import saved_moments

        found = super().settled(memory)
        if found.statistics is None:
            return replace(found, whitening=found.whitening or "none")
        return replace(found, whitening=found.whitening or "input", moments=saved_moments(found.statistics))

    def within(self, said: dict[str, Any]) -> Self:
        """A part that is checked before there are statistics has no metric."""
        found = super().within(said)
        return found if found.statistics is not None else replace(found, whitening="none")
