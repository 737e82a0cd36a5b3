"""Settings of `operator`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from diag.declare.defaults import MEMORY_BYTES
from diag.declare.forms import RATIOS, SPECS
from diag.declare.probe import StackSettings
from diag.declare.setting import derived, setting
from diag.declare.target import OF_STACKS

METHODS = (
    "tdmoe:whitening=none,allocation=published,decomposition=hosvd",
    "tdmoe:whitening=none",
    "rtn:bits=4",
)


@dataclass(frozen=True)
class Settings(StackSettings):
    """Operator against Frobenius error of truncations and methods over rank and storage, with the paper's bound."""

    TARGET = OF_STACKS
    ORDER = 20
    ranks: tuple[float, ...] = setting(
        (0.125, 0.25, 0.5, 0.75), "ranks of truncations, as fractions of each mode", form=RATIOS
    )
    methods: tuple[str, ...] = setting(
        None, "methods at equal storage: specs as `compress --method` takes them", form=SPECS, inherited=True,
        alone=METHODS,
    )  # fmt: skip
    ratios: tuple[float, ...] = setting(
        None, "fractions of the parameters that methods remove", form=RATIOS, inherited=True, alone=(0.2, 0.4, 0.6)
    )
    statistics: Path | None = setting(
        None, "run folder of calibrate, for functional errors and whitening", identity=False, shared=True
    )
    per_expert: bool = setting(False, "a row for every expert too")
    moments: str | None = derived(None)  # digest of what the statistics hold
    promised: bool = derived(False, identity=False)  # statistics will be there when it runs
    memory: int = derived(MEMORY_BYTES, identity=False)

    def within(self, said: dict[str, Any]) -> Self:
        """Methods of the experiment that join stacks or share a budget are left out: here every stack is by itself."""
        from diag.compression.single_stacks import by_themselves

        return replace(
            super().within(said | {"methods": tuple(by_themselves(said["methods"]))}), promised=said["promised"]
        )

    def settled(self, memory: int) -> Self:
        """Methods in their canonical form, statistics by what they hold."""
        from diag.compression.calibrated import saved_moments
        from diag.compression.single_stacks import canonical

        specs = tuple(dict.fromkeys(canonical(text) for text in self.methods))
        moments = None if self.statistics is None else saved_moments(self.statistics)
        return replace(super().settled(memory), methods=specs, moments=moments)

    def of(self, key: str) -> dict[str, Any]:
        """Versions of methods of one's own."""
        from tdmoe import methods

        return {"methods": versions} if (versions := methods.versions(self.methods)) else {}
