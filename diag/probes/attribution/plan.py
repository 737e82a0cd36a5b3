"""A checked request of `attribution`: steps, coalitions of switches, windows, and a part for each model.

Everything that headers and texts can tell is found here, before the first weight is read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from diag.compression import compressing
from diag.compression.calibrating import VERSION as CALIBRATION
from diag.compression.calibrating import Settings as CalibrationSettings
from diag.compression.factors import Source
from diag.compression.plans import ModelRequest
from diag.declare import parse
from diag.declare.defaults import ALL_PROJECTIONS, MEMORY_BYTES
from diag.inputs.texts import check_texts, text_notes, text_of
from diag.inputs.windows import window_of
from diag.lockstep.variant import Recipe, Variant
from diag.models.open_model import OpenModel
from diag.probes.attribution.columns import NAME, STATISTICS_VERSION, TABLES, VERSION
from diag.probes.attribution.game import Game, game
from diag.probes.attribution.ladder import FULL, Frame, Step, alignment, check_kind, is_tucker, steps
from diag.probes.attribution.switches import method, switches
from diag.runs.folder import Part, RunFolder, digest
from diag.statistics.gap import SAMPLES
from reports.formats import counted
from tdmoe.compression.counted import parameters
from tdmoe.numerics.ranks import Shape
from tdmoe.problems import InputError
from tdmoe.stacks.families import JOINT, MEMBERS, PROJECTIONS

EVERYTHING = 10**12  # tokens: the whole text
LEAST_WINDOWS = 8  # of which percentiles of resamples say something
Stacks = dict[tuple[int, str], Shape]


@dataclass(frozen=True)
class Request(ModelRequest):
    """One command as typed. `shapley` is None for the ladder's own; `windows` 0 for all of the text.

    `mobe_steps` are those of MoBE's published training, `fit_steps` those of its own fit, 0 for its default.
    """

    model: str
    ratio: float = 0.4
    projections: str = ALL_PROJECTIONS
    ladder: str = FULL
    shapley: str | None = None
    mobe_steps: int = 3000
    fit_steps: int = 0
    text: str = "wikitext2"
    windows: int = 64
    window: int | None = None
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    dtype: str = "float32"
    memory: int = MEMORY_BYTES


class Plan(OpenModel):
    """A checked plan. Use as a context manager."""

    def __init__(self, request: Request) -> None:
        """InputError where model, text, ratio, projections, layers or methods do not fit; nothing is run."""
        parse.ratio("ratio", request.ratio)
        check_texts(("text", request.text), ("calibration_text", request.calibration.text))
        super().__init__(request.model, request.device, request.revision)
        self.request = request
        with self.closing():
            check_kind(request.ladder)
            chosen = parse.choices("projections", request.projections, PROJECTIONS)
            self.projections = ",".join(chosen)
            self.layers = parse.layers(request.layers, self.arch.layers)
            if request.mobe_steps < 1:
                raise InputError("mobe_steps", request.mobe_steps, remedy="give at least 1")
            self.windows_WT = self._held_out()
            self.steps = steps(self.frame, request.ladder)
            names = switches(chosen, self.frame.alignment)
            self.game: Game | None = game(names, request.shapley, request.ladder == FULL, request.seed)
            self.sources = self._sources()
            self._check_steps()
            self.parts = {
                variant: Part(NAME, variant.part_name(variant.method.partition(":")[2])) for variant in self.variants
            }
            self.modes = {
                place: Part(NAME, f"modes-l{place[0]:03d}-{place[1].replace('_', '-')}") for place in self._cut
            }
            self.summary = Part(NAME, "tables")
            self.folder: RunFolder[Part] = self._folder()

    @cached_property
    def frame(self) -> Frame:
        """Facts that the steps depend on."""
        chosen = self.projections.split(",")
        shapes = [self.arch.shape(name) for name in chosen]
        joined = [JOINT] if set(MEMBERS[JOINT]) <= set(chosen) else []
        searched = [self._shape(name) for name in [*PROJECTIONS, *joined]]
        share = self.targeted / parameters(self.checkpoint)
        return Frame(
            self.request.ratio,
            self.projections,
            shapes,
            share,
            self.request.mobe_steps,
            alignment(searched),
            self.request.fit_steps,
        )

    @property
    def targeted(self) -> int:
        """Parameters of the stacks that are compressed."""
        sizes = (e * o * i for e, o, i in (self.arch.shape(name) for name in self.projections.split(",")))
        return len(self.layers) * sum(sizes)

    @cached_property
    def variants(self) -> list[Variant]:
        """Every model once, the dense one first: those of the steps, then those of the coalitions."""
        found = {Variant(): None}
        found |= {self.variant(step): None for step in self.steps}
        if self.game is not None:
            found |= {self.coalition(on): None for on in self.game.coalitions}
        return list(found)

    def variant(self, step: Step) -> Variant:
        """The model of a step."""
        return Variant() if step.recipe is None else self.of_recipe(step.recipe, step.projections)

    def coalition(self, on: frozenset[str]) -> Variant:
        """The model of a coalition of switches."""
        return self.of_recipe(Recipe(method(on, self.frame.alignment), self.request.ratio), self.projections)

    def of_recipe(self, recipe: Recipe, projections: str) -> Variant:
        """The model with these projections compressed."""
        return self._source(projections).variant(recipe)

    @property
    def due(self) -> list[Variant]:
        """Models that are still to be measured."""
        return [v for v, part in self.parts.items() if self.folder.outcomes[part.key].state != "done"]

    @property
    def due_modes(self) -> list[tuple[int, str]]:
        """Stacks whose modes are still to be looked at."""
        return [place for place, part in self.modes.items() if self.folder.outcomes[part.key].state != "done"]

    @property
    def bits_removed(self) -> float:
        """Share that the ratio removes of the model's stored bits, where the factors are stored as the weights are."""
        return self.request.ratio * self.frame.share

    def described(self) -> list[str]:
        """Lines for --dry-run: steps, specs and bits, and what Shapley values take."""
        lines = [f"{self.name}: {NAME}, run folder {self.folder.path}"]
        for step in self.steps:
            recipe, bits = step.recipe, f"{self.bits_removed:.1%} of the bits saved"
            if recipe is not None:
                said = "its own bits" if recipe.ratio is None else bits
                lines.append(f"{step.ladder}: {step.phrase}: {recipe.method} on {step.projections}, {said}")
        game = "no Shapley values"
        if self.game is not None:
            game = f"{counted(len(self.game.coalitions), 'coalition')} of {len(self.game.switches)} switches"
        windows, length = self.windows_WT.shape
        lines.append(
            f"{len(self.parts)} models with {game}; {counted(windows, 'window')} of {length} tokens of "
            f"{Path(self.request.text).name}"
        )
        return [*lines, "nothing was run"]

    def notes(self) -> list[str]:
        """Differences from what was asked."""
        asked, found = self.request.windows, len(self.windows_WT)
        short = f"--text {self.request.text}: holds {counted(found, 'whole window')}, fewer than --windows {asked}"
        return [*super().notes(), *text_notes(("--text", self.request.text)), *([short] if found < asked else [])]

    def _held_out(self) -> Tensor:
        """Windows of the text; InputError where it is the calibration's, or gives no two windows."""
        request = self.request
        tokens = request.windows * window_of(self.checkpoint.config, request.window) or EVERYTHING
        windows_WT = self.held_out(request.text, [request.calibration.text], tokens, request.window)
        if len(windows_WT) < LEAST_WINDOWS:
            raise InputError(
                "windows",
                request.windows,
                f"are {len(windows_WT)} of --text {request.text}, intervals need {LEAST_WINDOWS}",
                "give more, or a smaller --window",
            )
        return windows_WT

    def _sources(self) -> dict[str, Source]:
        """Sources by projections; all share one calibration, which collects what any model needs."""
        by_projections: dict[str, list[Recipe]] = {}
        for variant in self.variants:
            if variant.recipe is not None:
                by_projections.setdefault(variant.projections, []).append(variant.recipe)
        collected = self.request.calibration
        for projections, recipes in by_projections.items():
            for command in replace(self._source(projections), calibration=collected).commands(recipes):
                assert command.calibration is not None, "never from a folder"
                collected = command.calibration
        self.collected = collected
        return {name: replace(self._source(name), calibration=collected) for name in by_projections}

    @cache  # noqa: B019  it lives as long as the plan
    def _source(self, projections: str) -> Source:
        request = self.request
        how = (request.memory, request.seed, request.revision, request.command_line)
        return Source(self, request.model, self.layers, projections, request.calibration, *how)

    def _check_steps(self) -> None:
        """InputError where a step does not fit the model."""
        for projections, source in self.sources.items():
            source.check([s.recipe for s in self.steps if s.recipe is not None and s.projections == projections])

    def stacks(self, variant: Variant) -> Stacks:
        """Shapes of what a method decomposes, gate and up as one where it joins them."""
        assert variant.recipe is not None, "the dense model has nothing decomposed"
        settings = compressing.Settings(variant.recipe.method, variant.recipe.ratio, "")
        names = settings.stacks(variant.projections.split(","))
        return {(layer, name): self._shape(name) for layer in self.layers for name in names}

    def _shape(self, name: str) -> Shape:
        experts, outputs, inputs = self.arch.shape(MEMBERS[name][0])
        return experts, outputs * len(MEMBERS[name]), inputs

    @property
    def _cut(self) -> list[tuple[int, str]]:
        """Stacks that a step's Tucker decomposition cuts."""
        tucker = [self.variant(step) for step in self.steps if step.recipe is not None and is_tucker(step.recipe)]
        return sorted({place for variant in tucker for place in self.stacks(variant)})

    def _folder(self) -> RunFolder[Part]:
        request = self.request
        collected = self.collected
        content = digest(text_of("calibration_text", collected.text))
        calibrated = digest([asdict(collected), content, request.seed, CALIBRATION, compressing.VERSION])
        layers, shape = parse.spans(self.layers), list(self.windows_WT.shape)
        windows = [*shape, digest(self.windows_WT.tolist())]
        identities: dict[Part, dict[str, Any]] = {}
        for variant, part in self.parts.items():
            made = self._source(variant.projections).made(variant)
            identities[part] = {"probe_version": VERSION, "variant": made, "windows": windows}
            identities[part] |= {"dtype": self.run_dtype(request.dtype)}
        for part in self.modes.values():
            identities[part] = {"probe_version": VERSION, "calibrated": calibrated}
        asked = [[asdict(step) for step in self.steps], None if self.game is None else self.game.identity]
        of_parts = digest([[part.key, identity] for part, identity in identities.items()])
        identities[self.summary] = {
            **{"probe_version": VERSION, "statistics_version": STATISTICS_VERSION, "parts": of_parts},
            **{"asked": digest(asked), "seed": request.seed, "samples": SAMPLES},
        }
        config = {
            **{"ratio": request.ratio, "projections": self.projections, "layers": layers},
            **{"ladder": request.ladder, "shapley": "none" if self.game is None else self.game.orders_said},
            **{
                "mobe steps": request.mobe_steps,
                "fit steps": request.fit_steps,
                "alignment": self.frame.alignment,
                "bootstrap samples": SAMPLES,
            },
            **{
                "text": Path(request.text).name,
                "windows": shape[0],
                "window": shape[1],
                "dtype": self.run_dtype(request.dtype),
            },
            **{f"calibration {name}": value for name, value in asdict(collected).items()},
        }
        return self.run_folder(NAME, identities, config, tables=TABLES, **request.folder)
