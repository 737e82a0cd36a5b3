"""Options that commands share: on which model, where, and with what they run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diag.declare import parse
from diag.declare.defaults import ALL_PROJECTIONS, MEMORY
from diag.declare.setting import derived, setting

LARGEST_SEED = 2**63 - 1  # of a whole number in TOML and in torch's generators
ENGINES = ("inline", "ray")
DTYPES = ("auto", "float32", "bfloat16")

OF_MODELS = ("layers", "projections", "device", "memory", "out", "seed", "revision", "fresh")
OF_STACKS = (*OF_MODELS, "engine")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Subject and circumstances of a command; not part of what it measures."""

    model: str = setting(..., "mini (built in), a checkpoint folder, a hub id, or a name that `models` lists")
    layers: str | None = setting(None, "layers with experts, as 0,12,24-30 (default: all)")
    projections: str = setting(ALL_PROJECTIONS, "any of gate,up,down")
    device: str = setting("auto", "auto, cpu, cuda or cuda:1")
    memory: str = setting(MEMORY, "most weights to hold in memory, as 4GB; what is larger is read in parts")
    out: Path | None = setting(None, "run folder (default: runs/MODEL-COMMAND-FINGERPRINT)")
    seed: int = setting(0, "seed of every random draw", least=0, most=LARGEST_SEED)
    revision: str | None = setting(None, "branch, tag or commit on the hub")
    remote: bool = setting(False, "read byte ranges of tensors straight from the hub, store nothing")
    engine: str = setting("inline", "place of jobs: one by one in this process, or on Ray", choices=ENGINES)
    fresh: bool = setting(False, "measure all again, instead of using results in the run folder")
    out_given: bool = derived(True)  # by --out, not by the experiment that the command is a part of
    command_line: str = derived("")

    @property
    def memory_bytes(self) -> int:
        """InputError where it is no size."""
        return parse.size("memory", self.memory)

    @property
    def run(self) -> dict[str, Any]:
        """Fields that requests of commands that run the whole model take of it."""
        names = ("model", "layers", "device", "out", "out_given", "seed", "fresh", "revision", "command_line")
        return {name: getattr(self, name) for name in names}
