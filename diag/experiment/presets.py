"""Experiments to begin from.

quick   the question on a small model in minutes: five methods at one ratio, without down
paper   the protocol of *Rethinking the Role of Tensor Decompositions in Post-Training LLM Compression* (section 3,
        appendices B.1 and C.1): gate and up, 0.2 and 0.4; nested sets of layers from the middle outwards to half the
        depth; WikiText-2 joined by blank lines and C4 in windows of 4096 tokens; the residual stream over 100 windows
        of 1024, five zero-shot tasks; its own runs (no whitening, published ranks, published MoBE) beside right ones.
        It draws its C4 windows at random from the validation shard, and reads the stream on WikiText-2's training
        split; here both are of the built-in texts, which no method saw
full    every probe, every method in every preset, three projections, three texts
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diag.experiment.experiment import Calibration, Experiment, parts
from tdmoe.problems import InputError

TASKS = ("arc_challenge", "hellaswag", "openbookqa", "piqa", "winogrande")
PUBLISHED = "tdmoe:whitening=none,allocation=published,decomposition=hosvd"
REFITTED = "tdmoe:gate_up=joint,refit=expert"
QUICK_STEPS = 120  # of MoBE's fit; on mini 80 more gain 2 % of its error


@dataclass(frozen=True)
class About:
    """Facts of a model that a preset needs: MoE layers, tokens that it sees at once, experts of a layer."""

    layers: int
    positions: int
    experts: int = 128
    begins: bool = False  # its tokenizer puts a beginning-of-sequence token before a text

    def window(self, tokens: int) -> int:
        return min(tokens, self.positions)


def known(name: str) -> None:
    """InputError where there is no such preset."""
    if name not in PRESETS:
        raise InputError(f"preset {name}: is none of {', '.join(PRESETS)}; give one of these")


def preset(name: str, about: About) -> Experiment:
    """The preset of that name for such a model."""
    return PRESETS[name](about)


def _quick(about: About) -> Experiment:
    return Experiment(
        ratios=(0.4,),
        methods=("tdmoe", f"mobe:steps={QUICK_STEPS}", "svd_llm", "rtn", "identity"),
        projections="gate,up",
        calibration=Calibration(tokens=65_536),
        parts=parts(
            spectra={},
            experts={},
            quality={"texts": ("wikitext2", "enwik8"), "windows": 32},
            drift={"tokens": 8192, "scope": "all"},
            attribution={"ladder": "quick", "fit_steps": QUICK_STEPS, "windows": 32, "dtype": "auto"},
        ),
    )


def _paper(about: About) -> Experiment:
    window, bos = about.window(4096), "text" if about.begins else "none"
    wikitext = {"texts": ("wikitext2",), "windows": 0, "window": window, "join": "blank-lines", "bos": bos}
    return Experiment(
        ratios=(0.2, 0.4),
        methods=(PUBLISHED, "mobe:preset=published", "tdmoe", "mobe", "rtn:bits=8", "rtn"),
        projections="gate,up",
        schedule=f"middle-out:{max(1, about.layers // 2)}",
        parts=parts(
            spectra={},
            superweights={},
            experts={},
            quality=[wikitext, {"texts": ("c4-eval",), "windows": 0, "window": window, "tasks": TASKS}],
            drift={"tokens": 102_400, "window": about.window(1024), "scope": "all", "dtype": "auto"},
            attribution={"ladder": "quick", "dtype": "auto"},  # which the paper has not: what its gap is made of
        ),
    )


def _full(about: About) -> Experiment:
    shared = ("tdmoe", PUBLISHED, "mobe", "mobe:preset=published")
    return Experiment(
        ratios=(0.2, 0.4),
        methods=(
            *(*shared, REFITTED, "moe_svd", "moe_svd:preset=published", "svd", "svd_llm", "svd_llm:moments=expert"),
            *("d2_moe", "rtn:bits=8", "rtn", "rtn:bits=4,scale=tensor", "rtn:bits=3"),
            *("identity", "cast", "mean", "drop"),
        ),
        parts=parts(
            spectra={"jackknife": min(8, about.experts)},
            operator={"methods": (*shared, "svd_llm", "rtn")},
            superweights={},
            experts={},
            quality={"texts": ("wikitext2", "enwik8", "c4-eval"), "tasks": TASKS},
            drift={},
            attribution={"dtype": "auto"},
            injection={},
        ),
    )


PRESETS: dict[str, Callable[[About], Experiment]] = {"quick": _quick, "paper": _paper, "full": _full}
