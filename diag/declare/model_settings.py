"""Settings of commands that measure compressed models: which, of which layers, calibrated on what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from diag.declare.defaults import CALIBRATION_TEXT, CALIBRATION_TOKENS
from diag.declare.forms import NAMES, RATIOS, SPECS
from diag.declare.setting import Settings, setting
from diag.declare.target import OF_MODELS

SCHEDULE = "all nested layer sets from the middle outwards: middle-out:N, or -code:N"


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Settings of the calibration of methods."""

    calibration_text: str = setting(CALIBRATION_TEXT, "calibration text: a built-in one or a file", shared=True)
    calibration_tokens: int = setting(CALIBRATION_TOKENS, "tokens to calibrate methods on", least=1, shared=True)


@dataclass(frozen=True, kw_only=True)
class Compressed(Calibrated, Settings):
    """The compressed models that a command measures beside the dense one."""

    TARGET = OF_MODELS
    LAYERS = "asked"
    ALONE: ClassVar[tuple[str, ...]] = ()  # methods where none is named, nor a compressed checkpoint
    methods: tuple[str, ...] | None = setting(
        None, "specs, comma-separated, as tdmoe,mobe,rtn:bits=4", form=SPECS, inherited=True
    )
    ratios: tuple[float, ...] | None = setting(
        None, "fractions of the parameters to remove", form=RATIOS, inherited=True, alone=(0.4,)
    )
    schedule: str | None = setting(None, SCHEDULE, shared=True)
    compressed: tuple[str, ...] = setting(
        (), "folders of compressed checkpoints, comma-separated", form=NAMES, shared=True
    )

    def by_itself(self) -> Self:
        """The command's own methods where neither methods nor checkpoints are named."""
        return super().by_itself()._filled({"methods": () if self.compressed else self.ALONE})
