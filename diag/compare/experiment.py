"""Everything that one `compare` says, as data: model, ratios, methods, and which commands run with which settings.

A command runs once for each of its settings, and not at all where there are none. Fields are named as the commands'
options. Empty text, an empty list and 0 stand for "not given": the command's own default, or the experiment's methods
and ratios.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_type_hints

from diag.declare.defaults import ALL_PROJECTIONS, CALIBRATION_TEXT, CALIBRATION_TOKENS, MEMORY

_BITS = tuple(f"rtn:bits={bits}" for bits in (2, 3, 4, 6, 8))

MIDDLE = -1  # layer


@dataclass(frozen=True)
class Calibration:
    """What all methods are calibrated on, so that one calibration and one set of factors serve all commands."""

    text: str = CALIBRATION_TEXT
    tokens: int = CALIBRATION_TOKENS


@dataclass(frozen=True)
class Spectra:
    fit_range: str = "0:1"
    jackknife: int = 0


@dataclass(frozen=True)
class Operator:
    ranks: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75)
    methods: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    per_expert: bool = False


@dataclass(frozen=True)
class SuperWeights:
    prompt: str = "Apple Inc. is a worldwide tech company."
    text: str = "c4-calibration"
    tokens: int = 8192
    window: int = 0
    threshold: float = 50.0
    most: int = 20
    entries: int = 128
    ranks: int = 128
    control_layer: int = MIDDLE
    methods: tuple[str, ...] = ("tdmoe:whitening=none", "mobe:whitening=none,steps=60", *_BITS)
    ratios: tuple[float, ...] = (0.2, 0.4, 0.6)
    eval_text: str = "wikitext2"
    eval_windows: int = 16
    draws: int = 5


@dataclass(frozen=True)
class Experts:
    ratios: tuple[float, ...] = ()
    whitening: str = "input"
    jackknife: int = 8
    directions: float = 0.1
    draws: int = 8


@dataclass(frozen=True)
class Quality:
    texts: tuple[str, ...] = ("wikitext2",)
    windows: int = 64
    window: int = 0
    stride: int = 0
    join: str = "as-is"
    bos: str = "none"
    tasks: tuple[str, ...] = ()
    limit: int = 0
    dtype: str = "auto"
    methods: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()


@dataclass(frozen=True)
class Drift:
    text: str = "wikitext2"
    tokens: int = 16_384
    window: int = 0
    scope: str = "one,all"
    dtype: str = "float32"
    methods: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()


@dataclass(frozen=True)
class Attribution:
    ratio: float = 0.0  # the largest of the experiment's
    ladder: str = "full"
    shapley: str = ""
    mobe_steps: int = 3000
    fit_steps: int = 0
    text: str = "wikitext2"
    windows: int = 64
    window: int = 0
    dtype: str = "float32"


@dataclass(frozen=True)
class Injection:
    designs: str = "frobenius,operator"
    families: str = "isotropic,flat,rank_one,along,against"
    methods: tuple[str, ...] = ("tdmoe", "svd_llm", "rtn")
    ratio: float = 0.4
    sizes: tuple[float, ...] = (0.1, 0.3)
    seeds: int = 3
    scopes: str = "all,one"
    alone: str = ""
    apart: bool = False
    text: str = "c4-eval"
    tokens: int = 2048
    window: int = 256


@dataclass(frozen=True)
class Experiment:
    """`schedule` compresses nested sets of layers from the middle outwards, in `quality` and `drift`.

    The other commands that compress then take the largest of these sets. `task_data` is a folder with the data of
    tasks, or hub. `engine` is where the jobs of commands run that look at every stack by itself.
    """

    model: str = ""
    ratios: tuple[float, ...] = (0.4,)
    methods: tuple[str, ...] = ("tdmoe", "mobe")
    projections: str = ALL_PROJECTIONS
    layers: str = ""
    schedule: str = ""
    task_data: str = ""
    device: str = "auto"
    memory: str = MEMORY
    engine: str = "inline"
    seed: int = 0
    revision: str = ""
    calibration: Calibration = field(default_factory=Calibration)
    spectra: tuple[Spectra, ...] = ()
    operator: tuple[Operator, ...] = ()
    superweights: tuple[SuperWeights, ...] = ()
    experts: tuple[Experts, ...] = ()
    quality: tuple[Quality, ...] = ()
    drift: tuple[Drift, ...] = ()
    attribution: tuple[Attribution, ...] = ()
    injection: tuple[Injection, ...] = ()


def commands() -> dict[str, type[Any]]:
    """Every command that may be part of an experiment, in the order in which they run, and its settings."""
    hints = get_type_hints(Experiment)
    found = {}
    for each in fields(Experiment):
        kinds = get_args(hints[each.name])
        if kinds and hasattr(kinds[0], "__dataclass_fields__"):
            found[each.name] = kinds[0]
    return found
