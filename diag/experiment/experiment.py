"""Everything that one `compare` says, as data: model, ratios, methods, and which probes run with which settings.

A probe runs once for each of its settings, and not at all where there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diag.declare.defaults import ALL_PROJECTIONS, CALIBRATION_TEXT, CALIBRATION_TOKENS, MEMORY
from diag.declare.forms import RATIOS, SPECS
from diag.declare.probe import probes
from diag.declare.setting import Settings, setting
from diag.declare.target import ENGINES, LARGEST_SEED

Parts = Mapping[str, tuple[Settings, ...]]


@dataclass(frozen=True)
class Calibration:
    """Calibration of all methods, so that one calibration and one set of factors serve all parts."""

    text: str = setting(CALIBRATION_TEXT, "calibration text: a built-in one or a file")
    tokens: int = setting(CALIBRATION_TOKENS, "tokens to calibrate methods on", least=1)


@dataclass(frozen=True)
class Experiment:
    """`schedule` compresses nested sets of layers in `quality` and `drift`; other parts then take the largest set."""

    model: str | None = setting(None, "mini (built in), a checkpoint folder, a hub id, or a name that `models` lists")
    methods: tuple[str, ...] = setting(
        ("tdmoe", "mobe"), "specs, comma-separated, as tdmoe,mobe,rtn:bits=4", form=SPECS, least=1
    )
    ratios: tuple[float, ...] = setting((0.4,), "fractions of the parameters to remove", form=RATIOS, least=1)
    projections: str = setting(ALL_PROJECTIONS, "any of gate,up,down")
    layers: str | None = setting(None, "layers with experts, as 0,12,24-30 (default: all)")
    schedule: str | None = setting(None, "nested layer sets: middle-out:N, or middle-out-code:N")
    task_data: str | None = setting(None, "folder of TASK_val.jsonl.gz files, or hub; without it no tasks")
    device: str = setting("auto", "auto, cpu, cuda or cuda:1")
    memory: str = setting(MEMORY, "most weights to hold in memory, as 4GB")
    engine: str = setting("inline", "place of stacks' jobs: one by one in this process, or on Ray", choices=ENGINES)
    seed: int = setting(0, "seed of every random draw", least=0, most=LARGEST_SEED)
    revision: str | None = setting(None, "branch, tag or commit on the hub")
    calibration: Calibration = field(default_factory=Calibration)
    parts: Parts = field(default_factory=dict)


def parts(**said: Mapping[str, Any] | list[Mapping[str, Any]]) -> Parts:
    """Probes with what their settings differ in; a list of these for one that runs several times."""
    listed = {name: each if isinstance(each, list) else [each] for name, each in said.items()}
    known = probes()
    return {name: tuple(known[name].settings(**each) for each in listed[name]) for name in known if name in listed}
