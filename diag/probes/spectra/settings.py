"""Settings of `spectra`."""

from __future__ import annotations

from dataclasses import dataclass

from diag.declare.defaults import MEMORY_BYTES
from diag.declare.forms import RANGE
from diag.declare.probe import StackSettings
from diag.declare.setting import derived, setting
from diag.declare.target import OF_STACKS


@dataclass(frozen=True)
class Settings(StackSettings):
    """Power-law exponents of the three mode unfoldings (expert, output, input) of every expert stack."""

    TARGET = (*OF_STACKS, "remote")
    ORDER = 10
    LAYERS = "asked"
    fit_range: tuple[float, float] = setting(
        (0.0, 1.0), "fraction of the indices to fit, above the noise floor", form=RANGE
    )
    jackknife: int = setting(0, "groups of experts to leave out in turn; 0 for none", least=0)
    memory: int = derived(MEMORY_BYTES, identity=False)  # moves the last digits only
