"""Settings of `superweights`."""

from __future__ import annotations

from dataclasses import dataclass

from diag.declare.defaults import CALIBRATION_TEXT
from diag.declare.forms import RATIOS, SPECS
from diag.declare.setting import Settings as Base
from diag.declare.setting import setting

BITS = tuple(f"rtn:bits={bits}" for bits in (2, 3, 4, 6, 8))
METHODS = ("tdmoe:whitening=none", "mobe:whitening=none,steps=60", *BITS)


@dataclass(frozen=True)
class Settings(Base):
    """Super weights, the rank that recovers them and other entries, and the perplexity without them."""

    TARGET = ("layers", "device", "memory", "out", "seed", "revision", "fresh")
    ORDER = 30
    LAYERS = "all"
    prompt: str = setting("Apple Inc. is a worldwide tech company.", "prompt to search for spikes first")
    text: str = setting(CALIBRATION_TEXT, "text to search for spikes too; gives the inputs' second moments")
    tokens: int = setting(8192, "tokens of that text, in whole windows", least=1)
    window: int | None = setting(None, "tokens the model sees at once (default: 2048, or its positions)")
    threshold: float = setting(50.0, "value that input and output of a spike have to exceed", least=0.0)
    most: int = setting(20, "super weights to look for", least=1)
    entries: int = setting(128, "entries to follow in each group", least=1)
    ranks: int = setting(128, "ranks in the table; every rank is computed", least=2)
    control_layer: int | None = setting(None, "layer without super weight (default: the middle one)")
    methods: tuple[str, ...] = setting(METHODS, "specs, separated by commas; empty for none", form=SPECS)
    ratios: tuple[float, ...] = setting(
        (0.2, 0.4, 0.6), "fractions to remove by methods that have a choice", form=RATIOS
    )
    eval_text: str = setting("wikitext2", "built-in text or a UTF-8 file, for the ablation")
    eval_windows: int = setting(16, "windows of that text", least=1)
    draws: int = setting(5, "draws of random weights to zero instead", least=0)
