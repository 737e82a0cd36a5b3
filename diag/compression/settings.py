"""Settings of `calibrate` and `compress`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diag.declare.defaults import CALIBRATION_TEXT, CALIBRATION_TOKENS
from diag.declare.setting import Settings, setting

WINDOW = "tokens the model sees at once (default: 2048, or its positions)"
DEFAULT_RATIO = 0.4


@dataclass(frozen=True)
class Calibrate(Settings):
    """Second moments of what the experts are given, from routed tokens: the metric of activation-aware compression."""

    TARGET = ("layers", "device", "out", "revision", "fresh")
    text: str = setting(CALIBRATION_TEXT, "calibration text: a built-in one or a UTF-8 file")
    tokens: int = setting(CALIBRATION_TOKENS, "tokens of the text, in whole windows", least=1)
    window: int | None = setting(None, WINDOW)
    weighting: Literal["count", "gate_squared"] = setting(
        "count", "weight of a routed token: 1, or its routing weight squared", choices=("count", "gate_squared")
    )
    per_expert: Literal["none", "down", "all"] = setting(
        "none", "a matrix for every expert's own inputs: of down, or of all three", choices=("none", "down", "all")
    )
    outputs: bool = setting(False, "the loss' gradients at the outputs too, for whitening=output or both")


METHOD_OPTIONS = (  # of a spec that have flags of their own
    *("ratio_of", "whitening", "whitening_direction", "allocation", "expert_mode", "objective", "decomposition"),
    *("gate_up", "refit", "across"),
)


@dataclass(frozen=True)
class Compress(Settings):
    """A smaller checkpoint that transformers loads and runs in factor form, after `import tdmoe.hub`."""

    TARGET = ("layers", "projections", "device", "memory", "out", "seed", "revision", "engine", "fresh")
    to: Path = setting(..., "folder of the compressed checkpoint")
    method: str = setting(
        "tdmoe", "NAME[:key=value,...], as mobe, rtn:bits=4, tdmoe:allocation=published,whitening=none"
    )
    ratio: float | None = setting(None, "fraction of the parameters to remove (default: 0.4, or what the method fixes)")
    ratio_of: str | None = setting(None, "parameters that --ratio counts: targeted, model (default: targeted)")
    whitening: str | None = setting(None, "metric: none, input, output, both (default: input)")
    whitening_direction: str | None = setting(None, "correct, or inverse as in public code (default: correct)")
    allocation: str | None = setting(
        None, "ranks: exact, published, published_every, published_stored (default: exact)"
    )
    expert_mode: str | None = setting(None, "auto, preserve, compress (default: auto)")
    objective: str | None = setting(
        None, "error that exact ranks minimise: functional, weight, operator (default: functional)"
    )
    decomposition: str | None = setting(None, "hooi, hosvd, st_hosvd (default: hooi)")
    gate_up: str | None = setting(None, "apart, or joint: as one stack that shares its input factor (default: apart)")
    refit: str | None = setting(None, "none, or expert: the core again under each expert's own inputs (default: none)")
    across: str | None = setting(None, "budget of the stacks: uniform, global, activation (default: uniform)")
    frontier: bool = setting(False, "write every stack's Pareto frontier of ranks, as --across global does")
    errors: str | None = setting(
        None, "errors of every stack: weight, functional, operator (default: all, but operator of matrices "
        "above 256 x 256 only where it adds little to the method's own time: not for tdmoe, rtn and controls)",
    )  # fmt: skip
    dense: bool = setting(False, "write the rebuilt weights too, into TO/dense")
    statistics: Path | None = setting(None, "run folder of calibrate (default: calibrates by itself)")
    text: str = setting(CALIBRATION_TEXT, "calibration text: a built-in one or a file")
    tokens: int = setting(CALIBRATION_TOKENS, "tokens to calibrate on; 0 for no calibration", least=0)
    window: int | None = setting(None, WINDOW)
    weighting: Literal["count", "gate_squared"] = setting(
        "count", "weight of a routed token: 1, or its routing weight squared", choices=("count", "gate_squared")
    )
    per_expert: Literal["none", "down", "all"] = setting(
        "none", "a matrix for every expert's own inputs: of down, or of all three", choices=("none", "down", "all")
    )
    schedule: str | None = setting(None, "layers from the middle outwards: middle-out:N, middle-out-code:N")
