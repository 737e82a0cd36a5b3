"""Compressed expert layers for commands that run the model: made once a method and ratio, then put in layer by layer.

They are made by the jobs of `compress`, into runs/MODEL-factors-FINGERPRINT, and used again by whoever asks for the
same. Nested sets of layers need no factors of their own: a layer's are the same in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diag.compression.calibrating import VERSION as CALIBRATION
from diag.compression.calibrating import Settings as CalibrationSettings
from diag.compression.compress_run import Command, Compression, own_inputs
from diag.compression.compressing import VERSION, calibration_said, stored_dense_bits
from diag.declare import parse
from diag.declare.defaults import ALL_PROJECTIONS, MEMORY_BYTES
from diag.inputs.windows import window_of
from diag.lockstep.variant import Recipe as Recipe
from diag.lockstep.variant import Variant, needs_calibration, shares_budget
from diag.models.open_model import OpenModel
from diag.runs.folder import digest
from diag.runs.manifest import SCHEMA
from diag.runs.results import Row
from tdmoe import methods, spec
from tdmoe.compression.assemble import read_shard
from tdmoe.compression.counted import bits
from tdmoe.problems import InputError, WeightError
from tdmoe.runtime.modules import factored_copy


def recipes(specs: Sequence[str], ratios: Sequence[float]) -> list[Recipe]:
    """Every method at every ratio, in that order; one that fixes its storage comes once. InputError for no method."""
    found: dict[Recipe, None] = {}
    for text in specs:
        method, options = methods.parse(text)
        for ratio in [None] if method.fixes_storage(options) else ratios:
            found[Recipe(spec.text(method.NAME, options), ratio)] = None
    return list(found)


def calibration_of(recipes: Iterable[Recipe], asked: CalibrationSettings) -> CalibrationSettings | None:
    """Calibration asked for, or None where no recipe needs it."""
    return asked if any(map(needs_calibration, recipes)) else None


def made_by(recipes: Iterable[Recipe]) -> list[Any]:
    """Versions of what makes the factors of these: ours, and those of methods of one's own."""
    return [VERSION, *methods.versions(recipe.method for recipe in recipes).items()]


class Unmade(WeightError):
    """Factors of some recipes could not be made: why, by recipe; and those of the others."""

    def __init__(self, failed: Mapping[Recipe, str], made: list[Factors]) -> None:
        super().__init__("; ".join(failed.values()))
        self.failed, self.made = failed, made


@dataclass(frozen=True)
class Source:
    """Source of factors: model, layers, projections, calibration; None for no calibration."""

    opened: OpenModel
    model: str
    layers: Sequence[int]
    projections: str = ALL_PROJECTIONS
    calibration: CalibrationSettings | None = field(default_factory=CalibrationSettings)
    memory: int = MEMORY_BYTES
    seed: int = 0
    revision: str | None = None
    command_line: str = ""

    def variant(self, recipe: Recipe, layers: Sequence[int] | None = None) -> Variant:
        """The model with these layers compressed, or all; where they share a budget, all of them are told."""
        chosen = tuple(self.layers if layers is None else layers)
        shared = parse.spans(self.layers) if shares_budget(recipe) and chosen != tuple(self.layers) else ""
        calibration = self.seen if needs_calibration(recipe) else ""
        return Variant(recipe.method, recipe.ratio, chosen, self.projections, calibration, self.seed, shared)

    @cached_property
    def seen(self) -> str:
        """Key of what methods see of texts."""
        asked = self.calibration
        return "" if asked is None else asked.seen(window_of(self.opened.checkpoint.config, asked.window))

    def made(self, variant: Variant) -> str:
        """Digest of the variant and of the versions of what makes its factors: part of a result's identity."""
        versions = [] if variant.recipe is None else [*made_by([variant.recipe]), CALIBRATION]
        return digest([astuple(variant), *versions])

    def check(self, recipes: Iterable[Recipe]) -> None:
        """InputError where a recipe, the layers, the projections and the model do not fit."""
        for command in self.commands(recipes):
            with Compression(command):
                pass

    def commands(self, recipes: Iterable[Recipe]) -> Iterator[Command]:
        """One a recipe; they share one calibration, which collects what any of them needs."""
        made, collected = list(recipes), self.calibration
        if collected is not None:
            for recipe in made:
                needs = methods.needs(recipe.method)
                own = own_inputs(recipe.method, needs, self.projections, collected.per_expert)
                collected = replace(collected, per_expert=own, outputs=collected.outputs or needs.outputs)
        for recipe in made:
            yield self._command(recipe, collected)

    def _command(self, recipe: Recipe, collected: CalibrationSettings | None) -> Command:
        calibrated = None if collected is None else asdict(collected)
        asked = [recipe.method, recipe.ratio, list(self.layers), self.projections, calibrated, self.seed]
        weights = [self.opened.identity, self.opened.device.partition(":")[0]]
        short = digest([SCHEMA, *asked, *weights, *made_by([recipe])])[:8]
        home = Path("runs") / f"{self.opened.name}-factors-{short}"
        where: dict[str, Any] = {"layers": parse.spans(self.layers), "projections": self.projections}
        where |= {"device": self.opened.device, "out": home / "run", "out_given": False, "revision": self.revision}
        how: dict[str, Any] = {"seed": self.seed, "engine": "inline", "fresh": False, "command_line": self.command_line}
        to = home / "factors"
        return Command(self.model, recipe.method, recipe.ratio, to, self.memory, False, None, collected, where, how)


@dataclass(frozen=True)
class Factors:
    """Factors of one recipe, on disk. `rows` are those of compression.csv."""

    recipe: Recipe
    folder: Path
    stacks: dict[int, list[str]]
    rows: list[Row]
    dense_bits: dict[int, int]  # of the compressed stacks of a layer, as the checkpoint stores them
    model_bits: int  # of what is counted of the whole checkpoint
    calibration: str = ""  # text and tokens, for people; empty where the method needs none

    @staticmethod
    def of(compression: Compression) -> Factors:
        """Factors of a finished compression."""
        session, command = compression.session, compression.command
        stacks: dict[int, list[str]] = {}
        dense: dict[int, int] = {}
        for job, stack in session.stacks.items():
            stacks.setdefault(job.layer, []).append(job.projection)
            dense[job.layer] = dense.get(job.layer, 0) + stored_dense_bits(stack)
        recipe = Recipe(command.method, command.ratio)
        rows = session.folder.rows("compression")
        said = calibration_said(session.request.settings)  # type: ignore[arg-type]
        return Factors(recipe, command.to, stacks, rows, dense, bits(session.checkpoint), said)

    @property
    def parameters(self) -> int:
        """Parameters of all factors."""
        return sum(int(row["parameters"]) for row in self.rows)

    @property
    def layer_parameters(self) -> int:
        """Parameters of the largest layer."""
        by_layer: dict[int, int] = {}
        for row in self.rows:
            by_layer[row["layer"]] = by_layer.get(row["layer"], 0) + int(row["parameters"])
        return max(by_layer.values(), default=0)

    def module(self, dense: Any, layer: int) -> Any:
        """The layer's experts in factor form, beside the `dense` module of a loaded model."""
        return factored_copy(dense, {p: read_shard(self.folder, layer, p) for p in self.stacks[layer]})

    def bits_saved(self, layers: Iterable[int]) -> float:
        """(dense - stored) / dense of what is counted, with only these layers compressed."""
        chosen = set(layers)
        if missing := sorted(chosen - set(self.stacks)):
            made = parse.spans(sorted(self.stacks))
            raise InputError(f"layer {missing[0]}: has no factors of {self.recipe.name}; they were made for {made}")
        stored = sum(int(row["stored_bits"]) for row in self.rows if row["layer"] in chosen)
        return (sum(self.dense_bits[layer] for layer in chosen) - stored) / self.model_bits
