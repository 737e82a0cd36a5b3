"""One default a meaning: a command, its part of an experiment and the library say the same, and commands among each
other but where a reason is written down here."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from importlib import import_module
from typing import Any

import pytest

from diag.compare.experiment import MIDDLE, Calibration, Experiment, commands
from diag.compare.presets import About, preset
from diag.compression import calibrating
from diag.compression.factors import Source
from diag.declare import defaults, parse
from diag.probes.attribution.plan import Request as AttributionRequest
from diag.probes.drift.run import Request as DriftRequest
from diag.probes.experts import measure as experts
from diag.probes.injection.injecting import Request as InjectionRequest
from diag.probes.operator import measure as operator
from diag.probes.quality.plan import Request as QualityRequest
from diag.probes.spectra import measure as spectra
from diag.probes.superweights import columns as superweights

LIBRARY: Mapping[str, type[Any]] = {
    **{"attribution": AttributionRequest, "calibrate": calibrating.Settings, "drift": DriftRequest},
    **{"experts": experts.Settings, "injection": InjectionRequest, "operator": operator.Settings},
    **{"quality": QualityRequest, "spectra": spectra.Settings, "superweights": superweights.Settings},
}
COMMANDS = (*LIBRARY, "compress")
NOT_GIVEN = ("", (), 0, MIDDLE, None)  # of which an experiment, a flag and the library each have their own
NAMES = {"eval_text": "evaluation", "eval_windows": "windows", "scope": "scopes"}
CALIBRATIONS = {  # what the setting is called where the text of a command is another one
    **dict.fromkeys(("calibrate", "compress"), ("text", "tokens")),
    **dict.fromkeys(("quality", "drift", "attribution", "injection"), ("calibration_text", "calibration_tokens")),
}
DIFFER = {  # settings of one name with several defaults: why
    "text": "held out: WikiText-2, as in papers; injection: C4, like its metric; of calibrations another meaning",
    "tokens": "what is measured on: an angle needs fewer than a loss, hundreds of injected residuals fewer still",
    "windows": "of perplexities; of the ablation, which is repeated for every draw, fewer",
    "window": "the model's own; short in injection, whose runs are hundreds",
    "dtype": "quality as the model is used; in drift and attribution float32, lest rounding hide small changes",
    "per_expert": "calibrations collect what methods need, injection measures errors of each expert; of rows a switch",
    "methods": "each answers another question",
    "ratios": "curves need several; a perplexity is told at the usual one",
    "jackknife": "intervals of experts are its answer; of spectra they cost as much as the fit again",
    "ratio": "compress takes the same, but none where the method fixes its storage",
    "scopes": "the same two, in the order in which they are measured",
    "draws": "of independent experts, and of random weights",
    "ranks": "of truncations as fractions, and how many are followed",
}


def plain(value: Any) -> Any:
    """Without how a flag, a TOML file and the library spell it."""
    value = value.value if isinstance(value, Enum) else value
    if isinstance(value, list | tuple):
        value = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    if value == "0:1":
        return plain(parse.fraction_range("--fit-range", value))
    if value in (defaults.MEMORY, defaults.MEMORY_BYTES):
        return defaults.MEMORY_BYTES
    return None if isinstance(value, str | int | float | None) and value in NOT_GIVEN else str(value)


def of_fields(kind: type[Any]) -> dict[str, Any]:
    found = {NAMES.get(f.name, f.name): f.default for f in fields(kind) if f.default is not MISSING}
    return {name: plain(value) for name, value in found.items()}


def of_command(name: str) -> dict[str, Any]:
    parameters = inspect.signature(getattr(import_module(f"diag.commands.{name}"), name)).parameters
    given = {
        NAMES.get(key, key): p.default for key, p in parameters.items() if p.default is not inspect.Parameter.empty
    }
    return {key: plain(value) for key, value in given.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_experiment_and_library_agree(name: str) -> None:
    flags = of_command(name)
    others = [of_fields(kind) for kind in (LIBRARY.get(name), commands().get(name)) if kind is not None]
    for other in others:
        for key in flags.keys() & other.keys():
            if key == "whitening" or (flags[key] is None and key in ("methods", "ratios")):
                continue  # its default follows from others
            if other[key] is not None or key not in ("ratio", "ratios", "methods", "scopes"):  # an experiment's own
                assert other[key] == flags[key], key


def test_commands_agree_among_each_other() -> None:
    found: dict[str, set[Any]] = {}
    for name in COMMANDS:
        for key, value in of_command(name).items():
            found.setdefault(key, set()).add(value)
    assert {key for key, values in found.items() if len(values) > 1} == set(DIFFER)


def calibrations() -> Iterator[tuple[str, Any, Any]]:
    for name, (text, tokens) in CALIBRATIONS.items():
        given = of_command(name)
        yield name, given[text], given[tokens]
    for kind in (calibrating.Settings, Calibration):
        yield kind.__module__, kind().text, str(kind().tokens)


def test_calibrations_and_projections_are_everywhere_the_same() -> None:
    """128 windows of 2048 tokens, and all three projections; presets that say otherwise say so."""
    assert {(text, tokens) for _, text, tokens in calibrations()} == {("c4-calibration", str(128 * 2048))}
    given = {name: of_command(name).get("projections", "gate,up,down") for name in COMMANDS}
    assert set(given.values()) == {"gate,up,down"} == {Experiment().projections, of_fields(Source)["projections"]}
    about = About(4, 512)
    chosen = {name: preset(name, about) for name in ("quick", "paper", "full")}
    assert {n: (e.projections, e.calibration.tokens) for n, e in chosen.items()} == {
        **{"quick": ("gate,up", 65_536), "paper": ("gate,up", 262_144), "full": ("gate,up,down", 262_144)}
    }
