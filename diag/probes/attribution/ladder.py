"""The steps: TD-MoE's ladder of single changes, MoBE's, and what stands beside them, all at equal stored bits.

The tables hold phrases and specs; what of them fits the model and what was asked is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from diag.declare.defaults import ALL_PROJECTIONS
from diag.lockstep.variant import DENSE, Recipe
from diag.probes.attribution.columns import BESIDE, MOBE, PUBLISHED, TDMOE
from diag.probes.attribution.switches import STORED, SWITCHES, WHITENING, canonical, changed, method, switches
from tdmoe import methods
from tdmoe.methods.tdmoe import TRIPLES
from tdmoe.mobe.sizes import rank_within
from tdmoe.numerics.ranks import Shape
from tdmoe.problems import InputError
from tdmoe.tucker.rank_search import rank_grid

QUICK, FULL = "quick", "full"
LADDERS = (QUICK, FULL)


@dataclass(frozen=True)
class Row:
    """A line of a table below. `quick`: also in the quick ladder; `preset`: one of those that the gap is to.

    `apart`: no single change from the line before.
    """

    phrase: str
    spec: str
    quick: bool = False
    preset: bool = False
    apart: bool = False


REFITTED = "+ left factors refitted"
# With phi the identity one basis is the input factor of a Tucker decomposition of the other modes at full rank.
MOBE_ROWS = (
    Row("1 basis, phi identity (input-mode Tucker)", "mobe:phi=identity,bases=1", quick=True),
    Row("2 bases, phi identity", "mobe:phi=identity,bases=2"),
    Row("4 bases, phi identity", "mobe:phi=identity,bases=4"),
    Row("8 bases, phi identity", "mobe:phi=identity,bases=8"),
    Row("+ number of bases searched", "mobe:phi=identity"),
    Row("+ phi silu", "mobe:phi=silu"),
    Row("+ phi tanh: preset corrected", "mobe", quick=True, preset=True),
    Row(REFITTED, "mobe:refit=expert", quick=True),  # as TD-MoE's core is
    Row("preset published, {steps} steps", "mobe:preset=published,steps={steps}", preset=True, apart=True),
    Row("published training, free mixing", "mobe:preset=published,mixing=free,steps={steps}"),
    Row("+ in the metric of the inputs", "mobe:preset=published,mixing=free,whitening=input,steps={steps}"),
)
BESIDE_ROWS = (
    Row("TD-MoE, inverse whitening", "tdmoe:whitening_direction=inverse,allocation=published_stored,{one_shot}"),
    Row("SVD-LLM", "svd_llm", quick=True),
    Row("SVD-LLM, each expert's own inputs", "svd_llm:moments=expert"),
    Row("RTN, 8 bits", "rtn:bits=8"),
    Row("RTN, 4 bits", "rtn:bits=4", quick=True),
    Row("RTN, 3 bits", "rtn:bits=3"),
    Row("nothing changed", "identity"),
    Row("rounded to bf16", "cast"),
)
ONE_SHOT = "decomposition=hosvd"


@dataclass(frozen=True)
class Step:
    """A row of attribution.csv; `recipe` None is the dense model."""

    phrase: str
    ladder: str
    recipe: Recipe | None
    projections: str
    preset: bool = False
    apart: bool = False


@dataclass(frozen=True)
class Frame:
    """Facts that steps depend on: `share` of the targeted stacks in what is counted of the model.

    `shapes` are those of the targeted projections.
    """

    ratio: float
    projections: str
    shapes: Sequence[Shape]
    share: float
    mobe_steps: int
    alignment: int
    fit_steps: int = 0

    @property
    def names(self) -> list[str]:
        return self.projections.split(",")


def alignment(shapes: Sequence[Shape]) -> int:
    """The least step of ranks, a power of two, with which exact ranks can be searched in stacks of these shapes."""
    step = 1
    while any(math.prod(map(len, rank_grid(shape, alignment=step))) > TRIPLES for shape in shapes):
        step *= 2
    return step


def steps(frame: Frame, kind: str) -> list[Step]:
    """All of them, TD-MoE's ladder first; the dense model is the first of those beside."""
    found = [*_tdmoe(frame, kind == FULL), *_mobe(frame, kind == FULL), Step(DENSE, BESIDE, None, "")]
    for row in BESIDE_ROWS:
        if row.quick or kind == FULL:
            found.append(_step(row, BESIDE, row.spec.format(one_shot=ONE_SHOT), frame))
    return found


def _tdmoe(frame: Frame, full: bool) -> list[Step]:
    on: list[str] = []
    text = method(on, frame.alignment)
    found = [_step(Row(PUBLISHED, text), TDMOE, text, frame)]
    for switch in switches(frame.names, frame.alignment):
        on.append(switch)
        text = method(on, frame.alignment)
        phrase = SWITCHES[switch] if switch == STORED else f"+ {SWITCHES[switch]}"
        found.append(_step(Row(phrase, text), TDMOE, text, frame))
    # The refit has each expert's own metric, and may have no use for a pooled one.
    on.remove(WHITENING)
    without = method(on, frame.alignment)
    found.append(_step(Row("whitening off again", without), TDMOE, without, frame))
    if full:
        found += [_shared_budget(without, frame), replace(_shared_budget(text, frame), phrase="whitening on again")]
    return found


def _shared_budget(text: str, frame: Frame) -> Step:
    """One budget for all stacks, by their measured sensitivity; with down beside gate and up, at the same bits."""
    text = changed(text, across="global", weigh="sensitivity")
    if set(frame.names) == {"gate", "up"}:
        recipe = Recipe(changed(text, ratio_of="model"), frame.ratio * frame.share)
        return Step("+ budget shared with down by measured sensitivity", TDMOE, recipe, ALL_PROJECTIONS)
    return Step("+ budget shared by measured sensitivity", TDMOE, Recipe(text, frame.ratio), frame.projections)


def _mobe(frame: Frame, full: bool) -> list[Step]:
    found = []
    for row in MOBE_ROWS:
        text = row.spec.format(steps=frame.mobe_steps)
        if frame.fit_steps and "published" not in text:
            text = changed(text, steps=str(frame.fit_steps))
        bases = int(getattr(methods.parse(text)[1], "bases", 0))
        fits = all(bases <= s[0] and rank_within(s, frame.ratio, bases, 1) for s in frame.shapes if bases)
        if (row.quick or full) and fits:
            found.append(_step(row, MOBE, text, frame))
        if full and row.phrase == REFITTED and set(frame.names) == {"gate", "up"}:
            recipe = Recipe(changed(text, ratio_of="model"), frame.ratio * frame.share)
            found.append(Step("+ budget spread evenly over gate, up and down", MOBE, recipe, ALL_PROJECTIONS))
    return found


def _step(row: Row, ladder: str, text: str, frame: Frame) -> Step:
    found, options = methods.parse(text)
    ratio = None if found.fixes_storage(options) else frame.ratio
    phrase = row.phrase.format(steps=f"{frame.mobe_steps:,}")
    return Step(phrase, ladder, Recipe(canonical(text), ratio), frame.projections, row.preset, row.apart)


def check_kind(kind: str) -> str:
    """InputError where there is no such ladder."""
    if kind not in LADDERS:
        raise InputError("ladder", kind, remedy=f"give one of {', '.join(LADDERS)}")
    return kind


def is_tucker(recipe: Recipe) -> bool:
    """Tell whether its factors have a rank of each mode."""
    return methods.parse(recipe.method)[0].NAME == TDMOE
