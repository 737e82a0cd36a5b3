"""One default a meaning: settings of one name mean the same in all commands, but for the reasons written down here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING
from typing import Any

from diag.compression import calibrating
from diag.compression.factors import Source
from diag.compression.settings import Calibrate, Compress
from diag.declare.probe import probes
from diag.declare.setting import declared
from diag.experiment.experiment import Calibration, Experiment
from diag.experiment.presets import About, preset

SETTINGS = {name: probe.settings for name, probe in probes().items()} | {"calibrate": Calibrate, "compress": Compress}
CALIBRATIONS = {  # what the setting is called where the text of a command is another one
    **dict.fromkeys(("calibrate", "compress"), ("text", "tokens")),
    **dict.fromkeys(("quality", "drift", "attribution", "injection"), ("calibration_text", "calibration_tokens")),
}
DIFFER = {  # settings of one name with several defaults: why
    "text": "held out: WikiText-2, as in papers; injection: C4, like its metric; of calibrations another meaning",
    "tokens": "what is measured on: an angle needs fewer than a loss, hundreds of injected residuals fewer still",
    "window": "the model's own; short in injection, whose runs are hundreds",
    "dtype": "quality as the model is used; in drift and attribution float32, lest rounding hide small changes",
    "per_expert": "calibrations collect what methods need, injection measures errors of each expert; of rows a switch",
    "methods": "each answers another question",
    "ratios": "curves need several; a perplexity is told at the usual one",
    "jackknife": "intervals of experts are its answer; of spectra they cost as much as the fit again",
    "ratio": "compress takes the same, but none where the method fixes its storage",
    "draws": "of independent experts, and of random weights",
    "ranks": "of truncations as fractions, and how many are followed",
}


def defaults(kind: type[Any]) -> dict[str, Any]:
    """What a command means where nothing is said."""
    found = {name: each.default for name, each in declared(kind).items() if each.default is not MISSING}
    alone = {name: each.declared.alone for name, each in declared(kind).items() if each.declared.inherited}
    return found | alone


def test_commands_agree_among_each_other() -> None:
    found: dict[str, set[Any]] = {}
    for kind in SETTINGS.values():
        for key, value in defaults(kind).items():
            found.setdefault(key, set()).add(value)
    assert {key for key, values in found.items() if len(values) > 1} == set(DIFFER)


def calibrations() -> Iterator[tuple[str, Any, Any]]:
    for name, (text, tokens) in CALIBRATIONS.items():
        given = defaults(SETTINGS[name])
        yield name, given[text], given[tokens]
    for kind in (calibrating.Settings, Calibration):
        yield kind.__module__, kind().text, kind().tokens


def test_calibrations_and_projections_are_everywhere_the_same() -> None:
    """128 windows of 2048 tokens, and all three projections; presets that say otherwise say so."""
    assert {(text, tokens) for _, text, tokens in calibrations()} == {("c4-calibration", 128 * 2048)}
    assert Experiment().projections == Source.__dataclass_fields__["projections"].default == "gate,up,down"
    about = About(4, 512)
    chosen = {name: preset(name, about) for name in ("quick", "paper", "full")}
    assert {n: (e.projections, e.calibration.tokens) for n, e in chosen.items()} == {
        **{"quick": ("gate,up", 65_536), "paper": ("gate,up", 262_144), "full": ("gate,up,down", 262_144)}
    }
